"""Logits that are not finite: where it begins in the model, and what to do about it."""

from collections.abc import Sequence

import torch

from actadd_lens.errors import NumericsError
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel, hook_point
from actadd_lens.steering.hooks import prompt_edits
from actadd_lens.steering.interventions import Steering


def not_finite(
    model: Bridge, tokens: Sequence[int], n_prompt: int, steering: Steering, where: str
) -> NumericsError:
    """The error for logits that are not finite; one pass reads where it begins.

    Args:
        model: Any TransformerBridge.
        tokens: Those that the logits were made of.
        n_prompt: How many of them are the prompt's, which is steered.
        steering: As of the run.
        where: Which logits they are.
    """
    own, run = BridgeModel(model), "steered" if steering else "clean"
    batch = torch.tensor([[*tokens]], device=own.device)
    mask = torch.ones_like(batch)
    of_prompt = mask * (torch.arange(len(tokens), device=own.device) < n_prompt)
    names = {hook_point(layer): f"that enters layer {layer}" for layer in range(own.n_layers)}
    names[hook_point(own.n_layers - 1, "resid_post")] = "that leaves the last layer"
    edits = prompt_edits(model, [steering], of_prompt).by_point
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
