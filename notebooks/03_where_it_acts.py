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
# # Where a vector acts
#
# This notebook shows which rows of a vector carry its effect, at which positions of the prompt
# they work, how many dimensions they need, how large they are compared with the stream, whether
# the vector of one layer works at another, and how the effect develops over the generated tokens.

# %%
import pandas as pd
import torch

import actadd_lens as al

# Any hub name works here, e.g. "gpt2-xl"; then change pair, layer and coefficient as well.
model = al.load_model("testbed")

# %% [markdown]
# Layer and coefficient are those that the testbed recommends: the best of its interior layers on
# other prompts. (Notebook 02 shows how to choose them. Its own small grid includes layer 0 and
# chooses another configuration that is as good.) Every figure below is measured on the test
# prompts.

# %%
# For another model: prompts as a list of strings, metrics such as al.metrics.ContainsAny(["love"])
# or "sentiment", and your own layer and coefficient.
pair = ("Love.", "Hate.")
prompts = al.testbed.prompts("negative", "test", 60)
positive, valid = al.testbed.Positive(), al.testbed.Valid()
layer, coefficient = al.testbed.recommended("sentiment")
sampling = {"samples": 1, "max_new_tokens": 24, "progress": False}

v = coefficient * al.SteeringVector.from_pair(model, pair, layer)
v

# %% [markdown]
# ## Positions
#
# The same rows at the front (as in the paper), one token later, in the middle and at the back.
# Below, v0 to v3 are these four positions on one prompt.

# %%
positions = ["front", 1, "middle", "back"]
al.plots.placement(al.placement(model, [v.at(p) for p in positions], prompts[2]))

# %%
placed = al.sweep(
    model,
    pair,
    prompts,
    layers=[layer],
    coefficients=[coefficient],
    positions=positions,
    metrics=[positive, valid],
    controls=["random"],
    **sampling,
)
placed.plot("positive", unit="%", ylabel="positive completions")

# %%
placed.plot("valid", unit="%", ylabel="grammatical completions")

# %% [markdown]
# No difference in success between the four positions is visible. The second figure shows a
# difference: at the back fewer completions are grammatical, and the interval is below that of the
# clean run. There the rows are added to the tokens from which the next word is predicted. At the
# front they do not interfere with the last tokens. Look at both figures before you call a
# position good.
#
# ### At all tokens
#
# `collapse("mean")` makes one row of the vector, and a single row may be added at "all": to every
# token of the prompt and to every generated one. Contrastive activation addition does this. The
# total that is added grows with the number of tokens, so the coefficient of the front does not
# transfer. The table shows a range of coefficients. Nothing is chosen here.

# %%
row = al.SteeringVector.from_pair(model, pair, layer).collapse("mean").at("all")
scored = []
for c in (0.5, 1, 2, 4):
    completions = al.generate(model, prompts, c * row, max_new_tokens=24)
    relative = al.dose(model, c * row, prompts)["dose"].median()
    label = f"c = {c:g}, median relative norm {relative:.2f}"
    scored.append(al.score(completions, [positive, valid]).assign(run=label))
al.summarize(pd.concat(scored, ignore_index=True), ["positive", "valid"], by="run").round(2)

# %% [markdown]
# At c = 2 most completions are positive at a median relative norm below 1, and the interval of
# grammatical text still overlaps that of the clean run in the figure above. At c = 4 nearly all
# are positive and hardly any is grammatical. The range between "little effect" and "broken text"
# is small. At the front, notebook 02 finds no such limit up to the largest coefficient that it
# tries.
#
# ## Which row carries the effect?
#
# Each row alone, each row left out, and the whole vector moved along the prompt (row 0 at the
# position named). Each part is compared with a random vector of the same norms.

# %%
rows = al.position_ablation(model, v, prompts, metrics=[positive], starts=[0, 1, 2, 3], **sampling)
rows.plot("positive", unit="%", ylabel="positive completions")

# %%
rows

# %% [markdown]
# Row 1, the difference of the two words, has alone the effect of the whole vector. Without it, no
# effect remains. Row 2, the full stops, has no effect alone and is not needed. With only two
# rows, "one alone" and "the other left out" are the same runs, so this is one finding, not two.
#
# ## How many dimensions?
#
# A fraction of the dimensions is used and the others are set to zero, without rescaling: the
# first ones, those with the largest norm, or a random choice. With fewer dimensions the vector is
# also smaller, so the axis mixes "which" and "how much".

# %%
dimensions = al.dimension_ablation(
    model, v, prompts, fractions=[0.1, 0.25, 0.5], metrics=[positive], **sampling
)
dimensions.plot("positive", unit="%", ylabel="positive completions")

# %% [markdown]
# The dimensions with the largest norm suffice to a large extent: a quarter of them has nearly the
# effect of the whole vector. Is their larger norm the reason? Every part has its relative norm,
# in the column `dose`:

# %%
parts = dimensions.summary()
parts = parts[parts["run"] == "steered"]
parts[["ablation", "fraction", "mean", "low", "high", "n", "dose"]].sort_values("dose").round(2)

