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
# # Your own model, prompts and metrics
#
# This notebook shows how to use your own model (a directory, or one that you booted yourself),
# prompts from a file and metrics that you wrote. It also shows how to save results and resume
# after an interruption, and what a null result looks like.

# %%
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel

import actadd_lens as al

model = al.load_model("testbed")  # any hub name works here, e.g. "gpt2-xl"; then change pair,
# layer and coefficient as well
place = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A model in a directory
#
# `al.load_model` takes any directory that `save_pretrained` wrote, with model and tokenizer, and
# reads it offline. As an example, here is a small GPT-2 that was never trained, with the
# tokenizer of the bundled model.

# %%
tokenizer = model.tokenizer
with torch.random.fork_rng():
    torch.manual_seed(0)
    untrained = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=128,
            n_embd=128,
            n_layer=4,
            n_head=4,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
directory = place / "untrained-gpt2"
untrained.save_pretrained(directory)
tokenizer.save_pretrained(directory)

null = al.load_model(directory)
null.cfg.n_layers, null.cfg.d_model, str(null.cfg.device), null.cfg.dtype

# %% [markdown]
# ### Device and precision
#
# `device=` and `dtype=` are passed to `TransformerBridge.boot_transformers`, and so is every
# other option of it. A vector is extracted and stored in float32, whatever the dtype of the model
# is, and cast when it is added. How much does half precision change? The same vector from both
# models, for each row:

# %%
half = al.load_model(directory, device="cpu", dtype=torch.bfloat16)
pair = ("Love.", "Hate.")
whole_rows, half_rows = (al.SteeringVector.from_pair(m, pair, layer=2) for m in (null, half))
pd.DataFrame(
    {
        "norm, float32": whole_rows.norms(),
        "norm, bfloat16": half_rows.norms(),
        "norm of the difference": (whole_rows - half_rows).norms(),
    }
).round(3)

# %% [markdown]
# ### A model that you booted yourself
#
# Every function takes a `TransformerBridge`. If you have one with your own weights, you need not
# load it again. It must not be in compatibility mode if the vectors are to be those of the raw
# weights.

# %%
booted = TransformerBridge.boot_transformers(
    str(directory), hf_model=untrained, tokenizer=tokenizer
)
same = al.SteeringVector.from_pair(booted, pair, layer=2)
{"largest difference between the two vectors": float((same.rows - whole_rows.rows).abs().max())}

# %% [markdown]
# ## Prompts from a file
#
# `al.read_texts` reads one text per line, or JSON lines with a "text" and any labels. The prompts
# here are written first, so that there is a file to read.

# %%
# For another model: your own file, and a pair, layer and coefficient that were chosen on other
# prompts than these.
given = al.testbed.prompts("negative", "test", 50)
(place / "prompts.txt").write_text("\n".join(given), encoding="utf-8")
prompts = [record["text"] for record in al.read_texts(place / "prompts.txt")]
layer, coefficient = al.testbed.recommended("sentiment")
len(prompts), prompts[0]

# %% [markdown]
# ## A metric of completions
#
# The simplest metric is a list of words. `ContainsAny` says whether one occurs, and `WordCount`
# counts them. Both match whole words only.

# %%
praise = ["loved", "enjoyed", "adored", "praised", "admired", "wonderful", "lovely", "superb"]
contains = al.metrics.ContainsAny(praise, name="praise")
count = al.metrics.WordCount(praise, name="praise_words")

# %% [markdown]
# A metric of your own is any object with a `name` and the `kind` "completions" that is called
# with completions and returns a float for each, NaN where it is undefined. A frozen dataclass is
# a good form: the provenance of a sweep shows its settings. `share = True` says that values are
# zeros and ones, so that intervals are those of a share where all prompts agree. For a function,
# use the decorator `@al.metrics.register("ends_well", kind="completions", share=True)`, which
# also makes it available by name.


