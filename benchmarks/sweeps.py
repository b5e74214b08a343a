"""Lines about sweeps: against one run a configuration, and against the least arithmetic."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

import actadd_lens as al
from actadd_lens.metrics import WordCount, kl
from actadd_lens.models.base import Start
from actadd_lens.models.plain import fast_model
from benchmarks.checkpoint import prompt_of
from benchmarks.measures import Row, Times, interleaved, seconds, times_faster

PAIR = ("Love", "Hate")
COEFFICIENTS = (-8.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 8.0)
SAMPLES = 4
N_NEW = 24

Vectors = dict[int, al.SteeringVector]


def logit_sweep(model: Any, prompts: Sequence[str]) -> al.SweepResult:
    """12 layers x 8 coefficients by this package."""
    return al.sweep(
        model, PAIR, prompts, coefficients=COEFFICIENTS, metrics=["kl"], controls=(), progress=False
    )


def hooked_logprobs(
    model: Any, tokens: torch.Tensor, vector: al.SteeringVector | None, **options: Any
) -> torch.Tensor:
    """Log-probs after the last token of each prompt, from one pass of TransformerLens."""
    with torch.no_grad():
        logits = model.run_with_hooks(
            tokens, fwd_hooks=al.fwd_hooks(model, vector), return_type="logits", **options
        )
        last: torch.Tensor = logits[:, -1].log_softmax(dim=-1)
        return last


def reading(
    model: Any, n_prompts: int, n_tokens: int, target: float, every: int, repetitions: int
) -> Iterator[Row]:
    """The logit sweep against hooked passes, and against the arithmetic it can't do without."""
    prompts = [prompt_of(model, n_tokens)] * n_prompts
    tokens = model.to_tokens(prompts, prepend_bos=True)
    vectors = al.extract(model, PAIR)
    clean = hooked_logprobs(model, tokens, None)
    results: list[al.SweepResult] = []
    divergences: dict[tuple[int, float], torch.Tensor] = {}

    def hooked(layer: int, c: float) -> None:
        steered = hooked_logprobs(model, tokens, c * vectors[layer])
        divergences[layer, c] = kl(clean, steered)

    grid = [(layer, c) for layer in vectors for c in COEFFICIENTS]
    sweep, detail, loop, passes = against_loop(
        lambda: results.append(logit_sweep(model, prompts)),
        [partial(hooked, *cell) for cell in grid],
        resumed_passes(model, tokens.repeat(len(COEFFICIENTS), 1)),
        every,
        repetitions,
    )
    check_alike(results[-1], divergences)
    size = f"{n_prompts} x {n_tokens} tokens"
    yield times_faster(
        f"logit sweep / one run a configuration, {size}", target, sweep, loop, detail
    )
    yield least(f"logit sweep / minimum by count, {size}", len(vectors), sweep, passes)


