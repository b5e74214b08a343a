"""Running experiments so that they can be interrupted, and writing their reports.

Each has a directory of its own: ``setup.json`` says what decides its values, SQLite files hold
completions and values as they are made, ``measured.json`` is there once all is measured, and
``outcome.json`` once that is judged. The same call continues where it was stopped. Other settings
in the same place are refused.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actadd_lens.errors import ActAddError, ExperimentError, OutputError
from actadd_lens.models.base import Bridge
from actadd_lens.reproduction.concepts import DataSet
from actadd_lens.reproduction.outcome import Measured, SavedOutcome, save, saved_in
from actadd_lens.reproduction.registry import Experiment, check_names, named, names
from actadd_lens.reproduction.report import overview, report
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.sizes import Sizes
from actadd_lens.sweeps.identity import plain
from actadd_lens.sweeps.store import differences
from actadd_lens.vectors.files import prepare_directory, write_atomically


def reproduce(
    model: Bridge,
    data: DataSet,
    chosen: Sequence[str],
    out: Path,
    *,
    sizes: Sizes,
    seed: int = 0,
    command: str = "actadd-lens reproduce",
    progress: bool = True,
    batch_size: int | None = None,
    on_done: Callable[[Experiment, SavedOutcome, bool], None] = lambda *_: None,
) -> list[SavedOutcome]:
    """Run the experiments that are not done yet, and write a report of each and one of all there.

    Args:
        model: Any TransformerBridge with a tokenizer.
        data: ``Bundled`` for the testbed, or ``Real``.
        chosen: Names of experiments.
        out: Directory; each experiment gets one in it.
        sizes: How much is measured.
        seed: Of completions and random vectors.
        command: What the reports say they were made by, without the name of the experiment.
        progress: Whether to show progress.
        batch_size: Completions decoded at once; by default as ``generate`` has it.
        on_done: Called with every experiment, its outcome, and whether it was there already.

    Raises:
        ExperimentError: An unknown name, or several experiments of which some failed; the others
            were run.
        OutputError: ``out`` holds results of other settings, or cannot be written to.
        KeyboardInterrupt: It was interrupted; the same call continues from there.
    """
    check_names(chosen)
    found, failed = [], {}
    for name in chosen:
        own = named(name)
        setup = Setup(model, data, sizes, prepare_directory(out / name), seed, progress, batch_size)
        try:
            saved, was_there = _run(own, setup, f"{command} {name}")
        except ActAddError as error:
            if len(chosen) == 1:
                raise
            failed[name] = str(error)
            continue
        found.append(saved)
        on_done(own, saved, was_there)
        write_atomically(out / "report.md", _together(out).encode())
    if failed:
        reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise ExperimentError(f"{len(failed)} of {len(chosen)} experiments failed: {reasons}")
    return found


def _run(own: Experiment, setup: Setup, command: str) -> tuple[SavedOutcome, bool]:
    """The outcome of an experiment, and whether it was there already."""
    provenance = plain(setup.provenance)
    _begin(setup.directory, {**provenance, "experiment": own.identity})
    _begin(prepare_directory(setup.searches), provenance)
    saved = saved_in(setup.directory)
    was_there = saved is not None
    if saved is None:
        started = time.perf_counter()
        measured = Measured.load(setup.directory)
        if measured is None:
            measured = own.measure(setup)
            measured = replace(measured, facts={**measured.facts, **setup.searched})
            measured.save(setup.directory)
        saved = save(
            setup.directory, own.name, measured,
            own.verdicts(measured), own.table(measured), own.figure(measured),
            provenance=provenance, command=command, seconds=time.perf_counter() - started,
        )  # fmt: skip
    text = report(own, saved, figure="figure.png")
    write_atomically(setup.directory / "report.md", text.encode())
    return saved, was_there


def _begin(directory: Path, settings: dict[str, Any]) -> None:
    """Note what decides the values in a directory; refuse one with other settings."""
    place = directory / "setup.json"
    if not place.exists():
        write_atomically(place, json.dumps(settings, indent=1).encode())
        return
    try:
        before = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot read {place} ({error}): remove {directory}") from error
    others = [d for d in differences(before, settings) if not d.startswith("versions")]
    if others:
        raise OutputError(
            f"{directory} holds results of other settings ({'; '.join(others)}): choose another "
            "directory (--out), or remove it"
        )


def _together(out: Path) -> str:
    """One report of every outcome there: all criteria with their verdicts, then each experiment."""
    done = []
    for name in names():
        own, saved = named(name), saved_in(out / name)
        if saved is not None and [v.key for v in saved.verdicts] == [c.key for c in own.criteria]:
            done.append((own, saved))
    parts = [f"# The paper's experiments on {done[0][1].provenance['model']}", overview(done)]
    for own, saved in done:
        parts.append(report(own, saved, level=2, figure=f"{own.name}/figure.png"))
    return "\n\n".join(parts)
