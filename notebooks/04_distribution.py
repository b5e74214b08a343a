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
# At the end you will know how to read the effect of a vector off the model's own probabilities:
# of the next token, of texts that are given, and of every layer by the logit lens. No token is
# sampled and no judge is asked. You will also know what such readings leave open.

# %%
import pandas as pd
import torch

import actadd_lens as al

model = al.load_model("testbed")  # any hub name works here, e.g. "gpt2-xl": then change pair,
# layer and coefficient as well

# %% [markdown]
# The vector is that of the topic weddings. Layer and coefficient were chosen on selection prompts
# (notebook 02 shows how), and everything below is read on others. A topic shows where a topic
# word may come next, so each prompt gets an opening that asks for one.

# %%
# For another model: a list of strings for prompts, texts of your own with a label each, words of
# the topic that are one token each, and a layer and coefficient of your own.
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
# The tokens that contribute most to KL(steered || clean) after one prompt. On the left both
# probabilities, on a logarithmic axis; on the right each token's share of the divergence.

# %%
shift = al.next_token_shift(model, "Anna sang the song. Ben talked about", v)
al.plots.token_shift(shift, top=12)

# %% [markdown]
# Words of weddings gain about two orders of magnitude, all nine nouns of the topic and not just
# the word of the contrast pair. The tokens shown contribute more than the whole divergence, as
# tokens that lose probability contribute negative terms. Those are at the other end of the frame:

# %%
shift.tail(5)

# %% [markdown]
# This is one prompt. It shows *what* moved; how much moves in general needs many prompts and a
# control.
#
# ## By coefficient, with controls of equal norm
#
# Three readings of the next token's distribution, for 100 prompts:
#
# - **KL(steered || clean)**: how much changed, whatever it was;
# - **effectiveness** of a set of tokens: log Q(A) - log P(A), how much likelier the wedding words
#   became together;
# - **disruption**: the part of the KL that is not the move of weight to or from that set, but
#   change within it and within the rest.
#
# Both of the latter depend on the set, so the disruption is taken for all nine nouns of the topic
# and for the pair's own word alone.

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
# Both rise and then stay, as layer norm bounds how loud one token can be. Two random vectors of
# the same norms do nothing that the figures could show, so the change is not one of size. The
# negated vector does next to nothing as well, and what it does is not the contrary (below).
#
# Is the change what was wanted, or damage? At the chosen coefficient:

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
# The negated vector makes wedding words a little *likelier*. Away from weddings is no direction
# that this model reads.
#
# With all nine words disruption is a small part of the KL: nearly all of the divergence is the
# weight that the words of the topic got. With the pair's own word as the set it is most of it, as
# what the other eight gain counts as disruption then. So the figure says "damage" only if the set
# holds what was wanted, and says nothing without the set.
#
# ## Where it is read matters
#
# The same vector and prompts, read at the end of the prompt's sentence and behind the opening.

