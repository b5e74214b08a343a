"""Perplexity of given texts under the steered model, the clean one, and a prompted one.

A vector is added at tokens of the text itself. Predictions at those positions, and before them, say
nothing about its effect on what follows. They are left out unless asked for, as in the paper's
figure 2.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from actadd_lens.analysis.logprobs import rows_end, sequence_logprobs
from actadd_lens.errors import PromptError
from actadd_lens.frames import DataFrame
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import Prompt, Prompts, as_prompts, check_context, encode, n_bos
from actadd_lens.steering.checks import as_interventions, check_fit
from actadd_lens.steering.interventions import Intervention, Steering

_RATIOS = {"ratio": "steered", "ratio_prompted": "prompted"}


def perplexity_ratio(
    model: Bridge,
    texts: Prompts,
    steering: Steering,
    *,
    mask_injected: bool = True,
    labels: Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> DataFrame:
    """Perplexity of each text under the steered model over that under the clean one.

    Figure 2 of the paper: a ratio below 1 means that steering made the text more likely.

    Args:
        model: Any TransformerBridge with a tokenizer.
        texts: Texts to read.
        steering: An intervention such as a vector, or several of them.
        mask_injected: Whether to leave out predictions at the positions where rows are added,
            and before them.
        labels: A label for each text, e.g. "on topic", for a column ``label``.
        batch_size: Texts read at once.
        progress: Whether to show progress bars.

    Returns:
        A row for each text: ``text``; ``label`` if given; ``logprob_clean`` and
        ``logprob_steered``, means over the tokens that count (nats per token); ``n_tokens``, how
        many count; ``ratio`` = exp(logprob_clean - logprob_steered). See ``ratio_summary``. A text
        that ends before the rows do has no token that counts, and its values are NaN.

    Raises:
        PromptError: No text, an empty one, one beyond the context, no text with a token that
            counts, or another number of labels than of texts.
        PositionError, VectorError, LayerError: A vector that does not fit.

    >>> model = load_model("testbed")
    >>> v = 4 * SteeringVector.from_pair(model, (" weddings", " "), layer=2)
    >>> perplexity_ratio(model, ["It was a lovely wedding. We loved the bride."], v).columns[-1]
    'ratio'
    """
    sequences, given = as_prompts(model, texts), as_interventions(model, steering)
    first = _first_counted(sequences, given) if mask_injected else [0] * len(sequences)
    runs = {"clean": (sequences, None, first), "steered": (sequences, given, first)}
    return _ratios(model, sequences, labels, runs, batch_size, progress)


def prompting_ratio(
    model: Bridge,
    texts: Prompts,
    steering: Steering,
    prompt: str,
    *,
    labels: Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> DataFrame:
    """Steering against prompting on the same texts: the prompt's words are put before the text.

    All three runs count the same tokens of a text: those after the positions where rows are added.

    Args:
        model: Any TransformerBridge with a tokenizer.
        texts: Texts to read.
        steering: An intervention such as a vector, or several of them.
        prompt: Words put between BOS and the text; the text begins as it does alone, so end the
            prompt with what should separate them.
        labels: A label for each text, for a column ``label``.
        batch_size: Texts read at once.
        progress: Whether to show progress bars.

    Returns:
        As ``perplexity_ratio``, with ``logprob_prompted`` and ``ratio_prompted`` =
        exp(logprob_clean - logprob_prompted).

    Raises:
        PromptError: As of ``perplexity_ratio``, and where prompt and text together are beyond the
            context.
        PositionError, VectorError, LayerError: A vector that does not fit.

    >>> model = load_model("testbed")
    >>> v = 4 * SteeringVector.from_pair(model, (" weddings", " "), layer=2)
    >>> text = "It was a lovely wedding. We loved the bride."
    >>> prompting_ratio(model, [text], v, "Weddings. ").columns.tolist()[-2:]
    ['ratio', 'ratio_prompted']
    """
    sequences, given = as_prompts(model, texts), as_interventions(model, steering)
    head = encode(model, prompt)
    before = [len(head) - n_bos(model, ids) for ids in sequences]
    prompted = [[*head, *ids[n_bos(model, ids) :]] for ids in sequences]
    for index, ids in enumerate(prompted):
        check_context(model, len(ids), f"text {index} with the prompt before it")
    first = _first_counted(sequences, given)
    runs = {
        "clean": (sequences, None, first),
        "steered": (sequences, given, first),
        "prompted": (prompted, None, [n + k for n, k in zip(first, before, strict=True)]),
    }
    return _ratios(model, sequences, labels, runs, batch_size, progress)


def ratio_summary(
    frame: DataFrame, *, by: str | None = None, confidence: float = 0.95
) -> DataFrame:
    """Perplexity ratios with intervals over texts, for all of them or by a label.

    Args:
        frame: From ``perplexity_ratio`` or ``prompting_ratio``.
        by: A column of labels.
        confidence: Coverage of the intervals.

    Returns:
        For each label and ratio the geometric mean over texts, which is exp of the mean change of
        log-prob per token: ``mean``, ``low``, ``high`` (bootstrap over texts), ``n``, and how many
        are ``missing``, being too short.

    Raises:
        PromptError: There is no such column.

    >>> model = load_model("testbed")
    >>> v = 4 * SteeringVector.from_pair(model, (" weddings", " "), layer=2)
    >>> texts = ["We loved the bride at noon.", "The rocket left at noon."]
    >>> ratios = perplexity_ratio(model, texts, v, labels=["weddings", "other"])
    >>> ratio_summary(ratios, by="label")[["label", "n"]].values.tolist()
    [['weddings', 1], ['other', 1]]
    """
    import pandas as pd

    from actadd_lens.statistics import mean

    if by is not None and by not in frame:
        raise PromptError(f"no column {by!r}: the frame has {', '.join(map(str, frame.columns))}")
    groups = [("all", frame)] if by is None else list(frame.groupby(by, sort=False))
    lines = []
    for label, texts in groups:
        for column in [name for name in _RATIOS if name in texts]:
            ratios = texts[column].dropna()
            figures = [math.nan] * 3
            if len(ratios):
                change = mean([math.log(ratio) for ratio in ratios], confidence)
                figures = [math.exp(x) for x in (change.mean, change.low, change.high)]
            lines.append((column, label, *figures, len(ratios), len(texts) - len(ratios)))
    return pd.DataFrame(
        lines, columns=["ratio", by or "label", "mean", "low", "high", "n", "missing"]
    )


def _first_counted(sequences: Sequence[Sequence[int]], given: Sequence[Intervention]) -> list[int]:
    """For each text the first position whose prediction is after all rows of the vectors."""
    check_fit(sequences, given)
    first, lengths = rows_end(sequences, given), [len(ids) for ids in sequences]
    if all(n > length - 2 for n, length in zip(first, lengths, strict=True)):
        raise PromptError(
            f"the longest text has {max(lengths)} tokens (BOS included), the vector ends at "
            f"position {max(first) - 1}: no prediction is left behind it in any text; give "
            "longer texts, or count all predictions with mask_injected=False"
        )
    return first


def _ratios(
    model: Bridge,
    texts: Sequence[Prompt],
    labels: Sequence[str] | None,
    runs: Mapping[str, tuple[Any, ...]],
    batch_size: int | None,
    progress: bool | None,
) -> DataFrame:
    """A row for each text; a run has tokens, steering and the first prediction that counts."""
    import pandas as pd

    frame = pd.DataFrame({"text": [text.label for text in texts]})
    if labels is not None:
        if len(labels) != len(frame):
            raise PromptError(f"{len(labels)} labels for {len(frame)} texts: give one for each")
        frame["label"] = list(labels)
    for name, (sequences, steering, first) in runs.items():
        read = sequence_logprobs(model, sequences, steering, batch_size, progress)
        counted = [row[n:] for row, n in zip(read, first, strict=True)]
        frame[f"logprob_{name}"] = [float(row.mean()) for row in counted]
    frame["n_tokens"] = [len(row) for row in counted]  # the same tokens in every run
    for column, name in _RATIOS.items():
        if name in runs:
            change = frame["logprob_clean"] - frame[f"logprob_{name}"]
            frame[column] = change.map(math.exp)
    return frame
