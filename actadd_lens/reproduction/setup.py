"""What an experiment runs on, and how it measures."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from actadd_lens.metrics.registry import Metric
from actadd_lens.models import bridge
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import tokenize
from actadd_lens.reproduction.concepts import Concept, Material, Sound
from actadd_lens.reproduction.readings import Readings
from actadd_lens.reproduction.sizes import Sizes
from actadd_lens.reproduction.work import Ask
from actadd_lens.sweeps import Best, Result, SweepResult
from actadd_lens.sweeps.configurations import STEERED, Configuration, Grid, Run, clean_configuration
from actadd_lens.sweeps.controls import Steered, make_control
from actadd_lens.sweeps.identity import fingerprint, hashed
from actadd_lens.sweeps.measurement import Measurement
from actadd_lens.sweeps.measuring import measure
from actadd_lens.vectors.extraction import extract, mean_differences
from actadd_lens.vectors.files import prepare_directory
from actadd_lens.vectors.pair import ContrastPair
from actadd_lens.vectors.provenance import source
from actadd_lens.vectors.vector import SteeringVector

BASELINES = ("random", "random:1", "random:2", "negated", "prompted", "mean_difference")
"""Beside the clean run, in every table."""
SEARCHED = (1.0, 2.0, 4.0, 6.0)
"""Coefficients that are tried where none is known."""
MEAN_LAYERS = 6
"""Layers at most that a mean difference is tried at."""
LAYER_AXES = ("layer", "recorded")
"""Labels of cells that more layers of a model give more values."""
MEAN_SEARCHED = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
"""Coefficients of the mean difference, which is added at every position, not at a few."""


@dataclass(frozen=True)
class Setup:
    """A model with its material, and how much is measured of it."""

    model: Bridge
    """Any TransformerBridge with a tokenizer."""
    material: Material
    """What it is asked."""
    sizes: Sizes
    """How much is measured."""
    directory: Path
    """Of the experiment that is run: what is measured is committed to files in it."""
    seed: int = 0
    """Of completions and of random vectors."""
    progress: bool = True
    """Whether to show progress."""
    batch_size: int | None = None
    """Completions decoded at once; they do not depend on it."""
    asked: list[Ask] = field(default_factory=list, compare=False)
    """What was asked of the model until now."""
    found: dict[str, str] = field(default_factory=dict, compare=False)
    """What was searched for until now, for reports."""
    _searched: dict[str, Best] = field(default_factory=dict, compare=False)
    """The best cell of each search, by its name."""

    @property
    def searches(self) -> Path:
        """Where searches are kept, for all experiments beside this one."""
        return self.directory.parent / "searches"

    @property
    def n_layers(self) -> int:
        """Of the model."""
        return bridge.n_layers(self.model)

    @cached_property
    def layers(self) -> list[int]:
        """Layers to try: all, or as many as the sizes allow, spread evenly."""
        n, most = self.n_layers, min(self.n_layers, self.sizes.layers)
        return sorted({round(i * (n - 1) / max(1, most - 1)) for i in range(most)})

    @cached_property
    def sampling(self) -> dict[str, Any]:
        """Sampling options of every run."""
        return {"max_new_tokens": self.sizes.new_tokens, **self.material.sampling}

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides the figures: model, material, sizes, sampling, seed, versions."""
        return {
            "model": str(self.model.cfg.model_name),
            "weights": fingerprint(self.model),
            "precision": str(self.model.cfg.dtype),
            "material": self.material.name,
            "caveat": self.material.caveat,
            "sizes": asdict(self.sizes),
            "sampling": self.sampling,
            "seed": self.seed,
            "versions": source(self.model)["versions"],
        }

    def concept(self, name: str) -> Concept:
        """A concept with as many prompts as the sizes say, each as long as its pairs."""
        return self.material.concept(name).fitted(self.model, self.sizes.prompts)

    def cell(self, concept: Concept) -> tuple[int, float]:
        """Its layer and coefficient: known ones, or the best of a search on selection prompts.

        The search is over every layer and ``SEARCHED``; of equal cells the one of the least
        coefficient, then the lowest layer is taken.
        """
        if concept.cell is not None:
            return concept.cell
        grid = Grid({concept.name: concept.pair}, tuple(self.layers), SEARCHED, ("front",), ())
        cells = list(grid.configurations(self.model, self.seed))
        best = self._best(self._search_of(concept), cells, concept)
        return best.layer, best.coefficient

    @staticmethod
    def _search_of(concept: Concept, kind: str = "search") -> str:
        """What a search is called, here and in its file."""
        return f"{kind}_{concept.name}_{hashed(concept.selection)}"

    def _best(self, name: str, cells: Sequence[Configuration], concept: Concept) -> Best:
        """The cell with the most sound successes on the selection prompts.

        It is searched for once, and kept beside the experiments' directories for all of them.
        """
        if name not in self._searched:
            place = prepare_directory(self.searches)
            found = self.measured(
                name, cells, concept.selection, [self.sought(concept)], directory=place
            )
            result = SweepResult(found.frame, found.provenance)
            self._searched[name] = result.best(Sound.name)
        return self._searched[name]

    def sought(self, concept: Concept) -> Sound:
        """What a search for the concept's layer or coefficient looks for."""
        return Sound(concept.success, self.material.coherence)

    def vector(self, pair: ContrastPair, layer: int) -> SteeringVector:
        """The vector of a pair."""
        return extract(self.model, pair, [layer])[layer]

    def baselines(self, concept: Concept) -> list[Configuration]:
        """The clean run, the steered one at the concept's cell, and every baseline.

        The mean difference has a coefficient of its own, searched for: it is added at every
        position, so that of the pair would not suit it.
        """
        layer, c = self.cell(concept)
        steered = self.arms(concept, self.vector(concept.pair, layer), c)
        mean, found = self.mean_difference(concept)
        where = {**_labels(concept, mean, found), "run": "mean_difference"}
        return [clean_configuration(), *steered, Configuration(where, Run((found * mean,)))]

    def arms(
        self,
        concept: Concept,
        vector: SteeringVector,
        c: float,
        controls: Sequence[str] = BASELINES[:-1],
        **labels: Any,
    ) -> list[Configuration]:
        """The cell of a vector of a concept, and those of its controls.

        Args:
            concept: What it is for; "prompted" puts its positive prompt in front.
            vector: Without its coefficient.
            c: The coefficient.
            controls: By name; see ``sweep``.
            **labels: Of these cells, in place of the vector's own or beside them.
        """
        where = {**_labels(concept, vector, c), **labels}
        cells = [Configuration({**where, "run": STEERED}, Run((c * vector,)))]
        for name in controls:
            run = (
                Run(prefix=concept.pair.positive)
                if name == "prompted"
                else Run((make_control(name, Steered(c * vector, self.seed)),))
            )
            cells.append(Configuration({**where, "run": name}, run))
        return cells

    def grid(
        self, concept: Concept, layers: Sequence[int], coefficients: Sequence[float]
    ) -> list[Configuration]:
        """Every layer and coefficient with every baseline, and the clean run.

        The mean difference has the coefficient of its cell here.
        """
        pairs = {concept.name: concept.pair}
        pairs |= {f"other {i}": pair for i, pair in enumerate(concept.others)}
        grid = Grid(
            pairs, tuple(layers), tuple(map(float, coefficients)), ("front",), BASELINES,
            only=concept.name,
        )  # fmt: skip
        return list(grid.configurations(self.model, self.seed))

    def mean_difference(self, concept: Concept) -> tuple[SteeringVector, float]:
        """Contrastive activation addition as it does best, and its coefficient.

        What is searched on the selection prompts: the coefficient; the layer, of some spread
        evenly; and the token that the differences are taken at, the last of a pair or the one
        before it, as the last may be a full stop.
        """
        layers = self.layers[:: -(-len(self.layers) // MEAN_LAYERS)]
        means = {
            f"token {token}": mean_differences(self.model, concept.pairs, layers, token)
            for token in (-1, -2)
        }
        cells = [
            cell
            for token, by_layer in means.items()
            for mean in by_layer.values()
            for c in MEAN_SEARCHED
            for cell in self.arms(concept, mean, c, (), pair=token)
        ]
        best = self._best(
            self._search_of(concept, "search_mean"), [clean_configuration(), *cells], concept
        )
        self.found[f"mean difference for {concept.name}"] = (
            f"of {len(concept.pairs)} pairs, {best.pair}, coefficient {best.coefficient:g}, at "
            f"every position of layer {best.layer}; {_chosen(best)}, where "
            f"{100 * best.value.mean:.0f} % are sound successes"
        )
        return means[best.pair][best.layer], best.coefficient

    def measured(
        self,
        name: str,
        cells: Sequence[Configuration],
        prompts: Sequence[str],
        metrics: Sequence[Metric],
        *,
        samples: int | None = None,
        directory: Path | None = None,
    ) -> Result:
        """Run cells on prompts; what is made is kept in a file of the experiment's directory.

        Args:
            name: Of the file; once in an experiment.
            cells: The clean one first.
            prompts: Texts to continue or read.
            metrics: Of completions or of logits.
            samples: Completions a prompt, as the sizes say by default; 0 for logit metrics alone.
            directory: Of the file, where it is not the experiment's.

        Raises:
            KeyboardInterrupt: It was interrupted; the file goes on from there.
        """
        n = self.sizes.samples if samples is None else samples
        options = {**self.sampling, "batch_size": self.batch_size} if n else {}
        self.asked.append(self._ask(name, cells, prompts, metrics, n))
        found = measure(Measurement.of(
            self.model, cells, prompts, metrics,
            {"kind": name, "cells": _described(cells)},
            samples=n, seed=self.seed, store=(directory or self.directory) / f"{name}.sqlite",
            progress=self.progress, **options,
        ))  # fmt: skip
        if not found.complete:
            raise KeyboardInterrupt
        return found

    def _ask(
        self,
        name: str,
        cells: Sequence[Configuration],
        prompts: Sequence[str],
        metrics: Sequence[Metric],
        samples: int,
    ) -> Ask:
        runs = list(dict.fromkeys(cell.run for cell in cells))
        layers = [run.steering[0].layer if run.steering else 0 for run in runs]
        by_layer = max((_by_label(cells, axis) for axis in LAYER_AXES), key=len)
        # A prompt in words is the same run at every layer.
        shared = set.intersection(*by_layer.values()) if by_layer else set()
        return Ask(
            name,
            len(runs),
            len(prompts),
            sum(map(len, tokenize(self.model, prompts))) / len(prompts),
            "prompts",
            samples,
            self.sizes.new_tokens if samples else 0,
            len(by_layer),
            min((len(own - shared) for own in by_layer.values()), default=0),
            1 - sum(layers) / len(layers) / self.n_layers,
            judged=any(getattr(metric, "reads_again", False) for metric in metrics),
        )

    def readings(self, name: str, *measured: Any, **options: Any) -> Readings:
        """``measured``, with means and paired changes at hand."""
        return Readings(self.measured(name, *measured, **options))

    def said(self, concept: Concept) -> dict[str, str]:
        """Lines of a set-up: the concept's pair, layer and coefficient, and prompts."""
        layer, c = self.cell(concept)
        known = concept.cell is not None
        how = concept.origin if known else _chosen(self._searched[self._search_of(concept)])
        short = len(concept.test) < self.sizes.prompts
        asked = f" ({self.sizes.prompts} asked for)" if short else ""
        return {
            "vector": f"{concept.pair.positive!r} - {concept.pair.negative!r} at layer {layer} of "
            f"{self.n_layers}, coefficient {c:g} ({how}), front",
            "prompts": f"{len(concept.test)}{asked}, for {concept.wanted}",
        }


def _chosen(best: Best) -> str:
    """How a cell came about."""
    if best.tied == best.searched > 1:
        return f"the first of {best.searched} cells, which all tie on the selection prompts"
    return f"the best of {best.searched} cells on {best.value.n} selection prompts"


def _labels(concept: Concept, vector: SteeringVector, c: float) -> dict[str, Any]:
    """Where a vector stands in a table."""
    return {
        "pair": concept.name,
        "layer": vector.layer,
        "coefficient": c,
        "position": vector.position,
    }


def _by_label(cells: Sequence[Configuration], name: str) -> dict[Any, set[Run]]:
    """Runs by the value of a label, those of cells that have one."""
    found: dict[Any, set[Run]] = {}
    for cell in cells:
        if cell.labels.get(name) is not None:
            found.setdefault(cell.labels[name], set()).add(cell.run)
    return found


def _described(cells: Sequence[Configuration]) -> str:
    """A hash of everything that is run."""
    digest = hashlib.sha256()
    for cell in cells:
        digest.update(json.dumps(dict(cell.labels), sort_keys=True).encode())
        digest.update(cell.run.prefix.encode())
        for vector in cell.run.steering:
            digest.update(f"{vector.hook_point} {vector.position} {vector.rows.shape}".encode())
            digest.update(vector.rows.numpy().tobytes())
    return digest.hexdigest()[:16]
