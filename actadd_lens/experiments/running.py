"""Running experiments so that they can be interrupted, and writing their reports.

Each has a directory of its own: ``setup.json`` says what decides its figures, files of SQLite hold
what is measured as it is made, ``outcome.json`` and what stands beside it is there once all is. The
same call goes on where it was stopped. Other settings in the same place are refused.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from actadd_lens.errors import OutputError
from actadd_lens.experiments.catalogue import Experiment, check_names, experiment
from actadd_lens.files import prepare_directory, write_atomically
from actadd_lens.forward import Bridge
from actadd_lens.harness.concepts import Material
from actadd_lens.harness.criteria import check_answered
from actadd_lens.harness.outcome import Kept, keep, kept_in
from actadd_lens.harness.report import overview, report
from actadd_lens.harness.setup import Setup
from actadd_lens.harness.sizes import Sizes
from actadd_lens.sweeps.identity import plain
from actadd_lens.sweeps.settings import differences


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
    """Run experiments, those that are not done yet, and write a report of each and of all.

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
        ExperimentError: An unknown name.
        OutputError: ``out`` holds results of other settings, or can't be written to.
        KeyboardInterrupt: It was interrupted; the same call goes on from there.
    """
    check_names(names)
    done: list[tuple[Experiment, Kept]] = []
    for name in names:
        own = experiment(name)
        directory = prepare_directory(out / name)
        setup = Setup(model, material, sizes, directory, seed, progress, batch_size)
        _begin(setup)
        kept = kept_in(directory)
        fresh = kept is None
        if kept is None:
            kept = _run(own, setup)
        text = report(own.about, kept, f"{command} {name}", figure="figure.png")
        write_atomically(directory / "report.md", text.encode())
        done.append((own, kept))
        told(own, kept, not fresh)
    write_atomically(out / "report.md", _together(done, command).encode())
    return [kept for _, kept in done]


def _begin(setup: Setup) -> None:
    """Note what decides the figures; refuse a place where something else did."""
    place = setup.directory / "setup.json"
    made = plain(setup.provenance)
    if not place.exists():
        write_atomically(place, json.dumps(made, indent=1).encode())
        return
    try:
        before = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot read {place} ({error}): remove {setup.directory}") from error
    others = [d for d in differences(before, made) if not d.startswith("versions")]
    if others:
        raise OutputError(
            f"{setup.directory} holds results of other settings ({'; '.join(others)}): choose "
            "another --out, or remove it"
        )


def _run(own: Experiment, setup: Setup) -> Kept:
    started = time.perf_counter()
    outcome = own.run(setup)
    check_answered(own.about.docstring, outcome.verdicts)
    return keep(own.name, outcome, setup, time.perf_counter() - started)


def _together(done: Sequence[tuple[Experiment, Kept]], command: str) -> str:
    """One report: every criterion with its verdict, then each experiment."""
    parts = [
        f"# The paper's experiments on {done[0][1].provenance['model']}",
        overview([(own.about, kept) for own, kept in done]),
    ]
    for own, kept in done:
        figure = f"{own.name}/figure.png"
        parts.append(report(own.about, kept, f"{command} {own.name}", level=2, figure=figure))
    return "\n\n".join(parts)
