"""Completion metrics of many runs, decoded together in wide batches."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from actadd_lens.errors import MetricError
from actadd_lens.generation.completions import Completion, completions
from actadd_lens.generation.decoding import Request
from actadd_lens.metrics.registry import Metric
from actadd_lens.sweeps.measurement import Work


@dataclass(frozen=True)
class Writing:
    """One completion of one prompt by one run, and the values of the metrics."""

    run: int
    prompt: int
    sample: int
    values: tuple[float, ...]
    """Of each completion metric."""
    text: str


def writings(
    work: Work,
    pending: Sequence[tuple[int, int]],
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[list[Writing]]:
    """Complete the pending (run, prompt) indices, with the random numbers of ``generate``.

    Yields:
        All samples of some pending keys at a time. ``advance`` is called with the number of tokens
        that each step has settled.
    """
    if not pending:
        return
    requests = [Request(work.tokens[r][p], work.runs[r].steering, p) for r, p in pending]
    shown = [work.texts[p] for _, p in pending]
    made = completions(work.model, requests, shown, work.sampling, work.batch_size, advance)
    with closing(made):
        for batch in made:
            columns = [judge(metric, [c for _, c in batch]) for metric in work.text_metrics]
            yield [
                Writing(*pending[index], completion.sample_index, values, completion.text)
                for (index, completion), values in zip(
                    batch, zip(*columns, strict=True), strict=True
                )
            ]


def judge(metric: Metric, items: Sequence[Completion]) -> list[float]:
    """One value of a completion metric for each completion; NaN if its logits were not finite.

    Raises:
        MetricError: It gives another number of values.
    """
    values = [float(value) for value in metric(items)]
    finite = [all(map(math.isfinite, item.logprobs)) for item in items]
    if len(values) != len(items):
        raise MetricError(
            f"{metric.name} gave {len(values)} values for {len(items)} completions: "
            "it must give one for each"
        )
    return [value if fine else math.nan for value, fine in zip(values, finite, strict=True)]
