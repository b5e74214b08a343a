"""Metrics over completions as tables: a column per metric, and means with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from actadd_lens.errors import MetricError
from actadd_lens.frames import DataFrame
from actadd_lens.generation.completions import Completion
from actadd_lens.metrics.registry import lookup
from actadd_lens.models.base import Bridge
from actadd_lens.steering.interventions import Steering

_KEYS = ("prompt_index", "sample_index", "prompt", "text")


def score(completions: Sequence[Completion], metrics: str | Sequence[object]) -> DataFrame:
    """Completion metrics side by side.

    Args:
        completions: From ``generate``, or made by hand.
        metrics: Completion metrics or names of built-in ones.

    Returns:
        A row for each completion: prompt_index, sample_index, prompt, text, and a column for each
        metric by its name.

    Raises:
        MetricError: No metric, an unknown one, a logit metric, two of one name, or something that
            is not a completion.

    >>> completion = al.Completion("She talks about", " her wedding.", (), (), 0, 0)
    >>> score([completion], ["weddings", "repetition"])[["weddings", "repetition"]].values.tolist()
    [[1.0, 0.0]]
    """
    import pandas as pd

    several = [metrics] if isinstance(metrics, str) else metrics
    found = [lookup(metric) for metric in several]
    names = [metric.name for metric in found]
    if not found:
        raise MetricError("the list of metrics is empty: give at least one")
    for metric in found:
        if metric.kind == "logits":
            raise MetricError(
                f"{metric.name} reads log-probabilities, not text: it needs a model and a vector; "
                "see next_token_shift and perplexity_ratio"
            )
        if names.count(metric.name) > 1:
            raise MetricError(
                f"{names.count(metric.name)} metrics are called {metric.name!r}: "
                "give them names of their own"
            )
    for index, completion in enumerate(completions):
        if not isinstance(completion, Completion):
            raise MetricError(
                f"completion {index} is a {type(completion).__name__}: give what generate returns; "
                "for a text of your own al.Completion('', text, (), (), 0, 0)"
            )
    frame = pd.DataFrame([[getattr(c, k) for k in _KEYS] for c in completions], columns=_KEYS)
    for metric in found:
        frame[metric.name] = [float(value) for value in metric(completions)]
    return frame


def score_texts(
    records: Sequence[Mapping[str, Any]],
    metrics: Sequence[object] = (),
    *,
    by: str | None = None,
    model: Bridge | None = None,
    steering: Steering = None,
) -> tuple[DataFrame, DataFrame]:
    """Metrics of given texts, and how much more likely steering makes them.

    Args:
        records: From ``read_texts``: "text", maybe "prompt", and labels.
        metrics: Completion metrics or names of built-in ones.
        by: A label that groups the texts.
        model: With ``steering``: perplexity ratios of the texts are computed too.
        steering: An intervention such as a vector, or several of them.

    Returns:
        A row for each text with its labels and results, and a summary like that of ``summarize``;
        of perplexity ratios it holds the geometric mean.

    Raises:
        MetricError: Nothing to score by, or a metric or label that does not exist.
        PromptError, PositionError, VectorError, LayerError: See ``perplexity_ratio``.
    """
    import pandas as pd

    from actadd_lens.analysis.perplexity import perplexity_ratio, ratio_summary

    frame = pd.DataFrame(records)
    if by is not None and (by not in frame or frame[by].isna().any()):
        lacking = len(frame) if by not in frame else int(frame[by].isna().sum())
        raise MetricError(
            f"{lacking} of {len(frame)} texts have no {by!r}: "
            f"there are {', '.join(map(str, frame.columns))}"
        )
    summaries, computed = [], pd.DataFrame({"prompt_index": range(len(frame))})
    if metrics:
        completions = [
            Completion(r.get("prompt") or "", r["text"], (), (), i, 0)
            for i, r in enumerate(records)
        ]
        scored = score(completions, metrics)
        names = list(scored.columns[len(_KEYS) :])
        computed[names] = scored[names]
    if model is not None:
        ratios = perplexity_ratio(model, list(frame["text"]), steering)
        computed[list(ratios.columns[1:])] = ratios[ratios.columns[1:]]
    clashing = [str(name) for name in computed if name in frame]
    if clashing:
        raise MetricError(
            f"the texts have fields {', '.join(clashing)}, which are also names of results: "
            "rename the fields"
        )
    labels = {} if by is None else {by: frame[by]}
    if metrics:
        summaries.append(summarize(computed.assign(**labels), names, by=by))
    if model is not None:
        summary = ratio_summary(computed.assign(**labels), by=by)
        summary = summary.rename(columns={"ratio": "metric"})
        summaries.append(summary.assign(metric="perplexity_ratio"))
    if not summaries:
        raise MetricError("nothing to score by: give metrics, or a model and a vector")
    whole = pd.concat([frame, computed.drop(columns="prompt_index")], axis=1)
    return whole, pd.concat(summaries, ignore_index=True)


def summarize(
    frame: DataFrame, columns: Sequence[str], *, by: str | None = None, confidence: float = 0.95
) -> DataFrame:
    """Means with bootstrap intervals over prompts, of all rows or by a label.

    Args:
        frame: From ``score``; rows of one ``prompt_index`` are samples of one prompt.
        columns: Names of the metrics.
        by: A column of labels.
        confidence: Coverage of the intervals.

    Returns:
        A row for each metric and label: ``metric``, the label, ``mean``, ``low``, ``high``, ``n``
        (prompts) and ``missing`` (values that were NaN and are left out).

    Raises:
        MetricError: There is no such column.

    >>> completions = [al.Completion("", text, (), (), i, 0) for i, text in enumerate("ab")]
    >>> summarize(score(completions, ["repetition"]), ["repetition"])["n"].tolist()
    [2]
    """
    import pandas as pd

    from actadd_lens.statistics import cluster_mean

    for column in [*columns, *([by] if by is not None else [])]:
        if column not in frame:
            raise MetricError(
                f"no column {column!r}: there are {', '.join(map(str, frame.columns))}"
            )
    groups = [("all", frame)] if by is None else list(frame.groupby(by, sort=False))
    lines = []
    for column in columns:
        for label, rows in groups:
            if rows[column].isna().all():
                figures = [float("nan")] * 3 + [0, len(rows)]
            else:
                i = cluster_mean(rows[column], rows["prompt_index"], confidence)
                figures = [i.mean, i.low, i.high, i.n, i.missing]
            lines.append([column, label, *figures])
    return pd.DataFrame(
        lines, columns=["metric", by or "label", "mean", "low", "high", "n", "missing"]
    )