# %%
@dataclass(frozen=True)
class EndsWell:
    """Whether the last complete sentence of a completion has one of some words."""

    words: tuple[str, ...]
    name: str = "ends_well"
    kind = "completions"
    share = True

    def __call__(self, completions: Sequence[al.Completion]) -> list[float]:
        """1.0 or 0.0 per completion, NaN where no sentence is complete."""
        return [self._value(completion.text) for completion in completions]

    def _value(self, text: str) -> float:
        *sentences, _ = text.split(".")
        if not sentences:
            return float("nan")
        return float(any(word in sentences[-1].split() for word in self.words))


ends_well = EndsWell(tuple(praise))
ends_well([al.Completion("Anna sat.", " It rained. We loved it. Th", (), (), 0, 0)])

# %% [markdown]
# Try a metric on a few completions before a sweep, and compare its values with the texts.

# %%
v = coefficient * al.SteeringVector.from_pair(model, pair, layer)
completions = al.generate(model, prompts, v, max_new_tokens=24)
scores = al.score(completions, [contains, count, ends_well, "repetition"])
scores[["prompt", "text", "praise", "praise_words", "ends_well"]].head(4)

# %%
al.summarize(scores, ["praise", "praise_words", "ends_well", "repetition"]).round(3)

# %% [markdown]
# `missing` counts the values that were NaN. They are left out of the mean, so check this number:
# a metric that is undefined for bad completions looks good.
#
# ## A metric of the next token
#
# A logit metric gets the log-probs of both runs, one row for each prediction. For one token, or a
# few together, there is `TokenLogProb`. A string is read as a token of the model of the sweep.
# For other metrics, write a subclass of `LogitMetric` with a `base` name and `values`:


# %%
@dataclass(frozen=True)
class TopChanged(al.metrics.LogitMetric):
    """Whether the most likely next token differs in the steered run: 1.0 or 0.0."""

    base = "top_changed"
    share = True

    def values(self, clean: torch.Tensor, steered: torch.Tensor) -> torch.Tensor:
        """One value per row."""
        return (clean.argmax(dim=-1) != steered.argmax(dim=-1)).float()


wonderful = al.metrics.TokenLogProb(" wonderful")
opened = [f"{prompt} It was a" for prompt in prompts]
changed = al.sweep(
    model,
    pair,
    opened,
    layers=[layer],
    coefficients=[coefficient],
    metrics=[TopChanged(), wonderful, "kl"],
    controls=["random", "negated"],
    progress=False,
)
changed

# %% [markdown]
# The prompts end where an adjective is next, because little would be visible after a full stop
# (notebook 04). The controls are necessary here. The most likely token changes in many prompts
# under the random and the negated vector too, where several tokens are nearly equally likely,
# while the KL and the word's log-prob hardly change. Without controls, `top_changed` would have
# looked like an effect. `over="text"` makes each of them the mean over the predictions after the
# vector, and "_text" is added to its name.
#
# ## A null result
#
# This is the same experiment on the model that was never trained. It has no concepts, so no
# vector should steer it. Before you trust a tool that finds effects, check what it reports where
# there are none.

# %%
search = {
    "layers": [0, 1, 2, 3],
    "coefficients": [2, 16],
    "metrics": ["kl", contains],
    "samples": 1,
    "max_new_tokens": 24,
    "controls": ["random", "random:1", "negated"],
    "progress": False,
}
nothing = al.sweep(null, pair, prompts, store=place / "null.sqlite", **search)
nothing.plot("praise", unit="%", ylabel="completions with praise")

# %%
intervals = nothing.intervals(nothing.values_of("kl"))
largest = intervals["coefficient"].eq(16) | intervals["run"].eq("clean")
al.plots.layer_profile(
    intervals[largest],
    ylabel="KL(steered || clean)",
    unit="nats",
    note="c = 16; 95 % intervals, n = 50 prompts",
)

# %% [markdown]
# Completions with praise: every configuration has the same share as the clean run, and so do the
# controls. The words occur by chance, and steering does not change this. A share above zero is
# not an effect.
#
# KL: it is above the clean run's zero in every layer, with narrow intervals, because anything
# that is added to a stream changes something. It is below a thousandth of a nat, and in no layer
# is it above both random vectors of the same norms. Without them one might have written that the
# effect is "significant, and strongest in the first layers".
#
# What does a search report? The best of eight configurations, and the same configuration on other
# prompts:

