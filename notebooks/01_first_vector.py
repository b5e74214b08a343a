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
# # A first steering vector
#
# At the end you will know what a steering vector is made of, on which tokens of a prompt its rows
# land, how to steer any call of TransformerLens with it, and how to tell its effect from chance.
# Everything here runs offline on the bundled model.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

import actadd_lens as al

# Any hub name works here, e.g. "gpt2-xl": then change pair, layer and coefficient as well.
model = al.load_model("testbed")
model.cfg.n_layers, model.cfg.d_model

# %% [markdown]
# The bundled model is a small language model of a synthetic English whose sentiment, topic and
# grammar can be read exactly, so success is a count and not a judgement. What is peculiar to it
# stands in one cell. Layer and coefficient were chosen on other prompts, those of the split
# "selection"; everything below is read on the split "test".

# %%
# For another model: a list of strings as prompts, metrics such as al.metrics.ContainsAny(["love"])
# or "sentiment", and a layer and coefficient found by a search (notebook 02).
pair = ("Love.", "Hate.")
prompts = al.testbed.prompts("negative", "test", 100)  # one sentence of negative sentiment each
opposite = al.testbed.prompts("positive", "test", 100)
metrics = [al.testbed.Positive(), al.testbed.Valid()]  # reads positive; is grammatical
layer, coefficient = al.testbed.recommended("sentiment")
prompts[:3], layer, coefficient

# %% [markdown]
# ## Extract
#
# Both prompts of the pair are run once. At a layer, the residual stream of "Hate." is subtracted
# from that of "Love.", token by token: one row for each token, at every layer from a single pass.
# Times a coefficient, that is the vector.
#
# Row 0 belongs to BOS. Attention is causal and BOS comes first, so its stream is the same in both
# prompts and the row is exactly zero. Row 1 holds the difference of the two words. Row 2 is that
# of the full stops: the token is the same on both sides, but it has read the word before it.

# %%
vectors = al.extract(model, pair)
v = coefficient * vectors[layer]
v

# %% [markdown]
# Prompts of different lengths are padded on the right with spaces until the numbers of tokens
# agree. The display tells what was set against what: here most rows are the difference of a word
# and a space.

# %%
al.SteeringVector.from_pair(model, ("Love and joy.", "Hate."), layer)

# %% [markdown]
# ## Where the rows land
#
# Steering runs the model on another prompt and adds row *i* to the stream of one of its tokens. At
# the position "front", the paper's, row 0 meets BOS and row 1 the prompt's first word, whatever it
# is. `v.at(...)` is the same vector elsewhere. Nothing is run for this figure. The numbers are
# rows; v0 is at the front, v1 at the back, where the last row meets the last token.

# %%
al.plots.placement(al.placement(model, [v, v.at("back")], prompts[1:4]))

# %% [markdown]
# A vector that does not fit raises an error instead of being cut.

# %%
try:
    al.placement(model, v.at(60), prompts[:3])
except al.PositionError as error:
    print(error)

# %% [markdown]
# ## Steer and compare
#
# The same prompts are continued clean and steered, with the same random numbers, so what differs
# in a line is the vector's doing. Steering acts while the prompt is read; the tokens that follow
# are decoded from the altered cache and nothing more is added.

# %%
al.compare(model, prompts[:5], v, samples=1, max_new_tokens=24)

# %% [markdown]
# ## Is it more than chance?
#
# Five completions that look right prove nothing. So the cell is measured on all 100 test prompts,
# beside what could explain the effect away:
#
# - **clean**: the clean run. How often is the completion positive anyway?
# - **random**, **random:1**: two draws of rows with the same norms in random directions. Is it the
#   direction, or would any push of this size do?
# - **negated**: the vector subtracted. If the direction were an axis, this would do the opposite.
# - **prompted**: no vector; "Love." is written in front of the prompt. Is steering worth the
#   trouble?

# %%
result = al.sweep(
    model,
    pair,
    prompts,
    layers=[layer],
    coefficients=[coefficient],
    metrics=metrics,
    samples=1,
    max_new_tokens=24,
    controls=["random", "random:1", "negated", "prompted"],
    progress=False,
)
result

# %%
result.plot("positive", unit="%", ylabel="positive completions")

