"""Controls: what a steered cell is set beside, by name.

"random" adds rows of the same norms in random directions, "random:1", "random:2", ... other draws
of the same; "negated" the vector's negative; "shuffled" the vector's rows in another order;
"prompted" steers nothing, but puts the positive prompt in front as text; "mean_difference" is
contrastive activation addition over all pairs of the sweep, at position "all".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from actadd_lens.errors import SweepError
from actadd_lens.models.base import Bridge
from actadd_lens.sweeps.cells import CLEAN, STEERED, Run
from actadd_lens.vectors.extraction import mean_differences
from actadd_lens.vectors.pair import ContrastPair
from actadd_lens.vectors.vector import SteeringVector

NAMES = ("random", "negated", "prompted", "shuffled", "mean_difference")
DEFAULT = ("random", "negated")


def check_controls(controls: Sequence[str], n_pairs: int) -> None:
    """Raise ``SweepError`` for a control that is unknown, named twice, or not to be had."""
    if isinstance(controls, str):
        raise SweepError(f"controls is {controls!r}: give a list, [{controls!r}]")
    for control in controls:
        if control not in NAMES and _draw(control) is None:
            why = ""
            if control in (STEERED, CLEAN):
                why = f" ({control!r} cells are always there)"
            raise SweepError(
                f"unknown control {control!r}{why}: choose from {', '.join(NAMES)}, and "
                "random:1, random:2, ... for more draws"
            )
        if list(controls).count(control) > 1:
            raise SweepError(f"control {control!r} given more than once: name each once")
    if "mean_difference" in controls and n_pairs < 2:
        raise SweepError(
            f"control 'mean_difference' is over several pairs, the sweep has {n_pairs}: "
            "give more pairs, or leave it out"
        )


@dataclass
class Controls:
    """Makes the runs of controls; what does not depend on the cell is made once."""

    model: Bridge
    names: Sequence[str]
    pairs: Sequence[ContrastPair]
    layers: Sequence[int]
    seed: int
    _prompted: dict[ContrastPair, Run] = field(default_factory=dict)
    _differences: dict[tuple[int, float], Run] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_controls(self.names, len(self.pairs))
        wanted = self.layers if "mean_difference" in self.names else ()
        self._means = mean_differences(self.model, self.pairs, wanted) if wanted else {}

    def run(self, name: str, pair: ContrastPair, vector: SteeringVector, c: float) -> Run:
        """The control ``name`` of a cell: its pair, its vector times c, and c."""
        if name == "prompted":
            return self._prompted.setdefault(pair, Run(prefix=pair.positive))
        if name == "mean_difference":
            layer = vector.layer
            run = Run((c * self._means[layer],))
            return self._differences.setdefault((layer, c), run)
        return Run((control_vector(name, vector, self.seed),))


def control_vector(name: str, vector: SteeringVector, seed: int) -> SteeringVector:
    """A control that is made of the vector alone."""
    if name == "negated":
        return -vector
    if name == "shuffled":
        return vector.shuffled(seed) if vector.rows.any() else vector
    return vector.random_like((seed + (_draw(name) or 0)) % 2**64)


def _draw(control: str) -> int | None:
    """0 for "random", k for "random:k", None for anything else.

    >>> _draw("random:2")
    2
    """
    found = re.fullmatch(r"random(?::([1-9]\d{0,5}))?", str(control))
    return int(found[1] or 0) if found else None