# %%
best = nothing.best("kl", test_prompts=al.testbed.prompts("negative", "selection", 50))
print(best)

# %%
best.held_out.plot("kl", ylabel="KL(steered || clean)", unit="nats")

# %% [markdown]
# The value is confirmed on other prompts. This shows that the figure is not caused by the choice
# of prompts. It does not show the cause. The controls do: random vectors reach the same value.
#
# The table below is a test, prompt by prompt: KL of the vector minus that of the first random
# one. To show what such a test is worth, it also compares the other controls with the first
# random one.

# %%
held_out = best.held_out.values_of("kl").sort_values("prompt_index")
drawn = held_out[held_out["run"] == "random"]["value"].to_numpy()
lines = []
for name, run in {"steered": "steered", "second random": "random:1", "negated": "negated"}.items():
    values = held_out[held_out["run"] == run]["value"].to_numpy()
    difference = al.statistics.mean(1e6 * (values - drawn))  # in micronats
    p = al.statistics.paired_permutation(values, drawn).p_value
    lines.append({"run": name, **vars(difference), "p": p})
pd.DataFrame(lines).set_index("run").round(4)

# %% [markdown]
# All differ from the first random vector, by millionths of a nat and with small p-values, and so
# does the second random vector. The test is over prompts: it says that *these two vectors*
# differ, and any two vectors do. To test whether the *direction* matters, compare with many
# random directions; two are the minimum. (On the trained model above, the vector's KL is
# thousands of times that of the random one. Two draws are enough there.)
#
# ## Save the measurements
#
# `store=` commits rows to a file as they are made. The same call resumes where it stopped. Here
# it is complete, so nothing is run again. Another call with that file is refused:

# %%
again = al.sweep(null, pair, prompts, store=place / "null.sqlite", **search)
try:
    al.sweep(null, pair, prompts[:10], store=place / "null.sqlite", **search)
except al.SweepFileError as error:
    print(str(error).replace(str(place), "..."))
again.frame.equals(nothing.frame)

# %% [markdown]
# Results and vectors are saved as files, with everything that is needed to run them again:

# %%
nothing.save(place / "null.parquet")
v.save(place / "love-hate.safetensors")
loaded = al.SweepResult.load(place / "null.parquet")
{
    "same rows": loaded.frame.equals(nothing.frame),
    "same vector": al.SteeringVector.load(place / "love-hate.safetensors") == v,
    "provenance": sorted(loaded.provenance),
}

# %% [markdown]
# ## Common errors
#
# Every error that a caller can cause derives from `al.ActAddError` and says which values clash
# and what to do. Some common ones:

# %%
attempts = {
    "a prompt that is too short": lambda: al.generate(model, ["Go"], v.at(3)),
    "a layer that is not there": lambda: al.SteeringVector.from_pair(null, pair, 9),
    "no samples to read": lambda: al.sweep(model, pair, prompts, metrics=contains, progress=False),
    "two tokens for one": lambda: al.metrics.TokenLogProb("wonderful").bind(model),
    "a misspelt metric": lambda: al.score(completions, ["sentimnt"]),
    "a metric without a name": lambda: al.score(completions, [len]),
    "a row that is not there": lambda: whole_rows.with_rows([9]),
    "a file that is not there": lambda: al.read_texts(place / "no-such-file.txt"),
    "no model in a directory": lambda: al.load_model(place),
}
messages = []
for what, attempt in attempts.items():
    try:
        attempt()
    except al.ActAddError as error:
        messages.append((what, type(error).__name__, str(error).replace(str(place), "...")))
pd.set_option("display.max_colwidth", None)
pd.DataFrame(messages, columns=["attempt", "error", "message"])

# %% [markdown]
# `docs/errors` has a page for each. A misspelt keyword is a `TypeError`, as in any Python call.
#
# ## What comes next
#
# Take your own model, pair and prompts. Search on one half of the prompts (notebook 02), study
# the parts of the chosen vector (03), measure the likelihoods (04), look for side effects (05),
# and report the results on the other half, with its controls.
