"""Effect by generated token: how long after the prompt a vector still changes what is written."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from actadd_lens.generation.completions import Completion, generate
from actadd_lens.metrics.logits import kl
from actadd_lens.models.base import Bridge, Edit
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.memory import batches, budget
from actadd_lens.models.tokens import Prompt, Prompts, as_prompts, right_padded
from actadd_lens.steering import positions
from actadd_lens.steering.hooks import prompt_edits
from actadd_lens.sweeps.ablations import (
    CONTROLS,
    Ablation,
    arms,
    check_vector,
    check_vector_controls,
    described,
)
from actadd_lens.sweeps.configurations import KEYS
from actadd_lens.sweeps.identity import fingerprint, metric_described, plain
from actadd_lens.sweeps.results import typed
from actadd_lens.vectors.provenance import label_of, source
from actadd_lens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas takes half a second to import: only where a frame is asked for


def steering_reach(
    model: Bridge,
    vector: SteeringVector,
    prompts: Prompts,
    *,
    max_new_tokens: int = 24,
    controls: Sequence[str] = CONTROLS,
    seed: int = 0,
    progress: bool | None = None,
    **sampling: Any,
) -> Ablation:
    """KL(steered || clean) of every generated token, along what the steered model writes.

    Both runs read the steered completion; only one of them is steered. The sum over a completion
    estimates the KL divergence between the two models' distributions of whole completions.

    Other arguments and errors are those of ``ablate`` and ``generate``.

    Args:
        vector: Already times its coefficient.
        max_new_tokens: Tokens generated at most.
        **sampling: As of ``generate``, ``samples`` among it.

    Returns:
        An ``Ablation`` with the column ``step``, 0 for the first generated token, and the metric
        "kl" in nats, which its column ``kl`` repeats. A completion that has ended has no further
        steps. There is no clean row: its divergence is 0.

    >>> model = load_model("testbed")
    >>> vector = 4 * SteeringVector.from_pair(model, ("Love.", "Hate."), layer=1)
    >>> result = steering_reach(
    ...     model, vector, "My friend", max_new_tokens=3, progress=False, stop_at_eos=False
    ... )
    >>> sorted(result.frame["step"].unique().tolist())
    [0, 1, 2]
    """
    import pandas as pd

    check_vector(model, vector)
    check_vector_controls(controls)
    sampling = {"max_new_tokens": max_new_tokens, "seed": seed, **sampling}
    ids = as_prompts(model, prompts)
    lines = []
    named = {"vector": label_of(vector.provenance), "coefficient": None}
    for configuration in arms(vector, named, controls, seed):
        [arm] = configuration.run.steering
        written = generate(model, prompts, arm, progress=progress, **sampling)
        for index, values in _divergences(model, ids, written, arm):
            c = written[index]
            of_text = {"prompt": c.prompt, "sample": c.sample_index, "text": c.text}
            own = {**configuration.labels, **of_text, "prompt_index": c.prompt_index}
            lines += [{**own, "step": i, "value": x, "kl": x} for i, x in enumerate(values)]
    columns = [*KEYS, "step", "prompt", "sample", "metric", "value", "prompt_index", "dose", "kl"]
    frame = pd.DataFrame(lines, columns=[*columns, "text"])
    frame = frame.assign(metric="kl", dose=float("nan"))
    settings = {
        "kind": "steering_reach",
        "axes": {"x": "step"},
        "vector": described(vector),
        "controls": list(controls),
        "model": {"name": BridgeModel(model).name, "weights": fingerprint(model)},
        "prompts": [prompt.label for prompt in ids],
        "metrics": [["kl", metric_described(kl), False]],
        "sampling": sampling,
        "versions": source(model)["versions"],
    }
    return Ablation(typed(frame), plain(settings))


def _divergences(
    model: Bridge,
    ids: Sequence[Prompt],
    written: Sequence[Completion],
    vector: SteeringVector,
) -> Iterator[tuple[int, list[float]]]:
    """Index of each completion with the divergence at each of its tokens."""
    rows = [[*ids[c.prompt_index], *c.tokens[:-1]] for c in written]
    own, at_once = BridgeModel(model), budget(model, logits="all").sequences
    for batch in batches([len(row) for row in rows], at_once):
        tokens, mask = right_padded(model, [rows[i] for i in batch])
        lengths = torch.tensor([len(ids[written[i].prompt_index]) for i in batch])
        before = torch.arange(mask.shape[1]) < lengths[:, None]
        of_prompt = mask * before.to(mask.device)
        prompts = [ids[written[i].prompt_index] for i in batch]
        edits = dict(prompt_edits(model, [vector] * len(batch), of_prompt, prompts).by_point)
        if positions.parse(vector.position).steers_generated:
            # Every token of the rest is steered, as each is in its decode step.
            rest = prompt_edits(model, [vector.at("prompt")] * len(batch), mask - of_prompt)
            edits = {name: _then(edit, rest.by_point[name]) for name, edit in edits.items()}
        clean, steered = (own.run(tokens, mask, edits=chosen).logits for chosen in ({}, edits))
        assert clean is not None
        assert steered is not None
        for place, i in enumerate(batch):
            end = len(rows[i])
            behind = slice(end - len(written[i].tokens), end)
            both = (run[place, behind].float().log_softmax(dim=-1) for run in (clean, steered))
            yield i, kl(*both).tolist()


def _then(first: Edit, second: Edit) -> Edit:
    return lambda stream: second(first(stream))
