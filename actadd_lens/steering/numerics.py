"""Logits that are not finite: where it begins in the model, and what to do about it."""

from collections.abc import Mapping, Sequence

import torch

from actadd_lens.errors import NumericsError
from actadd_lens.models.base import Bridge, Edit
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.hook_points import hook_point
from actadd_lens.steering.edits import decode_edits, joined_edits, prompt_edits
from actadd_lens.steering.interventions import Steering


def not_finite(
    model: Bridge,
    prompt: Sequence[int],
    generated: Sequence[int],
    steering: Steering,
    where: str,
) -> NumericsError:
    """The error for logits that are not finite; one pass reads where it begins.

    Args:
        model: Any TransformerBridge.
        prompt: The prompt.
        generated: The tokens after it that the logits were made of too.
        steering: As of the run.
        where: Which logits they are.
    """
    own, run = BridgeModel(model), "steered" if steering else "clean"
    batch = torch.tensor([[*prompt, *generated]], device=own.device)
    mask = torch.ones_like(batch)
    names = {hook_point(layer): f"that enters layer {layer}" for layer in range(own.n_layers)}
    names[hook_point(own.n_layers - 1, "resid_post")] = "that leaves the last layer"
    read = prompt_edits(model, [steering], mask[:, : len(prompt)], [prompt])
    edits: Mapping[str, Edit] = read.by_point
    if generated:
        later = decode_edits(model, [steering], read.holds).of(torch.zeros(1, dtype=torch.long))
        edits = joined_edits(edits, later, len(prompt))
    streams = own.run(batch, mask, edits=edits, read=[*names], keep=None).streams
    broken = [text for name, text in names.items() if not streams[name].isfinite().all()]
    begins = "every stream is finite, so it begins in the final norm or the unembedding"
    if broken:
        begins = f"the stream {broken[0]} is the first that is not finite"
    remedies = ["look for inf and NaN in the weights"]
    if own.dtype == torch.float16:
        remedies[:0] = [
            "load the model in float32 or bfloat16, whose range is larger, e.g. "
            "al.load_model(..., dtype=torch.bfloat16)"
        ]
    if steering:
        remedies[:0] = ["steer with a smaller coefficient"]
    return NumericsError(
        f"the {run} logits {where} are not finite in {str(own.dtype).removeprefix('torch.')} "
        f"({own.name}); {begins}: {', or '.join(remedies)}"
    )
