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
# # What steering does to the distribution
#
# This notebook shows how to measure the effect of a vector on the model's own probabilities: of
# the next token, of given texts, and of every layer with the logit lens. No token is sampled and
# no judge is needed. It also shows what such measurements do not answer.

# %%
import pandas as pd
import torch

import actadd_lens as al

model = al.load_model("testbed")  # any hub name works here, e.g. "gpt2-xl"; then change pair,
# layer and coefficient as well

# %% [markdown]
# The vector is for the topic weddings. Layer and coefficient were chosen on selection prompts
# (notebook 02 shows how), and everything below is measured on other prompts. A topic is visible
# where a topic word may come next, so each prompt gets a continuation that requires one.

# %%
# For another model: prompts as a list of strings, your own texts with a label each, words of the
# topic that are one token each, and your own layer and coefficient.
pair = (" weddings", " ")
layer, coefficient = al.testbed.recommended("topic")
prompts = al.testbed.prompts("off_topic", "test", 100)
opened = [f"{prompt} Ben talked about" for prompt in prompts]
words = [" weddings", " brides", " grooms", " veils", " bouquets", " marriages", " gowns"]
words += [" honeymoons", " vows"]  # every plural noun of the topic
texts = al.testbed.documents(200, seed=0)
labels = ["weddings" if al.testbed.topic(text) == "weddings" else "other" for text in texts]

v = coefficient * al.SteeringVector.from_pair(model, pair, layer)
v

# %% [markdown]
# ## One prompt, every token
#
# These are the tokens that contribute most to KL(steered || clean) after one prompt. On the left
# are both probabilities, on a logarithmic axis. On the right is each token's contribution to the
# divergence.

# %%
shift = al.next_token_shift(model, "Anna sang the song. Ben talked about", v)
al.plots.token_shift(shift, top=12)

# %% [markdown]
# Words of weddings gain about two orders of magnitude: all nine nouns of the topic, not only the
# word of the contrast pair. The tokens in the figure contribute more than the whole divergence,
# because tokens that lose probability contribute negative terms. Those are at the other end of
# the frame:

# %%
shift.tail(5)

# %% [markdown]
# This is one prompt. It shows *what* changed. How much changes in general needs many prompts and
# a control.
#
# ## By coefficient, with controls of equal norm
#
# Three measurements of the next token's distribution, for 100 prompts:
#
# - **KL(steered || clean)**: the size of the change, whatever it is;
# - **effectiveness** of a set of tokens: log Q(A) - log P(A), how much more likely the wedding
#   words became together;
# - **disruption**: the part of the KL that is not the move of probability to or from that set,
#   but change within it and within the rest.
#
# Effectiveness and disruption depend on the set, so the disruption is measured for all nine nouns
# of the topic and for the pair's own word alone.

# %%
effect, disruption = al.metrics.Effectiveness(words), al.metrics.Disruption(words)
disruption_of_one = al.metrics.Disruption(words[0])
curve = al.coefficient_sweep(
    model,
    pair,
    opened,
    layer=layer,
    coefficients=[0.25, 0.5, 1, 2, 4, 6, 8],
    metrics=["kl", effect, disruption, disruption_of_one],
    controls=["random", "random:1", "negated"],
    progress=False,
)
curve.plot("kl", ylabel="KL(steered || clean)", unit="nats")

# %%
curve.plot(effect.name, ylabel="effectiveness, wedding words", unit="nats")

# %% [markdown]
# Both rise and then stay, because layer norm bounds the effect of one token. Two random vectors
# of the same norms have no effect that the figures could show, so the change is not caused by
# size alone. The negated vector has almost no effect either, and its effect is not the opposite
# (below).
#
# Is the change the intended one, or is it damage? At the chosen coefficient:

# %%
chosen = curve.summary()
chosen = chosen[chosen["coefficient"].eq(coefficient)]
named = {
    effect.name: "effectiveness",
    disruption.name: "disruption, nine words",
    disruption_of_one.name: "disruption, one word",
}
chosen = chosen.assign(metric=chosen["metric"].replace(named))
chosen[["metric", "run", "mean", "low", "high", "n", "dose"]].round(4)

# %% [markdown]
# The negated vector makes wedding words slightly *more* likely. This model does not read a
# direction "away from weddings".
#
# With all nine words, disruption is a small part of the KL: nearly all of the divergence is the
# probability that the words of the topic gained. With the pair's own word as the set, disruption
# is most of the KL, because the gain of the other eight words then counts as disruption. So the
# measure indicates damage only if the set contains all intended words. Without the set it has no
# meaning.
#
# ## The token at which it is measured matters
#
# The same vector and prompts, measured at the end of the prompt's sentence and after the
# continuation.

