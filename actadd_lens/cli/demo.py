"""`actadd-lens demo`: the bundled model is steered and measured, with controls and intervals.

It answers two questions. After a sentence of negative sentiment, does the steering vector make the
model continue positively? After a sentence on another topic, does it continue about weddings? Layer
and coefficient were chosen on the selection prompts. Everything here is measured on the test
prompts, with one completion per prompt, by the testbed's exact oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from actadd_lens import plots, testbed
from actadd_lens.generation.comparison import compare
from actadd_lens.models.base import Bridge
from actadd_lens.statistics import proportion
from actadd_lens.sweeps import sweep
from actadd_lens.testbed import Success, Task
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.files import prepare_directory, write_atomically
from actadd_lens.vectors.vector import SteeringVector

COEFFICIENTS = (1.0, 2.0, 4.0, 8.0, 16.0)
NEW_TOKENS = 24
SHOWN = 3
N_PROMPTS = 100
SEED = 0


@dataclass(frozen=True)
class Question:
    """A task, the prompts that it is measured on, and where the model is steered."""

    task: Task
    prompts: Sequence[str]
    layer: int
    coefficient: float

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name


def questions(n: int = N_PROMPTS) -> list[Question]:
    """Sentiment and topic on `n` test prompts each, at the recommended layers and coefficients."""
    tasks = [testbed.TASKS[name] for name in ("sentiment", "topic")]
    return [
        Question(task, testbed.prompts(task.prompts, "test", n), *testbed.recommended(task.name))
        for task in tasks
    ]


def run_demo(
    model: Bridge,
    asked: Sequence[Question],
    out: Path,
    *,
    console: Console,
    progress: bool,
) -> list[Path]:
    """Steer the model, print the results, write figures, rows and vectors.

    Args:
        model: The model to steer.
        asked: The questions.
        out: A directory, made if it is missing.
        console: Where the results are printed.
        progress: Whether to show progress.

    Returns:
        The files written.

    Raises:
        OutputError: The directory or a file in it cannot be written.
    """
    prepare_directory(out)
    vectors = {q.name: extract(model, q.task.pair) for q in asked}
    for question in asked:
        _show(model, question, vectors[question.name][question.layer], console)

    rows = pd.concat([_measured(model, q, progress) for q in asked], ignore_index=True)
    _report(rows, asked, console)

    written = [out / "rows.csv", *_draw(_summary(rows), asked, out)]
    write_atomically(written[0], rows.to_csv(index=False).encode())
    for question in asked:
        written.append(out / f"{question.name}.safetensors")
        (question.coefficient * vectors[question.name][question.layer]).save(written[-1])
    return written


def heading(console: Console, text: str) -> None:
    """Print a rule in a terminal, a plain line in a pipe."""
    console.print()
    if console.is_terminal:
        console.rule(text, align="left")
    else:
        _say(console, text)


def _say(console: Console, text: str) -> None:
    """Print a text as it is: neither wrapped nor read as markup."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _show(model: Bridge, question: Question, vector: SteeringVector, console: Console) -> None:
    pair = question.task.pair
    heading(console, f"{question.name}: {question.task.wanted}")
    at = f"layer {question.layer}, coefficient {question.coefficient:g}"
    _say(console, f'"{pair.positive}" - "{pair.negative}", {at}')
    prompts = list(question.prompts[:SHOWN])
    steering = question.coefficient * vector
    comparison = compare(model, prompts, steering, samples=1, max_new_tokens=NEW_TOKENS, seed=SEED)
    if console.is_terminal:
        console.print(comparison)
        return
    for clean, steered in zip(comparison.clean, comparison.steered, strict=True):
        _say(console, f"prompt   {clean.prompt}\nclean   {clean.text}\nsteered {steered.text}")


def _measured(model: Bridge, question: Question, progress: bool) -> pd.DataFrame:
    """A row per completion of a layer profile and a coefficient curve, with controls.

    The profile has every layer at the recommended coefficient, the curve every coefficient at the
    recommended layer.
    """
    task = question.task
    others = [c for c in COEFFICIENTS if c != question.coefficient]
    cuts = [
        sweep(
            model,
            {question.name: task.pair},
            question.prompts,
            layers=layers,
            coefficients=coefficients,
            metrics=[Success(task), testbed.Valid()],
            samples=1,
            max_new_tokens=NEW_TOKENS,
            seed=SEED,
            progress=progress,
        )
        for layers, coefficients in ((None, [question.coefficient]), ([question.layer], others))
    ]
    keys = [*cuts[0].keys, "prompt", "text"]
    values = pd.concat([cut.frame for cut in cuts]).drop_duplicates([*keys, "metric"])
    wide = values.pivot(index=keys, columns="metric", values="value").reset_index()
    wide = values[keys].drop_duplicates().merge(wide, on=keys)  # in the order of the sweeps
    wide = wide.rename(columns={Success(task).name: "success"})
    wide["vector"] = question.name
    return wide.astype({"success": bool, "valid": bool})


def _summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per configuration and run: the success rate with its interval."""
    keys = ["vector", "layer", "coefficient", "run"]
    rates = [
        {**dict(zip(keys, key, strict=True)), **vars(proportion(group["success"].tolist()))}
        for key, group in rows.groupby(keys, dropna=False, sort=False)
    ]
    return pd.DataFrame(rates)


def _report(rows: pd.DataFrame, asked: Sequence[Question], console: Console) -> None:
    """Success and validity of the clean run, the chosen configuration and its controls."""
    for question in asked:
        heading(console, f"{question.name}: {question.task.wanted}, 95% intervals")
        here = (rows["layer"] == question.layer) & (rows["coefficient"] == question.coefficient)
        chosen = here.fillna(False) | (rows["run"] == "clean")
        own = rows[chosen & (rows["vector"] == question.name)]
        for run, group in own.groupby("run", sort=False):
            success = proportion(group["success"].tolist()).percent()
            valid = proportion(group["valid"].tolist()).percent()
            _say(console, f"  {run:8} {success:24} (all valid: {valid})")


def _draw(rates: pd.DataFrame, asked: Sequence[Question], out: Path) -> list[Path]:
    at = {q.name: q for q in asked}
    clean = rates["run"] == "clean"
    same_c = rates["coefficient"] == rates["vector"].map(lambda name: at[name].coefficient)
    same_layer = rates["layer"] == rates["vector"].map(lambda name: at[name].layer)
    cuts = {
        out / "layer_profile.png": (plots.layer_profile, clean | same_c),
        out / "coefficient_curve.png": (plots.coefficient_curve, clean | same_layer),
    }
    note = f"bands: 95% intervals, n = {rates['n'].max()} prompts"
    for path, (figure, chosen) in cuts.items():
        drawn = figure(rates[chosen], ylabel="successful completions", unit="%", note=note)
        plots.save(drawn, path)
    return list(cuts)
