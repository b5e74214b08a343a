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
# This notebook tests whether other pairs for the same concept steer alike, whether the vector
# works on prompts of other kinds, what happens when two vectors are added, how steering compares
# with a mean difference and with prompting, and how to measure side effects. Differences between
# runs are computed prompt by prompt, with intervals.

# %%
from itertools import product

import pandas as pd

import actadd_lens as al

model = al.load_model("testbed")  # any hub name works here, e.g. "gpt2-xl"; then change pairs,
# layer and coefficient as well

# %% [markdown]
# Layer and coefficient were chosen for the pair "Love." - "Hate." on selection prompts of
# negative sentiment, among interior layers (`recommended`; notebook 02 shows how to choose). They
# stay the same for other pairs and prompts: nothing is tuned below.

# %%
# For another model: prompts as lists of strings, your own pairs, (prompt, answer) facts, texts
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
# There are nine pairs, three positive words with three negative ones, and two more pairs that are
# equally good English: "Love." - "Misery." and "Delight." - "Hate.". The table has one completion
# of each of 60 prompts of negative sentiment, and a random vector of each pair's norms.

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
# All nine pairs work, and their intervals overlap: it hardly matters which one is used. The other
# two have no effect at all. The words alone do not predict this. In this model's training texts
# "love" and "misery" determine the sentiment of what follows, while "delight" and "hate" only
# make it more likely (`docs/testbed.md`). The explanation given there: two determining words
# share the part that the subtraction removes, and two hints never had it. A pair that fails says
# nothing about the concept.
#
# The cosines of the vectors, computed on whole vectors row by row:

# %%
variance.cosines.round(2)

# %% [markdown]
# The nine vectors are similar to each other, most of all those that share a word. The two that
# fail differ from them, but are not orthogonal, and "Love - Misery" is rather close. A cosine of
# .7 with a vector that works does not guarantee that a vector works.
#
# ## Is there one direction?
#
# `split_half` computes the mean difference of two random halves of the nine pairs and returns
# their cosine: mean and spread over 100 splits of these pairs (this is not a confidence
# interval). It is measured at the word (token 1) and at the full stop (token 2). The nine pairs
# are made of six words, so the halves share words and agree more than halves of nine unrelated
# pairs would.

# %%
agreement = {
    place: al.split_half(model, list(pairs.values()), layer, token=token)
    for place, token in {"word": 1, "full stop": 2}.items()
}
pd.DataFrame({place: vars(interval) for place, interval in agreement.items()}).T.round(3)

# %% [markdown]
# Does the direction also separate positive from negative *sentences*, of which the pairs are not
# made? `separability` projects the last token of 60 positive and 60 negative prompts on it. An
# AUC of .5 means no separation. The table also has the lowest and the highest of ten random
# directions.

# %%
directions = {
    "mean difference at the word": al.mean_difference(model, list(pairs.values()), layer, token=1),
    "mean difference at the full stop": al.mean_difference(model, list(pairs.values()), layer),
}
separation = {
    name: al.separability(model, prompts["positive"], prompts["negative"], direction).auc
    for name, direction in directions.items()
}
chance = sorted(
    al.separability(
        model, prompts["positive"], prompts["negative"], v.collapse("last").random_like(seed)
    ).auc
    for seed in range(10)
)
separation |= {"random, lowest": chance[0], "random, highest": chance[-1]}
pd.DataFrame({"AUC": separation}).round(2)

# %% [markdown]
# It does not. At the word there is no separation, and at the full stop hardly more than one of
# ten random directions gives when its sign is free (1 - AUC of the lowest). So the pairs agree on
# a direction that steers sentiment, but at this layer and token that direction does *not*
# separate sentences by sentiment. Agreement of pairs, separation of sentences and steering are
# three different things. (The library returns AUC without an interval; n is 60 + 60.)
#
# ## Other prompts
#
# Layer and coefficient were chosen on negative prompts. Here are prompts of all three sentiments,
# with four runs each: the vector, a random one of the same norms, the negated vector, and the
# pair "Misery." - "Delight." at the same layer and coefficient. All runs share their random
# numbers, so the difference from the clean run is computed prompt by prompt.