# %% [markdown]
# Two comparisons have nearly equal relative norm on both sides: a tenth "top" with a quarter at
# random, and a quarter "top" with a half at random. In both, the intervals of success do not
# overlap. So the choice of the dimensions matters, not only the size. This is one random choice
# and one pair. That single coordinates of the stream matter is a property of this model, not of
# the method.
#
# ## How large is the vector compared with the stream?
#
# The norms by layer of the clean stream and of the vectors' rows, without the coefficient.

# %%
vectors = al.extract(model, pair)
al.plots.norm_profile(al.residual_norms(model, prompts), vectors=vectors)

# %% [markdown]
# Both increase strongly in the first block. After it the stream grows steadily and the difference
# of the two prompts becomes constant, so the same coefficient is a smaller relative norm at late
# layers. At the chosen layer and coefficient, row by row:

# %%
al.dose(model, v, prompts).groupby("row")[["vector_norm", "residual_norm", "dose"]].median()

# %% [markdown]
# These are medians over 60 prompts. Row 1 is several times as large as the stream to which it is
# added. It nearly replaces the content of that token.
#
# ## Is it the same direction at every layer?
#
# The vector recorded at layer *s* is added at layer *t*. This distinguishes two reasons why a
# layer may not work: the stream there does not contain the direction, or later layers do not read
# it.

# %%
transfer = al.layer_transplant(
    model, pair, prompts[:40], coefficient=coefficient, metrics=[positive], **sampling
)
transfer.plot("positive", unit="%", ylabel="positive completions")

# %% [markdown]
# Read the map by rows and by columns.
#
# - **Columns 4 and 5** reach a few per cent at most, whatever was recorded, but **rows 4 and 5**
#   work when they are added at layers 0 to 3. The late vectors contain the direction. If they are
#   added late, later layers do not read it.
# - **Row 1** is weak, and column 1 is not: vectors recorded at layers 3 to 5 work when they are
#   added at layer 1. The dip of notebook 02 is caused by what the stream contains *entering*
#   layer 1, not by the addition there.
# - **Row 0** works at layer 0 only. It is the plain difference of embeddings, and much shorter
#   than the stream of later layers.
#
# How much of this is caused by the norm? With `norm_matched=True` every row gets the norm that
# the vector of layer *t* has there, so only the direction is transferred.

# %%
matched = al.layer_transplant(
    model,
    pair,
    prompts[:40],
    coefficient=coefficient,
    recorded=[0, 1, 3],
    metrics=[positive],
    norm_matched=True,
    **sampling,
)
matched.plot("positive", unit="%", ylabel="positive completions")

# %% [markdown]
# Row 0 still fails at layers 1 to 5, so it was not only too short. What was recorded at layer 1
# is still weak where it was recorded, but it now works at layer 0, where its norm had been far
# too large. So it contains something that can be read, and the dip is not a simple absence. This
# experiment does not show why it is hard to read from layer 1 on. These are 40 prompts and one
# pair.
#
# ## How long does the effect last?
#
# Nothing is added after the prompt, and the completions still differ. Both models read the
# steered completion. The figure shows KL(steered || clean) at each generated token.

# %%
by_token = al.steering_reach(model, v, prompts, progress=False)
by_token.plot(ylabel="KL(steered || clean), nats")

# %% [markdown]
# The first generated token hardly changes, because it begins a sentence. From the second token on
# the divergence is large. It declines along the completion, because the text that is already
# written carries the sentiment and both models read it. The random vectors of the same norms stay
# near zero.
#
# ## Batches and padding
#
# These results would be wrong if a prompt in a padded batch were steered differently than alone.
# Below, TransformerLens reads three prompts of different lengths in one call, with the vector at
# the back. The table shows norms of the steered stream minus the clean one.

# %%
batch = [prompts[0], "It rained.", "Anna hated the song and went home."]
_, clean = model.run_with_cache(batch)
with al.steer(model, v.at("back")):
    _, steered = model.run_with_cache(batch)
difference = (steered[v.hook_point] - clean[v.hook_point]).norm(dim=-1)
pd.DataFrame(difference.tolist(), index=batch).round(1)

# %% [markdown]
# Columns count the tokens of the padded batch. Row 1 and row 2 are added to the last two *real*
# tokens of each prompt, not to padding. The results are the same too: log-probs of the next token
# agree up to rounding, and completions agree token for token, in any batch.

# %%
together = al.next_token_logprobs(model, batch, v)
alone = torch.cat([al.next_token_logprobs(model, prompt, v) for prompt in batch])
many = al.generate(model, prompts[:20], v, max_new_tokens=24)
one_by_one = al.generate(model, prompts[:20], v, max_new_tokens=24, batch_size=1)
{
    "largest difference of a log-prob, nats": float((together - alone).abs().max()),
    "completions with the same tokens": sum(
        a.tokens == b.tokens for a, b in zip(many, one_by_one, strict=True)
    ),
    "of": len(many),
}

# %% [markdown]
# ## What comes next
#
# This notebook studied the vector of one pair. `al.pair_variance` compares the vectors of many
# pairs for one concept, and `al.cosines`, `al.split_half` and `al.separability` measure whether
# they agree. `docs/sweeps.md` has the same ablations as commands.
