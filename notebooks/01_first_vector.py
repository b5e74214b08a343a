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
# This notebook shows what a steering vector is made of, to which tokens of a prompt its rows are
# added, how to steer any call of TransformerLens with it, and how to distinguish its effect from
# chance. Everything here runs offline on the bundled model.

# %%
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

import actadd_lens as al

# Any hub name works here, e.g. "gpt2-xl"; then change pair, layer and coefficient as well.
model = al.load_model("testbed")
model.cfg.n_layers, model.cfg.d_model

# %% [markdown]
# The bundled model is a small language model of a synthetic English. Sentiment, topic and grammar
# of its texts can be determined exactly, so success is a share and not a judgement. The next
# notebook cell sets everything that is specific to this model. Layer and coefficient were chosen
# on other prompts, those of the split "selection". Everything below is measured on the split
# "test".

# %%
# For another model: prompts as a list of strings, metrics such as al.metrics.ContainsAny(["love"])
# or "sentiment", and a layer and coefficient from a search (notebook 02).
pair = ("Love.", "Hate.")
prompts = al.testbed.prompts("negative", "test", 100)  # one sentence of negative sentiment each
opposite = al.testbed.prompts("positive", "test", 100)
metrics = [al.testbed.Positive(), al.testbed.Valid()]  # positive sentiment; grammatical
layer, coefficient = al.testbed.recommended("sentiment")
prompts[:3], layer, coefficient

# %% [markdown]
# ## Extract
#
# The model reads both prompts of the pair once. At a layer, the residual stream of "Hate." is
# subtracted from that of "Love.", token by token. This gives one row for each token, at every
# layer from a single pass. The vector is this difference times a coefficient.
#
# Row 0 belongs to BOS. Attention is causal and BOS comes first, so its stream is the same in both
# prompts and the row is exactly zero. Row 1 is the difference of the two words. Row 2 is the
# difference at the full stops: the token is the same on both sides, but it has attended to the
# word before it.

# %%
vectors = al.extract(model, pair)
v = coefficient * vectors[layer]
v

# %% [markdown]
# Prompts of different lengths are padded on the right with spaces until they have the same number
# of tokens. The display shows which tokens each row compares. Here most rows are the difference
# between a word and a space.

# %%
warnings.simplefilter("ignore", al.AlignmentWarning)  # the sides have different lengths here
al.SteeringVector.from_pair(model, ("Love and joy.", "Hate."), layer)

# %% [markdown]
# ## Where the rows are added
#
# Steering runs the model on another prompt and adds row *i* to the stream of one of its tokens.
# At the position "front", which the paper uses, row 0 is added to BOS and row 1 to the prompt's
# first word, whatever it is. `v.at(...)` is the same vector at another position. This figure does
# not run the model. The numbers are rows. v0 is at the front; v1 is at the back, where the last
# row is added to the last token.

# %%
al.plots.placement(al.placement(model, [v, v.at("back")], prompts[1:4]))

# %% [markdown]
# A vector that does not fit raises an error. It is never cut.

# %%
try:
    al.placement(model, v.at(60), prompts[:3])
except al.PositionError as error:
    print(error)

# %% [markdown]
# ## Steer and compare
#
# The same prompts are continued in a clean and in a steered run, with the same random numbers.
# The differences in a line are therefore caused by the vector. The vector acts during the pass
# over the prompt. The following tokens are decoded from the changed cache, and nothing more is
# added.

# %%
al.compare(model, prompts[:5], v, samples=1, max_new_tokens=24)

