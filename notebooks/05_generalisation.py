# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does it generalise, and what does it cost?
#
# At the end you will know whether other pairs for the same concept steer alike, whether the
# vector works on prompts of other kinds, what happens when two vectors are added, how steering
# compares with a mean difference and with prompting, and how to look for side effects.
# Differences between runs are taken prompt by prompt, with intervals.

# %%
from itertools import product

import pandas as pd

import actadd_lens as al

model = al.load_model("testbed")  # any hub name works here, e.g. "gpt2-xl": then change pairs,
# layer and coefficient as well

# %% [markdown]
# Layer and coefficient were chosen for the pair "Love." - "Hate." on selection prompts of
# negative sentiment, among interior layers (`recommended`; notebook 02 shows how one chooses). They
# are kept throughout, also for other pairs and prompts: nothing is tuned below.

# %%
# For another model: lists of strings for the prompts, your own pairs, (prompt, answer) facts, texts
# of any kind, and metrics such as "sentiment", al.metrics.ContainsAny([...]) or "repetition".
pairs = {
    f"{good} - {bad}": (f"{good}.", f"{bad}.")
    for good, bad in product(("Love", "Joy", "Hope"), ("Hate", "Anger", "Disgust"))
}
odd = {"Love - Misery": ("Love.", "Misery."), "Delight - Hate": ("Delight.", "Hate.")}
layer, coefficient = al.testbed.recommended("sentiment")
kinds = ("negative", "neutral", "positive")
prompts = {kind: al.testbed.prompts(kind, "test", 60) for kind in kinds}
positive, valid = al.testbed.Positive(), al.testbed.Valid()
weddings, same_topic = al.testbed.OnTopic("weddings"), al.testbed.SameTopic()
facts = al.testbed.facts()
neutral_texts = [t for t in al.testbed.documents(400, 5) if al.testbed.sentiment(t) == "neutral"]
topic_pair, (topic_layer, topic_c) = al.testbed.pairs["topic"], al.testbed.recommended("topic")

v = coefficient * al.SteeringVector.from_pair(model, pairs["Love - Hate"], layer)
sampling = {"samples": 1, "max_new_tokens": 24}
v

# %% [markdown]
# ## Other pairs for the same concept
#
# Nine pairs, three positive words with three negative ones, and two more that are no worse as
# English: "Love." - "Misery." and "Delight." - "Hate.". One completion of each of 60 prompts of
# negative sentiment, beside a random vector of each pair's norms.

# %%
variance = al.pair_variance(
    model,
    pairs | odd,
    prompts["negative"],
    layer=layer,
    coefficient=coefficient,
    metrics=[positive, valid],
    progress=False,
    **sampling,
)
variance.plot("positive", unit="%", ylabel="positive completions")

# %% [markdown]
# All nine pairs work, and their intervals overlap: which of them is taken hardly matters. The
# other two do nothing at all. That could not be told from the words. In this model's training
# texts "love" and "misery" decide the sentiment of what follows, while "delight" and "hate" only
# hint at it (`docs/testbed.md`). The reading given there: two deciding words have that much in
# common and the subtraction takes it away; two hints never had it. A pair that fails says nothing
# about the concept.
#
# The vectors' cosines, whole vectors row by row:

# %%
variance.cosines.round(2)

# %% [markdown]
# The nine lie within a narrow cone, those that share a word closest. The two that fail point
# elsewhere, but not at right angles, and "Love - Misery" is rather close: a cosine of .7 with a
# vector that works is no promise.
#
# ## Is there one direction?
#
# `split_half` takes the mean difference of two random halves of the nine pairs and gives their
# cosine: mean and spread over 100 splits of these very pairs (no confidence interval). It is read
# at the word (token 1) and at the full stop (token 2). The nine pairs are made of six words, so the
# halves share words and agree more than halves of nine unrelated pairs would.

# %%
agreement = {
    place: al.split_half(model, list(pairs.values()), layer, token=token)
    for place, token in {"word": 1, "full stop": 2}.items()
}
pd.DataFrame({place: vars(interval) for place, interval in agreement.items()}).T.round(3)

