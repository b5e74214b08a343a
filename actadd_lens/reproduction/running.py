"""Running experiments so that they can be interrupted, and writing their reports.

Each has a directory of its own: ``setup.json`` says what decides its figures, files of SQLite hold
what is measured as it is made, ``outcome.json`` and what stands beside it is there once all is. The
same call goes on where it was stopped. Other settings in the same place are refused.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from actadd_lens.errors import ActAddError, ExperimentError, OutputError
from actadd_lens.models.base import Bridge
from actadd_lens.reproduction.catalogue import NAMES, Experiment, check_names, experiment
from actadd_lens.reproduction.concepts import Material
from actadd_lens.reproduction.criteria import check_answered, criteria
from actadd_lens.reproduction.outcome import Kept, keep, kept_in
from actadd_lens.reproduction.report import overview, report
from actadd_lens.reproduction.setup import Setup
from actadd_lens.reproduction.sizes import Sizes
from actadd_lens.sweeps.identity import plain
from actadd_lens.sweeps.store import differences
from actadd_lens.vectors.files import prepare_directory, write_atomically


def reproduce(
    model: Bridge,
    material: Material,
    names: Sequence[str],
    out: Path,
    *,
    sizes: Sizes,
    seed: int = 0,
    command: str = "actadd-lens reproduce",
    progress: bool = True,
    batch_size: int | None = None,
    told: Callable[[Experiment, Kept, bool], None] = lambda *_: None,
) -> list[Kept]:
    """Run experiments, those that are not done yet, and write a report of each and of all there.

    Args:
        model: Any TransformerBridge with a tokenizer.
        material: What it is asked: ``Bundled`` or ``Real``.
        names: Of experiments.
        out: Directory; each experiment has one in it.
        sizes: How much is measured.
        seed: Of completions and random vectors.
        command: What the reports say they were made by, without the name of the experiment.
        progress: Whether to show progress.
        batch_size: Completions decoded at once; by default as ``generate`` has it.
        told: Called with every experiment, its outcome, and whether it was there already.

    Raises:
        ExperimentError: An unknown name, or several experiments of which some failed; the others
            were run.
        OutputError: ``out`` holds results of other settings, or can't be written to.
        KeyboardInterrupt: It was interrupted; the same call goes on from there.
    """
    check_names(names)
    found, failed = [], {}
    for name in names:
        own = experiment(name)
        setup = Setup(
            model, material, sizes, prepare_directory(out / name), seed, progress, batch_size
        )
        try:
            kept, was_there = _run(own, setup, f"{command} {name}")
        except ActAddError as error:
            if len(names) == 1:
                raise
            failed[name] = str(error)
            continue
        found.append(kept)
        told(own, kept, was_there)
        write_atomically(out / "report.md", _together(out).encode())
    if failed:
        said = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise ExperimentError(f"{len(failed)} of {len(names)} experiments failed: {said}")
    return found


def _run(own: Experiment, setup: Setup, command: str) -> tuple[Kept, bool]:
    """The outcome of an experiment, and whether it was there already."""
    made = plain(setup.provenance)
    _begin(setup.directory, {**made, "experiment": own.fingerprint})
    _begin(prepare_directory(setup.searches), made)
    kept = kept_in(setup.directory)
    was_there = kept is not None
    if kept is None:
        started = time.perf_counter()
        outcome = own.run(setup)
        check_answered(own.about.docstring, outcome.verdicts)
        kept = keep(own.name, outcome, setup, time.perf_counter() - started, command)
    text = report(own.about, kept, figure="figure.png")
    write_atomically(setup.directory / "report.md", text.encode())
    return kept, was_there


def _begin(directory: Path, made: dict[str, Any]) -> None:
    """Note what decides the figures in a directory; refuse one where something else did."""
    place = directory / "setup.json"
    if not place.exists():
        write_atomically(place, json.dumps(made, indent=1).encode())
        return
    try:
        before = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot read {place} ({error}): remove {directory}") from error
    others = [d for d in differences(before, made) if not d.startswith("versions")]
    if others:
        raise OutputError(
            f"{directory} holds results of other settings ({'; '.join(others)}): choose another "
            "directory (--out), or remove it"
        )


def _together(out: Path) -> str:
    """One report of every outcome there: all criteria with their verdicts, then each experiment."""
    done = []
    for name in NAMES:
        own, kept = experiment(name), kept_in(out / name)
        if kept is not None and [v.key for v in kept.verdicts] == [*criteria(own.about.docstring)]:
            done.append((own.about, kept))
    parts = [f"# The paper's experiments on {done[0][1].provenance['model']}", overview(done)]
    for about, kept in done:
        parts.append(report(about, kept, level=2, figure=f"{about.name}/figure.png"))
    return "\n\n".join(parts)
