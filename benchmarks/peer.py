"""The other side of a comparison with steering-vectors: ``python benchmarks/peer.py JOB OUT``.

It runs in an environment of its own (peer-requirements.txt) and imports nothing of this package.
peer_job.py writes the job, starts it and reads what it wrote.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from steering_vectors import SteeringVector
from transformers import AutoModelForCausalLM

LIBRARIES = ("steering-vectors", "transformers", "torch", "numpy")
Steered = Callable[[int, float], AbstractContextManager[None]]
"""Steers the model at this layer with this coefficient."""


def entering(_: Any, layer: int) -> str:
    """Name of the GPT-2 module whose output is the stream that enters this block.

    steering-vectors adds to what a module returns. It would number the blocks, so that a vector for
    block l goes to its layer l - 1. This numbering has block 0 too: the stream that enters it comes
    from the dropout after the embeddings.
    """
    return f"transformer.h.{layer - 1}" if layer else "transformer.drop"


def steering(model: Any, rows: dict[str, torch.Tensor]) -> Steered:
    """Add a layer's row to the stream that enters it, at every position of every pass."""

    def steered(layer: int, coefficient: float) -> AbstractContextManager[None]:
        vector = SteeringVector({layer: rows[str(layer)]})
        return vector.apply(model, layer_config={"decoder_block": entering}, multiplier=coefficient)

    return steered


def cells(job: dict[str, Any]) -> Iterator[tuple[int, float]]:
    """Every layer with every coefficient."""
    return ((layer, c) for layer in job["layers"] for c in job["coefficients"])


def last_logprobs(
    model: Any, steered: Steered, ids: torch.Tensor, cell: tuple[int, float], keep: int
) -> torch.Tensor:
    """Log-probs after the last token of each prompt, from one pass of the batch.

    ``keep`` is the model's own ``logits_to_keep``: 0, its default, computes all positions' logits.
    """
    with torch.no_grad(), steered(*cell):
        mask = torch.ones_like(ids)
        logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=keep).logits
        return logits[:, -1].log_softmax(dim=-1)


def generate(
    model: Any, steered: Steered, ids: torch.Tensor, cell: tuple[int, float], samples: int, n: int
) -> torch.Tensor:
    """``n`` new tokens of each sample of each prompt, drawn at temperature 1."""
    with steered(*cell):
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), pad_token_id=0, do_sample=True, top_k=0,
            num_return_sequences=samples, min_new_tokens=n, max_new_tokens=n,
        )  # fmt: skip
    if made.shape != (samples * len(ids), ids.shape[1] + n):
        raise RuntimeError(f"{n} tokens of {samples} samples were asked for, not {made.shape}")
    return made


def seconds(run: Callable[[], object], repetitions: int) -> list[float]:
    """CPU time of this process in each repetition."""
    taken = []
    for _ in range(repetitions):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return taken


def peak_bytes() -> int:
    """The most memory this process has held so far.

    Linux hands a child's ``ru_maxrss`` on from the process that started it; VmHWM is its own.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def measure(job: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor]:
    """Both sweeps, each after one cell that does not count, and the log-probs of the kept cells."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        job["checkpoint"], dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    steered = steering(model, load_file(job["rows"]))
    ids = torch.tensor(job["prompts"])
    keep, samples, new_tokens = job["logits_to_keep"], job["samples"], job["new_tokens"]

    def logits_sweep() -> None:
        for cell in cells(job):
            last_logprobs(model, steered, ids, cell, keep)

    def generation_sweep() -> None:
        for cell in cells(job):
            generate(model, steered, ids, cell, samples, new_tokens)

    last_logprobs(model, steered, ids, next(cells(job)), keep)
    times = {"logits": seconds(logits_sweep, job["repetitions"])}
    peaks = {"logits": peak_bytes()}
    if new_tokens:
        generate(model, steered, ids, next(cells(job)), samples, 2)
        times["generation"] = seconds(generation_sweep, job["repetitions"])
        peaks["generation"] = peak_bytes()
    kept = [last_logprobs(model, steered, ids, (layer, c), keep) for layer, c in job["kept"]]
    result = {
        "seconds": times,
        "peak_bytes": peaks,
        "versions": {name: version(name) for name in LIBRARIES},
    }
    return result, torch.stack(kept) if kept else torch.empty(0)


def main() -> None:
    """Read the job, write the result and, beside it, the log-probs."""
    job, out = Path(sys.argv[1]), Path(sys.argv[2])
    result, logprobs = measure(json.loads(job.read_text()))
    out.write_text(json.dumps(result, indent=1))
    save_file({"logprobs": logprobs}, out.with_suffix(".safetensors"))


if __name__ == "__main__":
    main()