# %% [markdown]
# Does the direction also tell positive from negative *sentences*, which the pairs are not made
# of? `separability` projects the last token of 60 positive and 60 negative prompts on it. AUC is
# .5 where nothing is told apart. Beside it ten random directions, lowest and highest.

# %%
directions = {
    "mean difference at the word": al.mean_difference(model, list(pairs.values()), layer, token=1),
    "mean difference at the full stop": al.mean_difference(model, list(pairs.values()), layer),
}
told = {
    name: al.separability(model, prompts["positive"], prompts["negative"], direction).auc
    for name, direction in directions.items()
}
chance = sorted(
    al.separability(
        model, prompts["positive"], prompts["negative"], v.collapse("last").random_like(seed)
    ).auc
    for seed in range(10)
)
told |= {"random, lowest": chance[0], "random, highest": chance[-1]}
pd.DataFrame({"AUC": told}).round(2)

# %% [markdown]
# It does not: at the word there is no separation, and at the full stop hardly more than one of
# ten random directions gives when its sign is free (1 - AUC of the lowest). So the pairs agree on
# a direction that steers sentiment and does *not* show where sentences of that sentiment are, at
# this layer and token. Agreement of pairs, separation of sentences and steering are three
# different things. (The library gives AUC without an interval; n is 60 + 60.)
#
# ## Other prompts
#
# The cell was chosen on negative prompts. Here are prompts of all three sentiments, with four
# runs each: the vector, a random one of the same norms, the negated vector, and the pair
# "Misery." - "Delight." at the same layer and coefficient. All runs share their random numbers,
# so the difference to the clean run is taken prompt by prompt.


# %%
def scored(runs: dict[str, object], on: list[str], metrics: list[object]) -> pd.DataFrame:
    """Scores of one completion a prompt in each run."""
    found = [
        al.score(al.generate(model, on, steering, max_new_tokens=24), metrics).assign(run=run)
        for run, steering in runs.items()
    ]
    return pd.concat(found, ignore_index=True)


