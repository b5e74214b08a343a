"""What an ablation came to, and the cells it is made of."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actadd_lens.errors import SweepError, VectorError
from actadd_lens.models.base import Bridge
from actadd_lens.steering.hooks import as_vectors
from actadd_lens.sweeps import Result
from actadd_lens.sweeps.cells import STEERED, Cell, Run
from actadd_lens.sweeps.controls import check_controls, control_vector
from actadd_lens.sweeps.results import noted
from actadd_lens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
else:
    DataFrame = Figure = Any  # pandas and matplotlib are slow to import

CONTROLS = ("random",)
WHOLE = "whole"
"""What is called so is the vector as it was given."""


@dataclass(frozen=True, eq=False, repr=False)
class Ablation(Result):
    """Figures of the parts of a vector, or of the ways to make one."""

    @property
    def kind(self) -> str:
        """Which ablation it is."""
        return str(self.provenance["kind"])

    @property
    def cosines(self) -> DataFrame:
        """Of ``pair_variance``: cosine between the vectors of every two pairs.

        Raises:
            SweepError: Of any other ablation.
        """
        import pandas as pd

        if "cosines" not in self.provenance:
            raise SweepError(f"{self.kind} compares no pairs: al.pair_variance does")
        table = self.provenance["cosines"]
        return pd.DataFrame(table["values"], index=table["pairs"], columns=table["pairs"])

    def plot(self, metric: str | None = None, **options: Any) -> Figure:
        """The figure that belongs to the ablation.

        Args:
            metric: Which; the first by default.
            **options: Of ``plots.bars`` or ``plots.heat_map``, e.g. ``ylabel`` and ``unit``.

        Raises:
            SweepError: There is no such metric.
        """
        from actadd_lens import plots

        name = metric or self.metrics[0]
        cells = self.intervals(self.values_of(name))
        if self.kind == "layer_transplant":
            label = options.pop("ylabel", name)
            options.setdefault("note", self._note(noted(cells, options.get("unit"))))
            return plots.heat_map(cells, y="recorded", label=label, **options)
        options.setdefault("note", self._note(f"95 % intervals, n = {cells['n'].max()} prompts"))
        x, group = _AXES[self.kind]
        return plots.bars(cells, x=x, group=group, **{"ylabel": name, **options})


_AXES = {
    "position_ablation": ("part", "ablation"),
    "dimension_ablation": ("fraction", "ablation"),
    "pair_variance": ("pair", None),
    "steering_reach": ("step", None),
}


def arms(
    vector: SteeringVector,
    labels: dict[str, Any],
    controls: Sequence[str],
    seed: int,
) -> Iterator[Cell]:
    """The cell of a vector, and those of its controls."""
    where = {"layer": vector.layer, "position": vector.position, **labels}
    yield Cell({**where, "run": STEERED}, Run((vector,)))
    for name in controls:
        run = Run((control_vector(name, vector, seed),))
        yield Cell({**where, "run": name}, run)


def check_vector(model: Bridge, vector: SteeringVector) -> None:
    """Raise ``VectorError`` or ``LayerError`` unless it is one vector, fit for the model."""
    if not isinstance(vector, SteeringVector):
        raise VectorError(
            f"one SteeringVector is taken apart, not a {type(vector).__name__}: extract it first"
        )
    as_vectors(model, vector)


def check_vector_controls(controls: Sequence[str]) -> None:
    """Raise ``SweepError`` unless every control can be made of a vector alone."""
    check_controls(controls, n_pairs=1)
    for name in controls:
        if name in ("prompted", "shuffled"):
            raise SweepError(
                f"control {name!r} can't be made of a part of a vector: choose 'random', "
                "'random:1', ... or 'negated'"
            )


def described(vector: SteeringVector) -> dict[str, Any]:
    """A vector as plain JSON: where it acts, where it is from, and a hash of its rows."""
    digest = hashlib.sha256(vector.rows.numpy().tobytes()).hexdigest()[:16]
    return {
        "hook_point": vector.hook_point,
        "position": vector.position,
        "rows": f"{tuple(vector.rows.shape)} {digest}",
        "provenance": dict(vector.provenance),
    }