# %% [markdown]
# ## Is it more than chance?
#
# Five completions that look right prove nothing. The configuration is therefore measured on all
# 100 test prompts, together with controls for other explanations:
#
# - **clean**: the clean run. How often is the completion positive anyway?
# - **random**, **random:1**: two draws of rows with the same norms in random directions. Does the
#   direction matter, or would any addition of this size have the effect?
# - **negated**: the vector subtracted. If the direction were an axis, this would do the opposite.
# - **prompted**: no vector; "Love." is written in front of the prompt. Is steering better than
#   prompting?

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
# Dots are shares of the 100 prompts, bars are 95 % intervals. The steered run is far above the
# clean one, and the random vectors are as low as the clean run. So the direction matters, not
# only the size of what is added. The share of grammatical text is as high as in the clean run
# (the second table of the display above).
#
# All runs share prompts and random numbers, so they can be compared prompt by prompt. A sign-flip
# permutation test asks how often so large a mean difference occurs if the two runs of a prompt
# are exchangeable. Holm's correction accounts for the five tests.

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
# Three points for a careful interpretation:
#
# - Writing "Love." in front works as well: no difference between steering and prompting is
#   visible. The vector is a tool for studying the model's state. It is not a better prompt.
# - These are shares of prompts of one kind, on one small model. They show that the code works as
#   intended. They do not show how well steering works on other models.
# - The clean run is almost never positive here, so a *decrease* would not be visible. That the
#   negated vector equals the clean run on these prompts is weak evidence. On positive prompts a
#   decrease is possible:

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
# The negated vector does not change them: its share is that of the clean run. In this model's
# language "Love" determines the sentiment of a document and "Hate" only makes it more likely, so
# the vector is not an axis with two ends (`docs/testbed.md`). The success of `v` says nothing
# about `-v`.
#
# ## Inside TransformerLens
#
# `al.steer` is a context manager: every call of TransformerLens inside is steered.
# `run_with_cache` shows the effect. At the hook point of the vector, the steered stream minus the
# clean one is the vector's rows, on the tokens that `placement` listed, and zero elsewhere.

# %%
prompt = prompts[0]
clean_logits, clean = model.run_with_cache(prompt)
with al.steer(model, v):
    steered_logits, steered = model.run_with_cache(prompt)
difference = (steered[v.hook_point] - clean[v.hook_point])[0]
placed = al.placement(model, v, prompt)
placed.assign(difference=difference.norm(dim=-1).tolist())

# %% [markdown]
# `norm` is the norm of the row that is added; `difference` is the norm that the cache shows. Row
# by row the two agree up to the rounding of a sum in single precision. After the context, the
# model is as it was, to the bit. `al.fwd_hooks` returns the same hooks for `run_with_hooks`.

# %%
hooked_logits = model.run_with_hooks(prompt, fwd_hooks=al.fwd_hooks(model, v))
{
    "largest deviation of the difference from the rows": float(
        (difference[: len(v.rows)] - v.rows).abs().max()
    ),
    "largest difference after the rows": float(difference[len(v.rows) :].abs().max()),
    "run_with_hooks gives the same logits": torch.equal(hooked_logits, steered_logits),
    "clean again after the context": torch.equal(model(prompt), clean_logits),
}

# %% [markdown]
# ## Save it
#
# A vector is saved as safetensors, together with the pair, the tokens, the model and the steps
# since extraction. Loading executes nothing.

# %%
with TemporaryDirectory() as folder:
    path = Path(folder) / "love-hate.safetensors"
    v.save(path)
    again = al.SteeringVector.load(path)
again == v, again.provenance["steps"], again.provenance["model"]

# %% [markdown]
# ## Try it
#
# `al.explore` opens widgets for pair, layer, coefficient, position and prompt. In a running
# notebook, end a notebook cell with `explorer` to see them. `explorer.widgets` has them by name,
# and `explorer.result` is the current result. Use it to get ideas. What it shows for single
# prompts does not prove an effect.

# %%
explorer = al.explore(model, pair, prompt=prompts[0], layer=layer, coefficient=coefficient)
explorer.result

# %% [markdown]
# ## What comes next
#
# Here layer and coefficient were given. Notebook 02 chooses them and shows how reliable such a
# choice is. Notebook 03 shows which row, which position and which dimensions of the vector
# matter.