def against_loop(
    sweep: Callable[[], object],
    configurations: Sequence[Callable[[], object]],
    others: Mapping[str, Callable[[], object]],
    every: int,
    repetitions: int,
) -> tuple[Times, str, Times, dict[str, Times]]:
    """Time a sweep in turn with one in so many of the configurations of the loop, and with others.

    Returns:
        Times of the sweep, what to say of it and the loop, times of the loop, and of the others.
        The loop's are those of the configurations that were run, scaled by their number.
    """
    some = configurations[every // 2 :: every]
    named = {f"configuration {i}": run for i, run in enumerate(some)}
    some[0]()
    times = interleaved({"sweep": sweep, **named, **others}, repetitions)
    each = [times.pop(name) for name in named]
    scale = len(configurations) / len(some)
    totals = zip(*(taken.seconds for taken in each), strict=True)
    loop = Times(tuple(scale * sum(total) for total in totals))
    ours = times.pop("sweep")
    lengths = sorted(taken.best for taken in each)
    detail = (
        f"{seconds(ours)} against {seconds(loop)}; {len(some)} of {len(configurations)} runs, "
        f"of {lengths[0]:.2f} to {lengths[-1]:.2f} s each"
    )
    return ours, detail, loop, times


def check_alike(
    result: al.SweepResult, divergences: Mapping[tuple[int, float], torch.Tensor]
) -> None:
    """Both gave the same figures."""
    frame = result.frame.query("run == 'steered'").sort_values("prompt_index")
    ours = {key: cell["value"].tolist() for key, cell in frame.groupby(["layer", "coefficient"])}
    for key, found in divergences.items():
        torch.testing.assert_close(torch.tensor(ours[key]), found, rtol=1e-3, atol=1e-5)


def resumed_passes(model: Any, tokens: torch.Tensor) -> dict[str, Callable[[], object]]:
    """A pass of the plain model that starts at block 0, and one that starts at the deepest."""
    fast = fast_model(model)
    if not fast.supports("start at a layer"):
        raise RuntimeError("no pass of the benchmark's model can start at a layer")
    stream = torch.randn(*tokens.shape, model.cfg.d_model)
    mask = torch.ones_like(tokens)
    return {
        "whole": lambda: fast.run(tokens, mask, start=Start(0, stream), keep=1),
        "deepest": lambda: fast.run(
            tokens, mask, start=Start(model.cfg.n_layers - 1, stream), keep=1
        ),
    }


def least(name: str, n_layers: int, sweep: Times, passes: Mapping[str, Times]) -> Row:
    """The sweep's time over that of its layer applications and unembeddings alone.

    A layer application is one block that runs on all prompts of one cell. The clean run needs one
    for every layer, a cell at layer l one for every layer from l on; each of these runs needs one
    unembedding, after the last tokens. Both are priced in passes of the clean twin that hold as
    many cells as the sweep packs, the coefficients of one layer: one pass begins at block 0, one at
    the deepest block. Their difference is the price of the blocks between. What the second takes
    beyond its one block is the price of the unembedding.
    """
    n_cells = len(COEFFICIENTS)
    applications = n_layers + n_cells * sum(n_layers - layer for layer in range(n_layers))
    unembeddings = 1 + n_cells * n_layers

    def minimum(whole: float, deepest: float) -> tuple[float, float, float]:
        layer = (whole - deepest) / (n_layers - 1) / n_cells
        unembedding = deepest / n_cells - layer
        return applications * layer + unembeddings * unembedding, layer, unembedding

    best, layer, unembedding = minimum(passes["whole"].best, passes["deepest"].best)
    middle, *_ = minimum(passes["whole"].middle, passes["deepest"].middle)
    detail = (
        f"{sweep.best:.2f} s; {applications} layer applications of {1000 * layer:.2f} ms "
        f"and {unembeddings} unembeddings of {1000 * unembedding:.2f} ms are {best:.2f} s"
    )
    return Row(name, False, 1.15, sweep.best / best, sweep.middle / middle, detail)


def writing_sweep(model: Any, prompts: Sequence[str], batch_size: int | None = None) -> Any:
    """12 layers x 4 coefficients, some samples of each prompt, by this package."""
    return al.sweep(
        model, PAIR, prompts, coefficients=COEFFICIENTS[::2], metrics=[WordCount(["day"])],
        controls=(), samples=SAMPLES, max_new_tokens=N_NEW, stop_at_eos=False, progress=False,
        batch_size=batch_size,
    )  # fmt: skip


def hooked_generate(model: Any, tokens: torch.Tensor, vector: al.SteeringVector) -> None:
    """One configuration by TransformerLens: a hooked ``generate`` for each prompt."""
    [(name, add)] = al.fwd_hooks(model, vector)

    def at_prompt(tensor: torch.Tensor, hook: Any) -> torch.Tensor | None:
        return None if tensor.shape[1] == 1 else add(tensor, hook=hook)

    for prompt in tokens:
        with model.hooks(fwd_hooks=[(name, at_prompt)]):
            model.generate(
                prompt.repeat(SAMPLES, 1), max_new_tokens=N_NEW, stop_at_eos=False, verbose=False
            )


def writing(model: Any, every: int, repetitions: int) -> Iterator[Row]:
    """The generation sweep against ``generate`` with hooks."""
    prompts = [prompt_of(model, 16)] * 2
    tokens = model.to_tokens(prompts, prepend_bos=True)
    vectors = [c * vector for vector in al.extract(model, PAIR).values() for c in COEFFICIENTS[::2]]
    sweep, detail, loop, _ = against_loop(
        lambda: writing_sweep(model, prompts),
        [partial(hooked_generate, model, tokens, vector) for vector in vectors],
        {},
        every,
        repetitions,
    )
    name = f"generation sweep / TransformerBridge generate, 2 prompts x {SAMPLES} samples"
    yield times_faster(name, 4, sweep, loop, detail)