# %%
def scored(runs: dict[str, object], on: list[str], metrics: list[object]) -> pd.DataFrame:
    """Scores of one completion per prompt in each run."""
    found = [
        al.score(al.generate(model, on, steering, max_new_tokens=24), metrics).assign(run=run)
        for run, steering in runs.items()
    ]
    return pd.concat(found, ignore_index=True)


def shares(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Share of completions in each run, with Wilson intervals, as rows of a figure."""
    found = {run: al.statistics.proportion(own[metric]) for run, own in frame.groupby("run")}
    rows = [{"condition": run, **vars(found[run])} for run in frame["run"].unique()]
    return pd.DataFrame(rows).assign(metric=metric.replace("_", " "), run="steered")


def paired(frame: pd.DataFrame, metric: str, against: str = "clean") -> pd.DataFrame:
    """Difference of each run from another one, prompt by prompt."""
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
rows = pd.concat([shares(frame, "positive").assign(prompts=k) for k, frame in by_kind.items()])
al.plots.bars(
    rows,
    x="prompts",
    group="condition",
    ylabel="positive completions",
    unit="%",
    note="95 % intervals, n = 60 prompts of each kind",
)

# %%
differences = {kind: paired(frame, "positive") for kind, frame in by_kind.items()}
table = pd.concat(differences, names=["prompts", None]).reset_index("prompts")
table.assign(holm=al.statistics.adjust(table["p"])).drop(columns="p").round(3)

# %% [markdown]
# `holm` are p-values of paired permutation tests, corrected for the whole table. On neutral
# prompts the vector works as on the prompts for which it was chosen. Positive prompts cannot
# become more positive, so they are not evidence for or against the vector. There, the reversed
# pair shows that the sentiment can be changed: hardly any completion stays positive, although
# layer and coefficient were not chosen for this pair. The negated vector does not have this
# effect.
#
# One line needs care. For the random vector on neutral prompts the interval excludes 0, but the
# test finds no difference. If only a few prompts differ, all in one direction, the bootstrap has
# too little to resample and its interval is too narrow. If the two disagree, use the test.
#
# ## Two vectors at once
#
# Sentiment and weddings, on the same prompts. `[v, w]` adds both at the front: row 1 of both is
# added to the same token. `w.at(len(v.rows) - 1)` starts the second vector where the first ends.
# Its row 0 is zero, so no token gets two nonzero rows:

# %%
w = topic_c * al.SteeringVector.from_pair(model, topic_pair, topic_layer)
next_to = w.at(len(v.rows) - 1)
al.plots.placement(al.placement(model, [v, next_to], prompts["negative"][0]))

# %%
together = {
    "clean": None,
    "sentiment alone": v,
    "topic alone": w,
    "same tokens": [v, w],
    "separate tokens": [v, next_to],
    "two random": [v.random_like(0), next_to.random_like(1)],
}
composed = scored(together, prompts["negative"], [positive, weddings, valid])
names = [positive.name, weddings.name, valid.name]
rows = pd.concat([shares(composed, name) for name in names])
al.plots.bars(
    rows.rename(columns={"metric": "measurement"}),
    x="condition",
    group="measurement",
    ylabel="completions",
    unit="%",
    note="95 % intervals, n = 60 prompts",
)

# %%
changes = {
    "positive": paired(composed, "positive", "sentiment alone"),
    "weddings": paired(composed, weddings.name, "topic alone"),
}
table = pd.concat([t.rename(columns=lambda c: c.split(" ")[0]) for t in changes.values()])
table = table[table["run"].isin(["same tokens", "separate tokens"])]
table.rename(columns={"less": "less alone"}).drop(columns="p").round(2)

# %% [markdown]
# On the same tokens the two vectors suppress each other: positive completions and weddings are
# both less frequent than with either vector alone, and both intervals of the difference exclude
# 0. On separate tokens no loss is visible. So the model can write about happy weddings, and two
# vectors are not too many. The effect is lost when they share a token. Layer norm bounds the
# effect of one token and would explain this; that is not tested here.
#
# ## Baselines: a mean difference, and words
#
# A sweep has two of them as controls. "mean_difference" is contrastive activation addition over
# the pairs of the sweep. It is read at their last token and added to *every* token, also to
# generated ones. "prompted" is the positive prompt as text, without a vector. The figure shows
# the first pair.

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
first = summary[summary["vector"].eq("Love - Hate") | summary["run"].eq("clean")]
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
# Prompting works as well as the vector, without a search. This holds for this model throughout.
# Steering needs another advantage than success: it needs no context, its strength can be varied,
# and its parts can be studied. The mean difference, added to every token, succeeds at the largest
# coefficients only, where hardly any text is grammatical. The coefficients were not chosen for
# it, so this compares two ways of injection at equal coefficient, not the two methods at their
# best.
#
# Single words are a poor data set for a mean difference, which is usually computed over
# sentences. Below are 30 pairs of sentences that differ in one word, at several coefficients, all
# of which are shown:

# %%
verbs = [("loved", "hated"), ("enjoyed", "despised"), ("adored", "loathed")]
nouns = ("song", "match", "soup", "train", "atom", "choir", "goal", "pizza", "hotel", "planet")
sentences = [(f"We {a} the {noun}.", f"We {b} the {noun}.") for a, b in verbs for noun in nouns]
mean = al.mean_difference(model, sentences, layer)
runs = {"clean": None} | {f"c = {c}": c * mean for c in (1, 2, 4, 8)}
caa = scored(runs, prompts["negative"], [positive, valid])
table = pd.concat([shares(caa, name) for name in ("positive", "valid")])
table.drop(columns="run").round(2)

# %% [markdown]
# No coefficient has an effect. At this layer, the last token of such a sentence does not contain
# what steers the following text. It was read at one layer and token only, so this does not settle
# the method's value.
#
# ## Side effects
#
# What else does the vector change at the front? The table measures grammatical text, whether the
# completion has the prompt's topic (NaN if a prompt has none), and repeated and distinct n-grams.
# Each is compared with the clean run, prompt by prompt, on negative prompts. `holm` corrects for
# all tests in the table.

# %%
effects = ["valid", "same_topic", "repetition", "distinct_2"]
runs = {"clean": None, "steered": v, "random": v.random_like(0), "at the back": v.at("back")}
side = scored(runs, prompts["negative"], [valid, same_topic, "repetition", "distinct_2"])
table = pd.concat([paired(side, metric) for metric in effects], ignore_index=True)
table.assign(holm=al.statistics.adjust(table["p"])).drop(columns="p").round(3)

# %% [markdown]
# At the front no test finds a side effect with 60 prompts. This only bounds it: the intervals of
# `valid` and `same_topic` include some points. If an interval excludes 0, see the caution above.
# At the back the vector reduces grammatical text. The cost of a vector depends on its position.
#
# ### Facts
#
# The share of 60 facts whose answer is the most likely next token. The vector is added to the
# first words of the question, to a sentence before the question, or at the back, to the words
# that the question is about.

# %%
after_filler = [(f"We felt ready and calm. {question}", answer) for question, answer in facts]
recalled = {
    "clean": al.precision_at_k(model, facts, [1, 5]),
    "vector on the question's front": al.precision_at_k(model, facts, [1, 5], v),
    "vector on a sentence before it": al.precision_at_k(model, after_filler, [1, 5], v),
    "vector at the back": al.precision_at_k(model, facts, [1, 5], v.at("back")),
    "random vector at the back": al.precision_at_k(
        model, facts, [1, 5], v.random_like(0).at("back")
    ),
}
pd.concat(recalled, names=["run", None]).reset_index("run").round(2)

# %% [markdown]
# The same as a metric of completions, which can be used in a sweep together with success:

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
# At the front no fact is lost, whether the vector is added to the question or before it. At the
# back nearly all are lost, also under a random vector: the addition overwrites the words of the
# question, whatever the direction is. So "facts survive" is true for a vector that is not added
# to the words with which a fact is asked.
#
# ### Texts about something else
#
# The perplexity of documents without a sentiment, steered over clean, compared with a random
# vector. Notebook 04 explains why the random vector is the right comparison: both overwrite the
# word to which they are added.

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
# The steered model gives documents without a sentiment a lower likelihood, beyond the effect of
# the random vector. Part of this is the aim itself: the model expects words of joy that do not
# occur. So the likelihoods show a side effect that the completions did not show. It is small and
# differs from 0.
#
# ## What comes next
#
# All results are about one model that was made to be steerable. Notebook 06 uses your own model,
# metrics and prompts.