# %%
places = {"after the full stop": prompts, "after 'Ben talked about'": opened}
read = {
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
table = pd.concat(read, names=["read", None]).reset_index("read")
table = table[table["run"] != "clean"]
table[["read", "run", "mean", "low", "high", "n"]].round(5)

# %% [markdown]
# After a full stop the next token opens a sentence, and hardly any opening says what it will be
# about. The steered model differs there by next to nothing, though it is going to write about
# weddings. A KL near zero after the prompt is no proof that a vector does nothing.
#
# ## Texts that are given
#
# `token_logprobs` reads a text under either run. Below, the first document of each label,
# coloured by the change of each token's log-prob. The rows land on BOS and the first token, so
# the two tokens that are predicted there are grey on white, as BOS is.


# %%
def change(text: str) -> list[float]:
    """Steered minus clean log-prob of each token; NaN where it says nothing."""
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
# Most tokens are hardly touched. What changes is mainly words of a topic: those of other topics
# lose. In the first text the first wedding word gains and those behind it do not; by then the
# text itself has said what it is about. Two texts are an illustration and no more.
#
# Over many texts: the perplexity under the steered run over that under the clean one, geometric
# means with intervals over documents. Below 1, steering makes the text likelier.

# %%
runs = {"steered": v, "random": v.random_like(0), "negated": -v}
ratios = {name: al.perplexity_ratio(model, texts, run, labels=labels) for name, run in runs.items()}
summary = {name: al.ratio_summary(frame, by="label") for name, frame in ratios.items()}
pd.concat(summary, names=["run", None]).reset_index("run").drop(columns="ratio").round(3)

# %% [markdown]
# Other documents become less likely, more than under the random vector. Wedding documents do
# *not* become likelier than they were: their interval contains 1. But the random vector costs
# them something too, as every row of such norm wipes out the first word of the text. That word
# often says what is to come. So two effects are mixed: a word lost, and a topic announced.
# Against the random vector, document by document:


# %%
def against_random(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean change of log-prob per token, steered less random, with intervals over documents."""
    gain = frames["steered"]["logprob_steered"] - frames["random"]["logprob_steered"]
    intervals = {label: al.statistics.mean(gain[own]) for label, own in groups.items()}
    return pd.DataFrame({label: vars(i) for label, i in intervals.items()}).T.round(3)


groups = {label: pd.Series(labels).eq(label) for label in ("weddings", "other")}
against_random(ratios)

# %% [markdown]
# In nats per token, above 0 where the vector makes the text likelier than a random one does:
# wedding documents gain and the others lose.
#
# If the lost word is the reason, it should help to give every document a first word that says
# nothing, for the vector to land on. "Well" is such a word in this grammar. As a baseline, the
# topic is announced in words. This measurement was thought of after the one above; it explains,
# and is no test of a prediction.

# %%
led = [f"Well. {text}" for text in texts]
beside = {
    name: al.perplexity_ratio(model, led, run, labels=labels)
    for name, run in runs.items()
    if name != "negated"
}
prompted = al.prompting_ratio(model, led, v, "Weddings. ", labels=labels)
summary = {
    "steered and prompted": al.ratio_summary(prompted, by="label"),
    "random": al.ratio_summary(beside["random"], by="label"),
}
pd.concat(summary, names=["run", None]).reset_index("run").round(3)

# %%
against_random(beside)

# %% [markdown]
# Now the interval of the wedding documents lies below 1, that of the others above, and the random
# vector changes little. The gain is a few percent per token. Most tokens of a document do not
# depend on its topic, and the later ones know it from the text, so a large one was not to be
# expected.
#
# The words "Weddings." in front lower the likelihood of other documents more than the vector
# does, and no gain shows for wedding documents. Do not read it as a defeat of prompting:
# "Weddings. Well." is no beginning that this grammar has, and the model is not used to it.
#
# ## Layer by layer: the logit lens
#
# The final norm and the unembedding are applied to the stream before it is finished. For one
# prompt, at its last token, in both runs:

# %%
lens = al.logit_lens(model, "Anna sang the song. Ben talked about", v)
last = lens[lens["position"].eq(lens["position"].max())]
last[["run", "layer", "top_token", "p_top", "entropy", "kl_to_final"]].round(3)

# %% [markdown]
# `kl_to_final` says how far the reading is from what the model itself predicts. It is large up to
# layer 3: what the lens shows there is not a prediction in the making, and the likeliest token
# stands for little. For the wedding words together, over 30 prompts, `lens_logprobs` has all
# probabilities:


# %%
def by_layer(steering: al.SteeringVector | None, control: str) -> pd.DataFrame:
    """Mean log-prob of the wedding words in the lens of each layer, at the last token."""
    ids = [model.to_single_token(word) for word in words]
    read = [al.lens_logprobs(model, prompt, steering)[:, -1, ids] for prompt in opened[:30]]
    values = torch.stack(read).logsumexp(dim=2)
    intervals = [al.statistics.mean(column) for column in values.T]
    cells = pd.DataFrame([vars(interval) for interval in intervals])
    return cells.assign(layer=range(len(cells)), coefficient=coefficient, run=control)


named = {"steered": v, "random": v.random_like(0), "clean": None}
depth = pd.concat([by_layer(run, name) for name, run in named.items()], ignore_index=True)
figure = al.plots.layer_profile(
    depth,
    ylabel="log-prob of wedding words",
    unit="nats",
    note="logit lens at the last token; 95 % intervals, n = 30 prompts",
)
figure.axes[0].set_xlabel(f"stream entering layer ({model.cfg.n_layers}: the finished stream)")
figure

# %% [markdown]
# The vector is added at layer 3, on the *first* token. The last token knows nothing of it before
# attention of block 3 has moved it there, so the runs part in the stream entering layer 4, and
# there the larger part of the difference is reached at once. The random vector lies on the clean
# run. In the clean run the words *lose* over the last blocks, as other topics win.
#
# ## What does the vector itself say?
#
# `unembed_vector` reads the rows directly, as if nothing came between the hook point and the
# logits. The five highest tokens of row 1, the one that is not zero, for the vectors of all
# layers:

# %%
vectors = al.extract(model, pair)
direct = pd.concat(
    [al.unembed_vector(model, vector, k=5).assign(layer=at) for at, vector in vectors.items()]
)
direct = direct[direct["row"].eq(1) & direct["rank"].lt(5)]
direct.pivot(index="layer", columns="rank", values="token")

# %% [markdown]
# At layer 0, where the row is a difference of embeddings, it spells the topic. From layer 1 on it
# spells words such as "with" and "because", and so does layer 3, whose vector was used above.
# What such a row seems to say when it is unembedded is not what it does: the blocks behind it
# read it in another basis than the last one. A vector whose tokens look meaningless may steer
# well, and one may guess nothing from them.
#
# ## What this tells, and what not
#
# - All figures here are exact for the prompts and texts given; intervals are over these. Nothing
#   depends on sampling options or on a judge's taste.
# - Probabilities of the next token say nothing about whole completions: errors may add up along a
#   text, or the topic may be dropped after a sentence. Notebook 02 counts completions.
# - Perplexity of given texts asks what the model would *accept*, not what it writes, and a vector
#   on the text's own words takes something from it. Set it beside a random vector of the same
#   norms, not only beside 1.
# - A set of words is a choice. Effectiveness sees those words and no others.
#
# ## What comes next
#
# Notebook 05 asks whether the effect carries over: to other pairs and prompts, to two vectors at
# once, and what it costs.
