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
# At the end you will know which rows of a vector carry its effect, where in the prompt they have to
# land, how many dimensions they need, how large they are beside the stream, whether one layer's
# vector works at another, and how far behind the prompt it is felt.

# %%
import pandas as pd
import torch

import actadd_lens as al

# Any hub name works here, e.g. "gpt2-xl": then change pair, layer and coefficient as well.
model = al.load_model("testbed")

# %% [markdown]
# Layer and coefficient are those that the testbed recommends: the best of its interior layers on
# other prompts. (Notebook 02 shows how one chooses; its own small grid, layer 0 included, ends at
# another cell that is as good.) Every figure below is read on the test prompts.

# %%
# For another model: a list of strings, metrics such as al.metrics.ContainsAny(["love"]) or
# "sentiment", and a layer and coefficient of your own.
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
# The same rows at the front (the paper's choice), one token further, in the middle and at the back.
# Below, v0 to v3 are these four on one prompt.

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
# In success no difference shows between the four. The second figure tells one apart: at the back
# fewer completions are grammatical, and the interval is below that of the clean run. There the rows
# land on the tokens from which the next word is read off; at the front they are out of the way of
# what the last tokens have to do. Look at both figures before calling a position good.
#
# ### Everywhere at once
#
# `collapse("mean")` makes one row of the vector, and a single row may go to "all": every token of
# the prompt and every generated one. That is how contrastive activation addition injects. What is
# added in total grows with the number of tokens, so the coefficient of the front is no guide, and a
# range of them is shown. Nothing is chosen here.

# %%
row = al.SteeringVector.from_pair(model, pair, layer).collapse("mean").at("all")
scored = []
for c in (0.5, 1, 2, 4):
    completions = al.generate(model, prompts, c * row, max_new_tokens=24)
    dose = al.dose(model, c * row, prompts)["dose"].median()
    label = f"c = {c:g}, median dose {dose:.2f}"
    scored.append(al.score(completions, [positive, valid]).assign(run=label))
al.summarize(pd.concat(scored, ignore_index=True), ["positive", "valid"], by="run").round(2)

# %% [markdown]
# At c = 2 most completions are positive at a median dose below 1, and the interval of grammatical
# text still meets that of the clean run in the figure above; at c = 4 nearly all are positive and
# hardly one is grammatical. Between "does little" and "breaks the text" there is not much room. At
# the front notebook 02 finds no such end, up to the largest coefficient that it tries.
#
# ## Which row carries it?
#
# Each row alone, each row left out, and the whole vector moved along the prompt (row 0 on the
# position named), each part beside a random vector of the same norms.

# %%
rows = al.position_ablation(model, v, prompts, metrics=[positive], starts=[0, 1, 2, 3], **sampling)
rows.plot("positive", unit="%", ylabel="positive completions")

# %%
rows

# %% [markdown]
# Row 1, the difference of the two words, does alone what the whole vector does; left out, nothing
# remains. Row 2, the full stops, does nothing by itself, and is not needed. With only two rows
# "one alone" and "the other left out" are the same runs, so this is one finding, not two.
#
# ## How many dimensions?
#
# A fraction of the dimensions is kept and the rest set to zero, without rescaling: the first ones,
# those with the largest norm, or a random choice. Keeping fewer makes the vector smaller as well,
# so the axis mixes "which" and "how much".

# %%
dimensions = al.dimension_ablation(
    model, v, prompts, fractions=[0.1, 0.25, 0.5], metrics=[positive], **sampling
)
dimensions.plot("positive", unit="%", ylabel="positive completions")

# %% [markdown]
# The dimensions of the largest norm go a long way: a quarter of them does nearly what the whole
# vector does. Is that their larger norm? Every part comes with its dose:

# %%
parts = dimensions.summary()
parts = parts[parts["run"] == "steered"]
parts[["ablation", "fraction", "mean", "low", "high", "n", "dose"]].sort_values("dose").round(2)