# %% [markdown]
# Dots are shares of the 100 prompts, bars 95 % intervals. The steered run is far above the clean
# one, and the random vectors stay with the clean run: the direction matters, not the size of the
# push. Grammatical text is no rarer than in the clean run (the second table of the display above).
#
# All runs share prompts and random numbers, so they can be compared prompt by prompt. A sign-flip
# permutation test asks how often so large a mean difference comes about when the two runs of a
# prompt are exchangeable. Holm's correction is for having made five tests.

# %%
values = result.values_of("positive").pivot(index="prompt_index", columns="run", values="value")
others = ["clean", "random", "random:1", "negated", "prompted"]
tests = [al.statistics.paired_permutation(values["steered"], values[name]) for name in others]
table = pd.DataFrame(
    {
        "steered minus": others,
        "mean difference": [test.statistic for test in tests],
        "p": [test.p_value for test in tests],
        "p (Holm)": al.statistics.adjust([test.p_value for test in tests]),
        "n": [test.n for test in tests],
    }
)
table.round(4)

# %% [markdown]
# Three things to read off with care:
#
# - Writing "Love." in front does as well: between steering and prompting no difference shows. The
#   vector is a handle on the model's state, not a better prompt.
# - These are shares of prompts of one kind, on one small model. They say that the code does what
#   it should, and nothing about how well steering works on others.
# - The clean run is almost never positive here, so nothing could be seen to get *less* positive.
#   That the negated vector equals the clean run on these prompts is weak evidence. Positive
#   prompts have room to fall:

# %%
al.sweep(
    model,
    pair,
    opposite,
    layers=[layer],
    coefficients=[coefficient],
    metrics=metrics,
    samples=1,
    max_new_tokens=24,
    controls=["negated"],
    progress=False,
)

# %% [markdown]
# The negated vector does not turn them: its share stays at that of the clean run. In this model's
# language "Love" decides the sentiment of a document and "Hate" only hints at it, so the vector is
# no axis with two ends (`docs/testbed.md`). That `v` works is no evidence for `-v`.
#
# ## Inside TransformerLens
#
# `al.steer` is a context: every call of TransformerLens inside is steered. `run_with_cache` shows
# what was done. At the hook point of the vector the steered stream minus the clean one is the
# vector's rows, where `placement` said that they land, and nothing elsewhere.

# %%
prompt = prompts[0]
clean_logits, clean = model.run_with_cache(prompt)
with al.steer(model, v):
    steered_logits, steered = model.run_with_cache(prompt)
difference = (steered[v.hook_point] - clean[v.hook_point])[0]
landed = al.placement(model, v, prompt)
landed.assign(difference=difference.norm(dim=-1).tolist())

# %% [markdown]
# `norm` is that of the row that is added, `difference` that of what the cache shows. Row by row
# the two agree up to the rounding of a sum in single precision. On leaving the context the model
# is as it was, to the bit. `al.fwd_hooks` hands the same hooks to `run_with_hooks`.

# %%
hooked_logits = model.run_with_hooks(prompt, fwd_hooks=al.fwd_hooks(model, v))
{
    "largest deviation of the difference from the rows": float(
        (difference[: len(v.rows)] - v.rows).abs().max()
    ),
    "largest difference behind the rows": float(difference[len(v.rows) :].abs().max()),
    "run_with_hooks gives the same logits": torch.equal(hooked_logits, steered_logits),
    "clean again after the context": torch.equal(model(prompt), clean_logits),
}

# %% [markdown]
# ## Keep it
#
# A vector is saved as safetensors, with the pair, the tokens, the model and the steps since.
# Loading executes nothing.

# %%
with TemporaryDirectory() as folder:
    path = Path(folder) / "love-hate.safetensors"
    v.save(path)
    again = al.SteeringVector.load(path)
again == v, again.provenance["steps"], again.provenance["model"]

# %% [markdown]
# ## Try it
#
# `al.explore` gives widgets for pair, layer, coefficient, position and prompt: in a running
# notebook end a cell with `explorer`. Its first result is `explorer.result`. It is
# for getting a feel; what it shows of single prompts is no evidence.

# %%
explorer = al.explore(model, pair, prompt=prompts[0], layer=layer, coefficient=coefficient)
explorer.result

# %% [markdown]
# ## What comes next
#
# Layer and coefficient were given here. Notebook 02 chooses them, and says what such a choice is
# worth; notebook 03 takes the vector apart: which row, which position, which dimensions.