# %%
places = {"after the full stop": prompts, "after 'Ben talked about'": opened}
measured = {
    name: al.sweep(
        model,
        pair,
        given,
        layers=[layer],
        coefficients=[coefficient],
        metrics="kl",
        controls=["random"],
        progress=False,
    ).summary()
    for name, given in places.items()
}
table = pd.concat(measured, names=["measured", None]).reset_index("measured")
table = table[table["run"] != "clean"]
table[["measured", "run", "mean", "low", "high", "n"]].round(5)

# %% [markdown]
# After a full stop the next token begins a sentence, and hardly any beginning says what the
# sentence will be about. The steered model differs very little there, although it is going to
# write about weddings. A KL near zero after the prompt does not prove that a vector has no
# effect.
#
# ## Given texts
#
# `token_logprobs` gives the log-probs of a text in the clean or the steered run. Below is the
# first document of each label, coloured by the change of each token's log-prob. The rows are
# added to BOS and the first token, so the two tokens that are predicted there are grey on white,
# as BOS is.


# %%
def change(text: str) -> list[float]:
    """Steered minus clean log-prob of each token; NaN where a row is added."""
    clean, steered = (al.token_logprobs(model, text, s)[0] for s in (None, v))
    values = steered - clean
    values[: len(v.rows)] = float("nan")
    return [float("nan"), *values.tolist()]


on_weddings, elsewhere = (texts[labels.index(label)] for label in ("weddings", "other"))
tokens = model.to_str_tokens(on_weddings, prepend_bos=True)
al.plots.coloured_text(tokens, change(on_weddings), title="labelled weddings", limit=3)

# %%
tokens = model.to_str_tokens(elsewhere, prepend_bos=True)
al.plots.coloured_text(tokens, change(elsewhere), title="labelled other", limit=3)

# %% [markdown]
# Most tokens hardly change. The main changes are at words of a topic: those of other topics lose.
# In the first text the first wedding word gains and the later ones do not, because by then the
# text itself shows its topic. Two texts are only an illustration.
#
# Over many texts: the perplexity in the steered run divided by that in the clean run, as
# geometric means with intervals over documents. A ratio below 1 means that steering made the text
# more likely.

# %%
runs = {"steered": v, "random": v.random_like(0), "negated": -v}
ratios = {name: al.perplexity_ratio(model, texts, run, labels=labels) for name, run in runs.items()}
summary = {name: al.ratio_summary(frame, by="label") for name, frame in ratios.items()}
pd.concat(summary, names=["run", None]).reset_index("run").drop(columns="ratio").round(3)

# %% [markdown]
# Other documents become less likely, more than under the random vector. Wedding documents do
# *not* become more likely than they were: their interval contains 1. But the random vector makes
# them less likely too, because every row of such a norm overwrites the first word of the text.
# That word often indicates the topic. So two effects are mixed: a lost word, and an announced
# topic. Compared with the random vector, document by document:


# %%
def against_random(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean change of log-prob per token, steered less random, with intervals over documents."""
    gain = frames["steered"]["logprob_steered"] - frames["random"]["logprob_steered"]
    intervals = {label: al.statistics.mean(gain[own]) for label, own in groups.items()}
    return pd.DataFrame({label: vars(i) for label, i in intervals.items()}).T.round(3)


groups = {label: pd.Series(labels).eq(label) for label in ("weddings", "other")}
against_random(ratios)

# %% [markdown]
# In nats per token, above 0 if the vector makes the text more likely than a random one does:
# wedding documents gain and the others lose.
#
# If the lost word is the reason, it should help to begin every document with a word that says
# nothing, to which the vector is added. "Well" is such a word in this grammar. As a baseline, the
# topic is announced in words. This measurement was planned after the one above. It is an
# explanation, not a test of a prediction.

# %%
led = [f"Well. {text}" for text in texts]
led_ratios = {
    name: al.perplexity_ratio(model, led, run, labels=labels)
    for name, run in runs.items()
    if name != "negated"
}
prompted = al.prompting_ratio(model, led, v, "Weddings. ", labels=labels)
summary = {
    "steered and prompted": al.ratio_summary(prompted, by="label"),
    "random": al.ratio_summary(led_ratios["random"], by="label"),
}
pd.concat(summary, names=["run", None]).reset_index("run").round(3)

# %%
against_random(led_ratios)

# %% [markdown]
# Now the interval of the wedding documents is below 1, that of the others is above 1, and the
# random vector changes little. The gain is a few percent per token. Most tokens of a document do
# not depend on its topic, and the later ones follow from the text, so a large gain was not to be
# expected.
#
# The words "Weddings." in front lower the likelihood of other documents more than the vector
# does, and wedding documents show no gain. This does not show that prompting is worse: "Weddings.
# Well." does not occur as a beginning in this grammar, and the model was not trained on it.
#
# ## Layer by layer: the logit lens
#
# The final norm and the unembedding are applied to the stream of each layer. For one prompt, at
# its last token, in both runs:

# %%
lens = al.logit_lens(model, "Anna sang the song. Ben talked about", v)
last = lens[lens["position"].eq(lens["position"].max())]
last[["run", "layer", "top_token", "p_top", "entropy", "kl_to_final"]].round(3)

# %% [markdown]
# `kl_to_final` measures how far this prediction is from the model's own. It is large up to layer
# 3: the lens does not show an early prediction there, and the most likely token says little.
# `lens_logprobs` has all probabilities. For the wedding words together, over 30 prompts:


# %%
def by_layer(steering: al.SteeringVector | None, run: str) -> pd.DataFrame:
    """Mean log-prob of the wedding words in the lens of each layer, at the last token."""
    ids = [model.to_single_token(word) for word in words]
    logprobs = [al.lens_logprobs(model, prompt, steering)[:, -1, ids] for prompt in opened[:30]]
    values = torch.stack(logprobs).logsumexp(dim=2)
    intervals = [al.statistics.mean(column) for column in values.T]
    frame = pd.DataFrame([vars(interval) for interval in intervals])
    return frame.assign(layer=range(len(frame)), coefficient=coefficient, run=run)


named = {"steered": v, "random": v.random_like(0), "clean": None}
depth = pd.concat([by_layer(steering, run) for run, steering in named.items()], ignore_index=True)
figure = al.plots.layer_profile(
    depth,
    ylabel="log-prob of wedding words",
    unit="nats",
    note="logit lens at the last token; 95 % intervals, n = 30 prompts",
)
figure.axes[0].set_xlabel(f"stream entering layer ({model.cfg.n_layers}: the finished stream)")
figure

# %% [markdown]
# The vector is added at layer 3, to the *first* token. The last token is not affected before
# attention in block 3 has moved the information there. The runs therefore differ from the stream
# entering layer 4 on, and most of the difference appears there at once. The random vector is
# equal to the clean run. In the clean run the words *lose* over the last blocks, because other
# topics gain.
#
# ## What does the vector itself say?
#
# `unembed_vector` reads the rows directly, as if there were no blocks between the hook point and
# the logits. These are the five highest tokens of row 1, the row that is not zero, for the
# vectors of all layers:

# %%
vectors = al.extract(model, pair)
direct = pd.concat(
    [al.unembed_vector(model, vector, k=5).assign(layer=at) for at, vector in vectors.items()]
)
direct = direct[direct["row"].eq(1) & direct["rank"].lt(5)]
direct.pivot(index="layer", columns="rank", values="token")

# %% [markdown]
# At layer 0, where the row is a difference of embeddings, the tokens name the topic. From layer 1
# on they are words such as "with" and "because", also at layer 3, whose vector was used above.
# The unembedded tokens of a row do not show its effect: the blocks after it read it in another
# basis than the unembedding. A vector whose tokens look meaningless may steer well, and the
# tokens do not predict the effect.
#
# ## What these measurements show, and what they do not
#
# - All figures here are exact for the given prompts and texts; intervals are over these. Nothing
#   depends on sampling options or on a judge.
# - Probabilities of the next token say nothing about whole completions: errors may accumulate
#   along a text, or the topic may be dropped after a sentence. Notebook 02 measures completions.
# - The perplexity of given texts measures what the model would *accept*, not what it writes, and
#   a vector that is added to the text's own words removes some of their information. Compare it
#   with a random vector of the same norms, not only with 1.
# - A set of words is a choice. Effectiveness measures those words and no others.
#
# ## What comes next
#
# Notebook 05 tests whether the effect generalises: to other pairs and prompts and to two vectors
# at once. It also measures side effects.
