"""Peak memory of one way to read a grid: ``python -m benchmarks.peak CHECKPOINT WAY``.

A peak is of a whole process and of all its past, so ``peak_of`` starts a fresh one for each way.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import actadd_lens as al
from actadd_lens.metrics import kl
from benchmarks.checkpoint import prompt_of
from benchmarks.measures import Row
from benchmarks.sweeps import COEFFICIENTS, PAIR, hooked_logprobs, logit_sweep

N_PROMPTS, N_TOKENS = 8, 32
WAYS = ("sweep", "loop", "loop over as many rows", "loop over as many rows, last logits")


def peak_of(checkpoint: Path, way: str) -> tuple[int, int]:
    """Bytes held by a fresh process once its model is loaded, and at most while it worked."""
    command = [sys.executable, "-m", "benchmarks.peak", str(checkpoint), way]
    written = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    before, peak = map(int, written.split()[-2:])
    return before, peak


def rows(checkpoint: Path) -> Iterator[Row]:
    """What each way needs beyond the model, the sweep's over that of the loop at its batch."""
    peaks = {way: peak_of(checkpoint, way) for way in WAYS}
    more = {way: peak - before for way, (before, peak) in peaks.items()}
    ratio = more["sweep"] / more["loop over as many rows"]
    detail = "; ".join(
        f"{way} {more[way] / 1e6:.0f} MB ({before / 1e6:.0f} to {peak / 1e6:.0f})"
        for way, (before, peak) in peaks.items()
    )
    name = (
        f"peak memory of the logit sweep / loop over as many rows, {N_PROMPTS} x {N_TOKENS} tokens"
    )
    yield Row(name, False, 1.3, ratio, ratio, detail)


def held() -> tuple[int, int]:
    """Bytes held now, and at most so far; where there is no /proc, the second for both."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        now, peak = (1024 * int(lines[name].split()[0]) for name in ("VmRSS", "VmHWM"))
        return now, peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak, peak) if sys.platform == "darwin" else (1024 * peak, 1024 * peak)


def main() -> None:
    """Load, read one short text, then work; print what was held before, and the peak."""
    torch.set_num_threads(1)
    model = al.load_model(sys.argv[1], device="cpu")
    prompts = [prompt_of(model, N_TOKENS)] * N_PROMPTS
    tokens = model.to_tokens(prompts, prepend_bos=True)
    wide = tokens.repeat(len(COEFFICIENTS), 1)
    vector = al.SteeringVector.from_pair(model, PAIR, layer=6)

    def loop(tokens: torch.Tensor, **options: Any) -> None:
        """Two passes of it: every one holds as much."""
        clean = hooked_logprobs(model, tokens, None, **options)
        kl(clean, hooked_logprobs(model, tokens, vector, **options))

    ways: Sequence[Callable[[], object]] = (
        lambda: logit_sweep(model, prompts),
        lambda: loop(tokens),
        lambda: loop(wide),
        lambda: loop(wide, logits_to_keep=1),
    )
    al.generate(model, "I", max_new_tokens=2)  # the weights are read, the plain model is built
    before, _ = held()
    ways[WAYS.index(sys.argv[2])]()
    _, peak = held()
    print(before, peak)


if __name__ == "__main__":
    main()
