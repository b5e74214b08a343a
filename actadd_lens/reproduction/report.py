"""Outcomes as Markdown: one report for each experiment, one for all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actadd_lens.reproduction.criteria import Verdict, criteria, question, set_up
from actadd_lens.reproduction.outcome import Kept

WORDS = ("reproduced", "not reproduced", "not testable here")


@dataclass(frozen=True)
class Description:
    """What an experiment says of itself."""

    name: str
    docstring: str
    paper: str
    """Set-up and figures that the paper reports, or that it reports none."""
    differs: str
    """What is done otherwise than in the paper, beside model and data."""


def report(about: Description, kept: Kept, *, level: int = 1, figure: str) -> str:
    """The report of an experiment.

    Args:
        about: The experiment.
        kept: What came of it.
        level: Of its heading.
        figure: Path of the figure, from where the report stands.
    """
    heads = "#" * level
    parts = [
        f"{heads} {about.name}",
        f"**{question(about.docstring)}**",
        set_up(about.docstring),
        _lines(_setting(kept)),
        f"![{about.name}]({figure})",
        _table(kept.shown),
        _answers(about, kept.verdicts),
        f"**The paper.** {about.paper}",
        f"**What differs.** {about.differs}",
        f"    {kept.command}\n\ntook {kept.seconds:.0f} s, since it was last resumed if it was. "
        "Brackets are 95 % intervals, over prompts unless it says otherwise; every value is in "
        "`rows.parquet`, every mean in `summary.csv`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def overview(found: Sequence[tuple[Description, Kept]]) -> str:
    """A table of every criterion with its verdict, and how many are reproduced.

    It links to the headings of reports in the same document.
    """
    verdicts = [verdict for _, kept in found for verdict in kept.verdicts]
    counted = Counter(verdict.word for verdict in verdicts if verdict.key.startswith("F"))
    tally = ", ".join(f"{counted[word]} {word}" for word in WORDS)
    lines = [
        {
            "experiment": f"[{about.name}](#{about.name})",
            "criterion": f"{verdict.key}. {criteria(about.docstring)[verdict.key]}",
            "verdict": f"**{verdict.word}**",
            "figures": verdict.shown,
        }
        for about, kept in found
        for verdict in kept.verdicts
    ]
    intro = (
        f"Of {sum(counted.values())} findings of the paper (F): {tally}. Criteria marked Q are "
        "questions that the paper leaves open. Each verdict is computed from the figures by the "
        "criterion beside it, which stands in the docstring of the experiment."
    )
    caveat = str(found[0][1].provenance["caveat"])
    return "\n\n".join(part for part in (intro, caveat, _table(lines)) if part)


def _setting(kept: Kept) -> dict[str, str]:
    made = kept.provenance
    sampling = ", ".join(f"{name} {value}" for name, value in made["sampling"].items())
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return {
        "model": f"{made['model']} (weights {made['weights']}, {made['precision']})",
        "material": made["material"],
        **kept.facts,
        "sampling": f"{sampling}, seed {made['seed']}; the same in every run",
        "versions": versions,
    }


def _answers(about: Description, verdicts: Sequence[Verdict]) -> str:
    asked = criteria(about.docstring)
    return _table(
        [
            {
                "criterion": f"{v.key}. {asked[v.key]}",
                "verdict": f"**{v.word}**",
                "figures": v.shown,
            }
            for v in verdicts
        ]
    )


def _lines(pairs: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in pairs.items())


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; what would end a cell is escaped."""
    if not rows:
        return ""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([_cell(row[name]) for name in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", r"\|").replace("\n", " ").replace("<", "&lt;")