def shares(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Share of completions in each run, with Wilson intervals, as cells to draw."""
    found = {run: al.statistics.proportion(own[metric]) for run, own in frame.groupby("run")}
    cells = pd.DataFrame([{"run": run, **vars(found[run])} for run in frame["run"].unique()])
    return cells.assign(metric=metric.replace("_", " "), run="steered")


def paired(frame: pd.DataFrame, metric: str, against: str = "clean") -> pd.DataFrame:
    """Difference of each run to another one, prompt by prompt."""
    base = frame[frame["run"] == against].set_index("prompt_index")[metric]
    lines = []
    for run, own in frame[frame["run"] != against].groupby("run", sort=False):
        values = own.set_index("prompt_index")[metric]
        difference = al.statistics.mean_change(values, base)
        p = al.statistics.paired_permutation(values, base).p_value
        lines.append({"run": run, "metric": metric, f"less {against}": difference.mean})
        lines[-1] |= {"low": difference.low, "high": difference.high, "n": difference.n, "p": p}
    return pd.DataFrame(lines)


away = coefficient * al.SteeringVector.from_pair(model, ("Misery.", "Delight."), layer)
runs = {"clean": None, "steered": v, "random": v.random_like(0), "negated": -v, "reversed": away}
by_kind = {kind: scored(runs, on, [positive, valid]) for kind, on in prompts.items()}
cells = pd.concat([shares(frame, "positive").assign(prompts=k) for k, frame in by_kind.items()])
al.plots.bars(
    cells,
    x="prompts",
    group="run",
    ylabel="positive completions",
    unit="%",
    note="95 % intervals, n = 60 prompts of each kind",
)

# %%
differences = {kind: paired(frame, "positive") for kind, frame in by_kind.items()}
table = pd.concat(differences, names=["prompts", None]).reset_index("prompts")
table.assign(holm=al.statistics.adjust(table["p"])).drop(columns="p").round(3)

# %% [markdown]
# `holm` are p-values of paired permutation tests, corrected for all of the table. On neutral
# prompts the vector works as on those it was chosen for. On positive ones there is nothing to
# gain, so they are no evidence for or against. There it takes the reversed pair to show that
# something can be moved: hardly any completion stays positive, with a cell that was not chosen for
# it. The negated vector does not do that.
#
# One line needs care: for the random vector on neutral prompts the interval leaves out 0 and the
# test sees nothing. Where a handful of prompts differ, all in one direction, a bootstrap has too
# little to resample and its interval is too narrow. Where the two disagree, go by the test.
#
# ## Two vectors at once
#
# Sentiment and weddings, on the same prompts. `[v, w]` adds both at the front: row 1 of either
# lands on the same token. `w.at(len(v.rows) - 1)` starts the second one where the first ends. Its
# row 0 is zero, so no token gets two rows that matter:

# %%
w = topic_c * al.SteeringVector.from_pair(model, topic_pair, topic_layer)
beside = w.at(len(v.rows) - 1)
al.plots.placement(al.placement(model, [v, beside], prompts["negative"][0]))

# %%
together = {
    "clean": None,
    "sentiment alone": v,
    "topic alone": w,
    "same tokens": [v, w],
    "side by side": [v, beside],
    "two random": [v.random_like(0), beside.random_like(1)],
}
composed = scored(together, prompts["negative"], [positive, weddings, valid])
names = [positive.name, weddings.name, valid.name]
cells = pd.concat([shares(composed, name) for name in names]).rename(columns={"metric": "reading"})
al.plots.bars(
    cells,
    x="run",
    group="reading",
    ylabel="completions",
    unit="%",
    note="95 % intervals, n = 60 prompts",
)

# %%
kept = {
    "positive": paired(composed, "positive", "sentiment alone"),
    "weddings": paired(composed, weddings.name, "topic alone"),
}
table = pd.concat([t.rename(columns=lambda c: c.split(" ")[0]) for t in kept.values()])
table = table[table["run"].isin(["same tokens", "side by side"])]
table.rename(columns={"less": "less alone"}).drop(columns="p").round(2)

# %% [markdown]
# On the same tokens the two suppress each other: positive completions and weddings both fall
# below what either vector reaches alone, and both intervals of the difference leave out 0. Side
# by side no loss shows in either. So it is not that the model cannot write of happy weddings, nor
# that two vectors are too much for it. It is sharing a token that costs them their effect. Layer
# norm, which bounds what one token can say, would explain it; that is not tested here.
#
# ## Baselines: a mean difference, and words
#
# A sweep takes two of them as controls. "mean_difference" is contrastive activation addition over
# the pairs of the sweep, read at their last token and added to *every* token, generated ones too.
# "prompted" is the positive prompt as text, and no vector. The figure shows the first pair.

# %%
baselines = al.sweep(
    model,
    dict(list(pairs.items())[:3]),
    prompts["negative"],
    layers=[layer],
    coefficients=[1, 2, 4, 6],
    metrics=[positive, valid],
    controls=["mean_difference", "prompted"],
    progress=False,
    **sampling,
)
summary = baselines.summary()
first = summary[summary["pair"].eq("Love - Hate") | summary["run"].eq("clean")]
al.plots.coefficient_curve(
    first[first["metric"] == "positive"],
    ylabel="positive completions",
    unit="%",
    note="95 % intervals, n = 60 prompts",
)

# %%
first[first["metric"] == "valid"][["coefficient", "run", "mean", "low", "high", "n", "dose"]].round(
    2
)

# %% [markdown]
# Words in front do as well as the vector, at no search. That is so on this model throughout, and
# steering has to be worth something else than success: it needs no context, comes in doses, and
# can be taken apart. The mean difference, added to every token, gets up at the largest
# coefficients, where hardly any text is grammatical. The coefficients were not chosen for it, so
# this compares ways of injection at equal coefficient, not the two methods at their best.
#
# Single words are a poor material for a mean difference, which is usually taken over sentences.
# So once more over 30 pairs of sentences that differ in one word, at several coefficients, all of
# them shown:

# %%
verbs = [("loved", "hated"), ("enjoyed", "despised"), ("adored", "loathed")]
nouns = ("song", "match", "soup", "train", "atom", "choir", "goal", "pizza", "hotel", "planet")
sentences = [(f"We {a} the {noun}.", f"We {b} the {noun}.") for a, b in verbs for noun in nouns]
mean = al.mean_difference(model, sentences, layer)
doses = [f"c = {c}" for c in (1, 2, 4, 8)]
runs = {"clean": None} | {dose: float(dose[4:]) * mean for dose in doses}
caa = scored(runs, prompts["negative"], [positive, valid])
table = pd.concat([shares(caa, name) for name in ("positive", "valid")])
table.drop(columns="run").round(2)

# %% [markdown]
# Nothing is turned at any of them. What the last token of such a sentence holds is no lever on
# what comes next, at this layer. It was read at one layer and token only, so it is no verdict on
# the method.
#
# ## Side effects
#
# What else changes under the vector at the front? Grammatical text, the topic of the prompt kept
# (NaN where a prompt has none), n-grams repeated and distinct, each against the clean run, prompt
# by prompt, on negative prompts. `holm` corrects for all the tests in the table.

# %%
effects = ["valid", "same_topic", "repetition", "distinct_2"]
runs = {"clean": None, "steered": v, "random": v.random_like(0), "at the back": v.at("back")}
side = scored(runs, prompts["negative"], [valid, same_topic, "repetition", "distinct_2"])
table = pd.concat([paired(side, metric) for metric in effects], ignore_index=True)
table.assign(holm=al.statistics.adjust(table["p"])).drop(columns="p").round(3)

# %% [markdown]
# At the front no test finds a side effect with 60 prompts. That bounds it, no more: the intervals
# of `valid` and `same_topic` allow some points. Where they leave out 0, see the caution above. At
# the back the vector costs grammatical text. What a vector costs depends on where it lands.
#
# ### Facts
#
# The share of 60 facts whose answer is the likeliest next token, with the vector on the first
# words of the question, behind a sentence on which the vector lands, and at the back, on the
# words that are asked about.

# %%
behind = [(f"We felt ready and calm. {question}", answer) for question, answer in facts]
recalled = {
    "clean": al.precision_at_k(model, facts, [1, 5]),
    "vector on the question's front": al.precision_at_k(model, facts, [1, 5], v),
    "vector on a sentence before it": al.precision_at_k(model, behind, [1, 5], v),
    "vector at the back": al.precision_at_k(model, facts, [1, 5], v.at("back")),
    "random vector at the back": al.precision_at_k(
        model, facts, [1, 5], v.random_like(0).at("back")
    ),
}
pd.concat(recalled, names=["run", None]).reset_index("run").round(2)

# %% [markdown]
# The same as a metric of completions, which can stand in a sweep beside success:

# %%
recall = al.sweep(
    model,
    pairs["Love - Hate"],
    [question for question, _ in facts],
    layers=[layer],
    coefficients=[coefficient],
    positions=["front", "back"],
    metrics=al.testbed.FactRecall(),
    temperature=0.0,
    samples=1,
    max_new_tokens=4,
    controls=["random"],
    progress=False,
)
recall

# %% [markdown]
# At the front no fact is lost, on the question or before it. At the back nearly all are, and
# under a random vector too: it is the words asked about that are overwritten, whatever with. So
# "facts survive" holds for a vector that keeps off the words a fact is asked with.
#
# ### Texts on something else
#
# Perplexity of documents without a sentiment, steered over clean, beside a random vector.
# Notebook 04 says why the random vector is the right comparison: both wipe out the word they land
# on.

# %%
unrelated = {
    name: al.perplexity_ratio(model, neutral_texts, run)
    for name, run in {"steered": v, "random": v.random_like(0)}.items()
}
ratios = {name: al.ratio_summary(frame) for name, frame in unrelated.items()}
pd.concat(ratios, names=["run", None]).reset_index("run").drop(columns="label").round(3)

# %%
loss = unrelated["random"]["logprob_steered"] - unrelated["steered"]["logprob_steered"]
pd.DataFrame([vars(al.statistics.mean(loss))], index=["nats per token, beyond random"]).round(3)

# %% [markdown]
# The steered model finds documents without a sentiment less likely, beyond what the random vector
# does. Part of it is the aim itself: it expects words of joy that do not come. So the side
# effects that completions hid are there in the likelihoods, small and clear of 0.
#
# ## What comes next
#
# All of this is about one model that was made to be steerable. Notebook 06 brings your own model,
# metrics and prompts.
