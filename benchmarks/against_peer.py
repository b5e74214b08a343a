"""Lines against the package steering-vectors: ``python -m benchmarks --peer INTERPRETER``.

Both have the same weights and the same row for each layer, added at every position, generated
tokens included. Vectors are made beforehand. The peer steers a plain Hugging Face model, one
configuration at a time: a pass over the batch of prompts, or one ``generate`` for all prompts and
samples. Its process is started anew for each repetition, in turn with ours, and only the sweeps
inside are timed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

import actadd_lens as al
from actadd_lens.metrics import Metric, WordCount
from actadd_lens.sweeps.configurations import KEYS, Configuration, Run, clean_configuration
from actadd_lens.sweeps.measurement import measure
from benchmarks.checkpoint import prompt_of
from benchmarks.measures import Row, Times, interleaved, seconds, times_faster
from benchmarks.peer_job import run_peer
from benchmarks.sweeps import COEFFICIENTS, N_NEW, PAIR, SAMPLES, Vectors

KEPT = ((0, 8.0), (3, -4.0), (6, 8.0), (11, -8.0))
"""Cells whose log-probs are compared."""
TOLERANCE = 1e-3
POSITIONS = {0: "all logits", 1: "last logits"}
"""What the peer's model is asked for by its ``logits_to_keep``; 0 is the default."""


@dataclass
class Kept:
    """A metric that keeps the log-probs it is shown."""

    name: str = "kept"
    kind: ClassVar[Literal["logits"]] = "logits"
    clean: list[torch.Tensor] = field(default_factory=list, repr=False)
    steered: list[torch.Tensor] = field(default_factory=list, repr=False)

    def __call__(self, clean: torch.Tensor, steered: torch.Tensor) -> list[float]:
        """Nothing."""
        self.clean.append(clean)
        self.steered.append(steered)
        return [0.0] * len(clean)


@dataclass(frozen=True)
class Comparison:
    """One grid for both."""

    model: Any
    interpreter: Path
    checkpoint: Path
    vectors: Vectors
    """One row for each layer, at all positions."""
    prompts: Sequence[str]

    def ours(self, grid: Sequence[tuple[int, float]], metric: str | Metric, **options: Any) -> None:
        """Measure the cells of a grid in one sweep."""
        cells = [
            Configuration(
                {**dict.fromkeys(KEYS), "layer": layer, "coefficient": c},
                Run((c * self.vectors[layer],)),
            )
            for layer, c in grid
        ]
        whole = [clean_configuration(), *cells]
        options = {"progress": False, **options}
        measure(self.model, whole, self.prompts, [metric], {}, **options)

    def peer(self, coefficients: Sequence[float], **job: Any) -> dict[str, Any]:
        """Run the same cells with the peer, once."""
        tokens = self.model.to_tokens(list(self.prompts), prepend_bos=True)
        whole = {
            "checkpoint": self.checkpoint,
            "prompts": tokens.tolist(),
            "layers": list(self.vectors),
            "coefficients": list(coefficients),
            "repetitions": 1,
            **job,
        }
        rows = {layer: vector.rows[0] for layer, vector in self.vectors.items()}
        return run_peer(self.interpreter, whole, rows)

    def agreement(self) -> tuple[float, float]:
        """Largest difference of the log-probs of the kept cells, and of steered and clean ones."""
        kept = Kept()
        self.ours(KEPT, kept)
        shape = (len(KEPT) + 1, len(self.prompts), -1)  # the clean cell is read first
        steered = torch.cat(kept.steered).reshape(shape)[1:]
        clean = torch.cat(kept.clean).reshape(shape)[1:]
        differences = []
        for keep in POSITIONS:
            theirs = self.peer([1.0], kept=KEPT, logits_to_keep=keep)["logprobs"]
            differences.append(float((steered - theirs).abs().max()))
        return max(differences), float((steered - clean).abs().max())


def in_turn(
    ours: Callable[[], object], peers: Mapping[str, Callable[[], float]], repetitions: int
) -> dict[str, Times]:
    """Times of ours and, by what they return, of the peer's ways."""
    taken: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    for _ in range(repetitions):
        taken["ours"] += interleaved({"ours": ours}, 1)["ours"].seconds
        for name, peer in peers.items():
            taken[name].append(peer())
    return {name: Times(tuple(values)) for name, values in taken.items()}


def reading(both: Comparison, repetitions: int) -> Iterator[Row]:
    """Logits after the last tokens, 12 layers x 8 coefficients."""
    difference, effect = both.agreement()
    size = f"{len(both.prompts)} x {len(both.model.to_tokens(both.prompts[0])[0])} tokens"
    name = f"largest difference of log-probs, {size}"
    detail = f"steering moves them by up to {effect:.2f}"
    yield Row(name, False, TOLERANCE, difference, difference, detail)
    if difference > TOLERANCE:
        raise RuntimeError(f"log-probs differ by {difference}: the two do not do the same")
    grid = [(layer, c) for layer in both.vectors for c in COEFFICIENTS]

    def peer(keep: int) -> float:
        [taken] = both.peer(COEFFICIENTS, logits_to_keep=keep)["seconds"]["logits"]
        return float(taken)

    ways = {name: lambda keep=keep: peer(keep) for keep, name in POSITIONS.items()}
    times = in_turn(lambda: both.ours(grid, "kl"), ways, repetitions)
    for name in ways:
        quantity = f"logit sweep / steering-vectors, {name}, {size}"
        detail = f"{seconds(times['ours'])} against {seconds(times[name])}"
        yield times_faster(quantity, 3, times["ours"], times[name], detail)


def writing(both: Comparison, samples: int, repetitions: int) -> Iterator[Row]:
    """Completions, 12 layers x 4 coefficients."""
    coefficients = COEFFICIENTS[::2]
    grid = [(layer, c) for layer in both.vectors for c in coefficients]
    options = {"samples": samples, "max_new_tokens": N_NEW, "stop_at_eos": False}

    def peer() -> float:
        job = {"samples": samples, "new_tokens": N_NEW, "logits_to_keep": 1}
        [taken] = both.peer(coefficients, **job)["seconds"]["generation"]
        return float(taken)

    def ours() -> None:
        both.ours(grid, WordCount(["day"]), **options)

    times = in_turn(ours, {"generate": peer}, repetitions)
    size = f"{len(both.prompts)} prompts x {samples} samples"
    quantity = f"generation sweep / steering-vectors, {size}"
    detail = f"{seconds(times['ours'])} against {seconds(times['generate'])}"
    yield times_faster(quantity, 3, times["ours"], times["generate"], detail)


def rows(model: Any, checkpoint: Path, interpreter: Path) -> Iterator[Row]:
    """Every line."""
    vectors = {
        layer: vector.collapse("mean").at("all")
        for layer, vector in al.extract(model, PAIR).items()
    }

    def both(n_prompts: int, n_tokens: int) -> Comparison:
        prompts = [prompt_of(model, n_tokens)] * n_prompts
        return Comparison(model, interpreter, checkpoint, vectors, prompts)

    yield from reading(both(1, 16), 3)
    yield from reading(both(8, 32), 2)
    yield from writing(both(2, 16), 1, 2)
    yield from writing(both(2, 16), SAMPLES, 2)