# %% [markdown]
# Two comparisons have nearly equal dose on both sides: a tenth "top" against a quarter at random,
# and a quarter "top" against a half at random. Both times the intervals of success lie apart. So
# it is not the size alone: which dimensions are kept matters. It is one random choice, and one
# pair; and that single coordinates of the stream matter is a property of this model, not of the
# method.
#
# ## How large is it beside the stream?
#
# Norms by layer of the clean stream and, without the coefficient, of the vectors' rows.

# %%
vectors = al.extract(model, pair)
al.plots.norm_profile(al.residual_norms(model, prompts), vectors=vectors)

# %% [markdown]
# Both jump in the first block. From then on the stream grows steadily and the difference of the two
# prompts levels off, so the same coefficient is a smaller dose at late layers. At the chosen layer
# and coefficient, row by row:

# %%
al.dose(model, v, prompts).groupby("row")[["vector_norm", "residual_norm", "dose"]].median()

# %% [markdown]
# Medians over 60 prompts. Row 1 is several times as large as the stream that it meets: no nudge,
# but close to putting something else in the place of that token.
#
# ## Is it the same direction at every layer?
#
# The vector recorded at layer *s* is added at layer *t*. This tells apart two reasons why a layer
# may not work: there is nothing to record there, or nobody reads what is added there.

# %%
transplant = al.layer_transplant(
    model, pair, prompts[:40], coefficient=coefficient, metrics=[positive], **sampling
)
transplant.plot("positive", unit="%", ylabel="positive completions")

# %% [markdown]
# Read the map by rows and by columns.
#
# - **Columns 4 and 5** get to a few per cent at most, whatever was recorded, but **rows 4 and 5**
#   work when they are added at layers 0 to 3. The late vectors hold the direction; added late, it
#   is not read any more.
# - **Row 1** is weak, and not column 1: vectors recorded at layers 3 to 5 work when they are added
#   at layer 1. The dip of notebook 02 is a matter of what the stream holds *entering* layer 1, not
#   of adding something there.
# - **Row 0** works at layer 0 alone. It is the plain difference of embeddings, and much shorter
#   than the stream of later layers.
#
# How much of this is length? With `norm_matched=True` every row gets the norm that the vector of
# layer *t* has there, so that only the direction is moved.

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
# Row 0 still fails at layers 1 to 5: it was not too short. What was recorded at layer 1 is still
# weak where it was recorded, but now works at layer 0, where it had been far too long. So it holds
# something that can be read, and the dip is not a plain lack. What makes it hard to read from layer
# 1 on is not shown by this experiment. These are 40 prompts and one pair.
#
# ## How far does it reach?
#
# Nothing is added behind the prompt, and still the completions differ. Both models read the steered
# completion; at each generated token stands KL(steered || clean).

# %%
reach = al.steering_reach(model, v, prompts, progress=False)
reach.plot(ylabel="KL(steered || clean), nats")

# %% [markdown]
# The first generated token hardly changes: it opens a sentence. From the second on the divergence
# is large, and it declines along the completion, as the text written so far carries the sentiment
# by itself and both models read it. The random vectors of the same norms stay near zero.
#
# ## Batches and padding
#
# None of this is worth much if a prompt in a padded batch gets something else than it gets alone.
# Three prompts of different lengths, read by TransformerLens in one call, with the vector at the
# back: norms of the steered stream minus the clean one.

# %%
batch = [prompts[0], "It rained.", "Anna hated the song and went home."]
_, clean = model.run_with_cache(batch)
with al.steer(model, v.at("back")):
    _, steered = model.run_with_cache(batch)
difference = (steered[v.hook_point] - clean[v.hook_point]).norm(dim=-1)
pd.DataFrame(difference.tolist(), index=batch).round(1)

# %% [markdown]
# Columns count the tokens of the padded batch. Row 1 and row 2 land on the last two *real* tokens
# of each prompt, not on padding. And the outcome is the same: log-probs of the next token up to
# rounding, and completions token for token, whatever they are batched with.

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
# The vector of one pair has been taken apart. `al.pair_variance` sets the vectors of many pairs for
# one concept side by side, and `al.cosines`, `al.split_half` and `al.separability` ask whether they
# agree. `docs/sweeps.md` has the same ablations as commands.
