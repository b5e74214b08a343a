"""Outcomes as Markdown: one report for each experiment, one for all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from actadd_lens.reproduction.outcome import SavedOutcome
from actadd_lens.reproduction.registry import Experiment

WORDS = ("reproduced", "not reproduced", "not testable here")


def report(own: Experiment, saved: SavedOutcome, *, level: int = 1, figure: str) -> str:
    """The report of an experiment.

    Args:
        own: The experiment.
        saved: Its outcome.
        level: Of its heading.
        figure: Path of the figure, relative to the report.
    """
    parts = [
        f"{'#' * level} {own.name}",
        f"**{own.question}**",
        own.design,
        "\n".join(f"- {name}: {value}" for name, value in _setting(saved).items()),
        f"![{own.name}]({figure})",
        _table(saved.table),
        _table(_answers(own, saved)),
        f"**The paper.** {own.paper}",
        f"**What differs.** {own.differs}",
        f"    {saved.command}\n\ntook {saved.seconds:.0f} s, since it was last resumed if it was. "
        "Brackets are 95 % intervals, over prompts unless it says otherwise; every value is in "
        "`rows.parquet`, every mean in `summary.csv`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def overview(found: Sequence[tuple[Experiment, SavedOutcome]]) -> str:
    """A table of every criterion with its verdict, and how many are reproduced.

    It links to the headings of reports in the same document.
    """
    verdicts = [verdict for _, saved in found for verdict in saved.verdicts]
    counted = Counter(verdict.word for verdict in verdicts if verdict.key.startswith("F"))
    tally = ", ".join(f"{counted[word]} {word}" for word in WORDS)
    lines = [
        {"experiment": f"[{own.name}](#{own.name})", **answer}
        for own, saved in found
        for answer in _answers(own, saved)
    ]
    intro = (
        f"Of {sum(counted.values())} findings of the paper (F): {tally}. Criteria marked Q are "
        "questions that the paper leaves open. Each verdict is computed from the numbers next to "
        "it, by the criterion that the experiment's file states."
    )
    caveat = str(found[0][1].provenance["caveat"])
    return "\n\n".join(part for part in (intro, caveat, _table(lines)) if part)


def _setting(saved: SavedOutcome) -> dict[str, str]:
    made = saved.provenance
    sampling = ", ".join(f"{name} {value}" for name, value in made["sampling"].items())
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return {
        "model": f"{made['model']} (weights {made['weights']}, {made['precision']})",
        "data": made["data"],
        **saved.facts,
        "sampling": f"{sampling}, seed {made['seed']}; the same in every run",
        "versions": versions,
    }


def _answers(own: Experiment, saved: SavedOutcome) -> list[dict[str, str]]:
    return [
        {
            "criterion": f"{criterion.key}. {criterion.text}",
            "verdict": f"**{verdict.word}**",
            "numbers": verdict.evidence,
        }
        for criterion, verdict in zip(own.criteria, saved.verdicts, strict=True)
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; characters that would end a field are escaped."""
    if not rows:
        return ""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([_field(row[name]) for name in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _field(value: object) -> str:
    return str(value).replace("|", r"\|").replace("\n", " ").replace("<", "&lt;")
