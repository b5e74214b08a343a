"""Completion metrics of many runs, decoded side by side in wide batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from actadd_lens.errors import MetricError
from actadd_lens.generation.completions import Completion, completions
from actadd_lens.generation.decoding import Request
from actadd_lens.generation.sampling import Sampling
from actadd_lens.metrics.registry import Metric
from actadd_lens.models.base import Bridge
from actadd_lens.sweeps.cells import Run


@dataclass(frozen=True)
class Writing:
    """What one run wrote behind one prompt, once, and how metrics judge it."""

    run: int
    prompt: int
    sample: int
    values: tuple[float, ...]
    """Of each metric."""
    text: str


def writings(
    model: Bridge,
    runs: Sequence[Run],
    tokens: Sequence[Sequence[Sequence[int]]],
    prompts: Sequence[str],
    metrics: Sequence[Metric],
    sampling: Sampling,
    pending: Sequence[tuple[int, int]],
    batch_size: int | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[list[Writing]]:
    """Complete what is pending, with the random numbers that ``generate`` would use.

    Args:
        model: Any TransformerBridge.
        runs: Whose vectors fit the model and the prompts.
        tokens: For each run the token ids of every prompt.
        prompts: The bare prompts, which metrics see.
        metrics: Completion metrics.
        sampling: How tokens are drawn; every run with the same random numbers.
        pending: (index of the run, index of the prompt) of what is to be written.
        batch_size: Completions decoded at once.
        advance: Called with the number of tokens that each step has settled.

    Yields:
        All samples of some pending keys at a time.
    """
    if not pending:
        return
    requests = [Request(tokens[r][p], runs[r].vectors, p) for r, p in pending]
    shown = [prompts[p] for _, p in pending]
    made = completions(model, requests, shown, sampling, batch_size, advance)
    with closing(made):
        for batch in made:
            judged = zip(*(judge(metric, [c for _, c in batch]) for metric in metrics), strict=True)
            yield [
                Writing(*pending[index], completion.sample_index, values, completion.text)
                for (index, completion), values in zip(batch, judged, strict=True)
            ]


def judge(metric: Metric, items: Sequence[Completion]) -> list[float]:
    """One value of a completion metric for each completion.

    Raises:
        MetricError: It gives another number of values.
    """
    values = [float(value) for value in metric(items)]
    if len(values) != len(items):
        raise MetricError(
            f"{metric.name} gave {len(values)} values for {len(items)} completions: "
            "it must give one for each"
        )
    return values
