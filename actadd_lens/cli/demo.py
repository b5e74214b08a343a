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


def questions(n: int = N_PROMPTS) -> list[Question]:
    """Sentiment and topic on `n` test prompts each, at the recommended layers and coefficients."""
    tasks = [testbed.TASKS[name] for name in ("sentiment", "topic")]
    return [
        Question(task, testbed.prompts(task.prompts, "test", n), *testbed.recommended(task.name))
        for task in tasks
    ]


def run_demo(
    model: Bridge, asked: Sequence[Question], out: Path, *, console: Console, progress: bool
) -> list[Path]:
    """Steer the model, print the results, write figures, rows and vectors to a directory.

    Returns:
        The files written.

    Raises:
        OutputError: The directory or a file in it cannot be written.
    """
    prepare_directory(out)
    vectors = {}
    for question in asked:
        vector = SteeringVector.from_pair(model, question.task.pair, question.layer)
        vectors[question.task.name] = question.coefficient * vector
        _show(model, question, vectors[question.task.name], console)

    rows = pd.concat([_measured(model, q, progress) for q in asked], ignore_index=True)
    _report(rows, asked, console)

    written = [out / "rows.csv", *_draw(rows, asked, out)]
    write_atomically(written[0], rows.to_csv(index=False).encode())
    for name, vector in vectors.items():
        written.append(out / f"{name}.safetensors")
        vector.save(written[-1])
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


def _show(model: Bridge, question: Question, steering: SteeringVector, console: Console) -> None:
    pair = question.task.pair
    heading(console, f"{question.task.name}: {question.task.wanted}")
    at = f"layer {question.layer}, coefficient {question.coefficient:g}"
    _say(console, f'"{pair.positive}" - "{pair.negative}", {at}')
    prompts = list(question.prompts[:SHOWN])
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
            {task.name: task.pair},
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
    wide = wide.rename(columns={Success(task).name: "success"}).assign(vector=task.name)
    return wide.astype({"success": bool, "valid": bool})


def _report(rows: pd.DataFrame, asked: Sequence[Question], console: Console) -> None:
    """Success and validity of the clean run, the chosen configuration and its controls."""
    for question in asked:
        heading(console, f"{question.task.name}: {question.task.wanted}, 95% intervals")
        here = (rows["layer"] == question.layer) & (rows["coefficient"] == question.coefficient)
        chosen = here.fillna(False) | (rows["run"] == "clean")
        own = rows[chosen & (rows["vector"] == question.task.name)]
        for run, group in own.groupby("run", sort=False):
            success = proportion(group["success"].tolist()).percent()
            valid = proportion(group["valid"].tolist()).percent()
            _say(console, f"  {run:8} {success:24} (all valid: {valid})")


def _draw(rows: pd.DataFrame, asked: Sequence[Question], out: Path) -> list[Path]:
    """Success rates with their intervals, along layers and along coefficients."""
    keys = ["vector", "layer", "coefficient", "run"]
    rates = pd.DataFrame(
        {**dict(zip(keys, key, strict=True)), **vars(proportion(group["success"].tolist()))}
        for key, group in rows.groupby(keys, dropna=False, sort=False)
    )
    note = f"bands: 95% intervals, n = {rates['n'].max()} prompts"
    written = []
    for draw, fixed in ((plots.layer_profile, "coefficient"), (plots.coefficient_curve, "layer")):
        recommended = {question.task.name: getattr(question, fixed) for question in asked}
        chosen = (rates["run"] == "clean") | (rates[fixed] == rates["vector"].map(recommended))
        figure = draw(rates[chosen], ylabel="successful completions", unit="%", note=note)
        written.append(plots.save(figure, out / f"{draw.__name__}.png"))
    return written
