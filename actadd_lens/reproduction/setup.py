"""What an experiment runs on, and how it measures."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from actadd_lens.errors import PromptError
from actadd_lens.metrics.registry import Metric
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.tokens import encode
from actadd_lens.reproduction.concepts import CoherentSuccess, Concept, DataSet, long_enough
from actadd_lens.reproduction.measurements import Measurements
from actadd_lens.reproduction.sizes import Sizes
from actadd_lens.sweeps import Best, Steered
from actadd_lens.sweeps.configurations import (
    Configuration,
    Run,
    clean_configuration,
    with_controls,
)
from actadd_lens.sweeps.grid import grid
from actadd_lens.sweeps.identity import fingerprint, hashed
from actadd_lens.sweeps.measurement import measure
from actadd_lens.sweeps.results import Result
from actadd_lens.vectors.extraction import extract, mean_differences
from actadd_lens.vectors.files import prepare_directory
from actadd_lens.vectors.pair import ContrastPair
from actadd_lens.vectors.provenance import source
from actadd_lens.vectors.vector import SteeringVector

BASELINES = ("random", "random:1", "random:2", "negated", "prompted", "mean_difference")
"""Runs that every table compares with, apart from the clean one."""
OF_VECTOR = BASELINES[:4]
"""Those that depend on the vector."""
SEARCHED = (1.0, 2.0, 4.0, 6.0)
"""Coefficients that are tried if none is known."""
MEAN_LAYERS = 6
"""Layers at most that a mean difference is tried at."""
MEAN_SEARCHED = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
"""Coefficients of the mean difference, which is added at every position, not at a few."""


@dataclass(frozen=True)
class Setup:
    """A model with its data set, and how much is measured."""

    model: Bridge
    """Any TransformerBridge with a tokenizer."""
    data: DataSet
    """Concepts, texts and judges."""
    sizes: Sizes
    """How much is measured."""
    directory: Path
    """Of the experiment: completions and values are committed to files in it."""
    seed: int = 0
    """Of completions and of random vectors."""
    progress: bool = True
    """Whether to show progress."""
    batch_size: int | None = None
    """Completions decoded at once; they do not depend on it."""
    searched: dict[str, str] = field(default_factory=dict, compare=False)
    """What was searched for until now, for reports."""
    _best: dict[str, Best] = field(default_factory=dict, compare=False)
    """The best configuration of each search, by its name."""

    @property
    def searches(self) -> Path:
        """Where searches are stored, for all experiments in the directory next to this one."""
        return self.directory.parent / "searches"

    @property
    def n_layers(self) -> int:
        """Of the model."""
        return BridgeModel(self.model).n_layers

    @cached_property
    def layers(self) -> list[int]:
        """Layers to try: all, or as many as the sizes allow, spread evenly."""
        n, most = self.n_layers, min(self.n_layers, self.sizes.layers)
        return sorted({round(i * (n - 1) / max(1, most - 1)) for i in range(most)})

    @cached_property
    def sampling(self) -> dict[str, Any]:
        """Sampling options of every run."""
        return {"max_new_tokens": self.sizes.new_tokens, **self.data.sampling}

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides the values: model, data, sizes, sampling, seed, versions."""
        return {
            "model": BridgeModel(self.model).name,
            "weights": fingerprint(self.model),
            "precision": str(BridgeModel(self.model).dtype),
            "data": self.data.name,
            "caveat": self.data.caveat,
            "sizes": asdict(self.sizes),
            "sampling": self.sampling,
            "seed": self.seed,
            "versions": source(self.model)["versions"],
        }

    def concept(self, name: str) -> Concept:
        """A concept with as many prompts as the sizes say, each as long as its pairs."""
        return self.data.concept(name).fitted(self.model, self.sizes.prompts)

    def topic(self) -> Concept:
        """The first topic: weddings."""
        return self.concept(self.data.topics[0])

    def concepts(self, *names: str) -> dict[str, Concept]:
        """Concepts by name; by default sentiment and the first topic."""
        return {n: self.concept(n) for n in names or ("sentiment", self.data.topics[0])}

    def setting(self, concept: Concept) -> tuple[int, float]:
        """Its layer and coefficient: known ones, or the best of a search on selection prompts.

        The search tries every layer and ``SEARCHED``. If several are equally good, the one with
        the smallest coefficient, then the lowest layer is taken.
        """
        if concept.setting is not None:
            return concept.setting
        best = self._search("search", concept, self.search_grid(concept))
        return best.layer, float(best.coefficient or 1)

    def search_grid(self, concept: Concept) -> list[Configuration]:
        """The configurations that a search for layer and coefficient tries, and the clean run."""
        return grid(self.model, {concept.name: concept.pair}, self.layers, SEARCHED, ["front"])

    def _search(self, kind: str, concept: Concept, cells: Sequence[Configuration]) -> Best:
        """The configuration with the most coherent successes on the selection prompts.

        It is searched for once, and stored next to the experiments' directories for all of them.
        """
        name = _search_name(kind, concept)
        if name not in self._best:
            objective, place = self.scores(concept, "objective"), prepare_directory(self.searches)
            found = self.measure(name, cells, concept.selection, objective, directory=place)
            self._best[name] = found.best("objective")
        return self._best[name]

    def scores(self, concept: Concept, *names: str) -> dict[str, Metric]:
        """Metrics by the names that they have in measurements.

        Args:
            concept: Whose success is measured.
            *names: "success"; "coherence"; "relevance"; "objective", which is 1.0 where a
                completion is a success and coherent.
        """
        known = {
            "success": concept.success,
            "coherence": self.data.coherence,
            "relevance": self.data.relevance,
            "objective": CoherentSuccess(concept.success, self.data.coherence),
        }
        return {name: known[name] for name in names}

    def vector(self, pair: ContrastPair, layer: int) -> SteeringVector:
        """The vector of a pair."""
        return extract(self.model, pair, [layer])[layer]

    def long_enough(self, prompts: Sequence[str], rows: int) -> list[str]:
        """The prompts that have at least as many tokens as a vector has rows."""
        return long_enough(self.model, prompts, rows)

    def fitting(self, concept: Concept, texts: Sequence[str], after: int = 1) -> list[str]:
        """Texts with ``after`` predictions after the vector's rows, that fit with the prompt.

        Raises:
            PromptError: There are none.
        """
        least = concept.pair.tokens(self.model).shape[1] + after + 1
        most = BridgeModel(self.model).n_ctx - self.length(concept.pair.positive)
        found = [t for t in self.long_enough(texts, least) if self.length(t) <= most]
        if not found:
            raise PromptError(
                f"none of {len(texts)} texts for {concept.name} has {least} to {most} "
                "tokens (BOS included), which the vector and the context need: give others"
            )
        return found

    def length(self, text: str) -> int:
        """Tokens of a text, BOS included."""
        return len(encode(self.model, text))

    def baselines(self, concept: Concept) -> list[Configuration]:
        """The clean run, the steered one at the concept's setting, and every baseline.

        The mean difference has a coefficient of its own, searched for: it is added at every
        position, so the pair's coefficient would not suit it.
        """
        layer, c = self.setting(concept)
        steered = self.conditions(concept, self.vector(concept.pair, layer), c)
        mean, found = self.mean_difference(concept)
        labels = {**_labels(concept, mean, found), "run": "mean_difference"}
        return [clean_configuration(), *steered, Configuration(labels, Run((found * mean,)))]

    def conditions(
        self,
        concept: Concept,
        vector: SteeringVector,
        c: float,
        /,
        controls: Sequence[str] = BASELINES[:-1],
        **labels: Any,
    ) -> list[Configuration]:
        """The steered run of a vector, then its controls.

        Args:
            concept: What the vector is for; "prompted" puts its positive prompt in front.
            vector: Without its coefficient.
            c: The coefficient.
            controls: By name; see ``sweep``.
            **labels: Further labels, or other values for the vector's own.
        """
        of = Steered(c * vector, self.seed, pair=concept.pair)
        return list(with_controls(of, {**_labels(concept, vector, c), **labels}, controls))

    def grid(
        self, concept: Concept, layers: Sequence[int], coefficients: Sequence[float]
    ) -> list[Configuration]:
        """Every layer and coefficient with every baseline, and the clean run.

        The mean difference has the coefficient of its configuration here.
        """
        pairs = {concept.name: concept.pair}
        pairs |= {f"other {i}": pair for i, pair in enumerate(concept.others)}
        return grid(
            self.model, pairs, layers, [*map(float, coefficients)], ["front"], BASELINES,
            seed=self.seed, only=concept.name,
        )  # fmt: skip

    def mean_difference(self, concept: Concept) -> tuple[SteeringVector, float]:
        """Contrastive activation addition at its best, and its coefficient.

        The search on the selection prompts covers the coefficient; some layers, spread evenly; and
        the token that the differences are taken at, the last of a pair or the one before it, as
        the last may be a full stop.
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
            for cell in self.conditions(concept, mean, c, (), vector=token)
        ]
        best = self._search("search_mean", concept, [clean_configuration(), *cells])
        self.searched[f"mean difference for {concept.name}"] = (
            f"of {len(concept.pairs)} pairs, {best.vector}, coefficient {best.coefficient:g}, at "
            f"every position of layer {best.layer}; {_chosen(best)}, where "
            f"{100 * best.value.mean:.0f} % are coherent successes"
        )
        return means[best.vector][best.layer], float(best.coefficient or 1)

    def measure(
        self,
        name: str,
        cells: Sequence[Configuration],
        prompts: Sequence[str],
        metrics: Mapping[str, Metric],
        *,
        samples: int | None = None,
        directory: Path | None = None,
    ) -> Measurements:
        """Run configurations on prompts; completions are stored in the experiment's directory.

        Args:
            name: Of the file; each once in an experiment.
            cells: The configurations, the clean one first.
            prompts: Texts to continue or read.
            metrics: Metrics of completions or of logits, by the names that they get here.
            samples: Completions per prompt, as the sizes say by default; 0 for logit metrics only.
            directory: Of the file, if it is not the experiment's.

        Raises:
            KeyboardInterrupt: It was interrupted; the same call continues from the file.
        """
        n = self.sizes.samples if samples is None else samples
        options = {**self.sampling, "batch_size": self.batch_size} if n else {}
        found: Result = measure(
            self.model, cells, prompts, list(metrics.values()),
            {"kind": name, "cells": _described(cells)},
            samples=n, seed=self.seed, store=(directory or self.directory) / f"{name}.sqlite",
            progress=self.progress, **options,
        )  # fmt: skip
        if not found.complete:
            raise KeyboardInterrupt
        ours = {metric.name: name for name, metric in metrics.items()}
        frame = found.frame.assign(metric=found.frame["metric"].map(ours))
        known = [[ours[metric], *rest] for metric, *rest in found.provenance["metrics"]]
        provenance = {**found.provenance, "metrics": known}
        return Measurements(replace(found, frame=frame, provenance=provenance))

    def measure_each(
        self,
        concepts: Mapping[str, Concept],
        cells: Callable[[Concept], Sequence[Configuration]],
        *scores: str,
    ) -> dict[str, Measurements]:
        """``measure`` on the test prompts of each concept, with some of its ``scores``."""
        return {
            name: self.measure(name, cells(c), c.test, self.scores(c, *scores))
            for name, c in concepts.items()
        }

    def describe(self, concept: Concept) -> dict[str, str]:
        """Lines of a set-up: the concept's pair, layer and coefficient, and prompts."""
        layer, c = self.setting(concept)
        origin = concept.origin
        if concept.setting is None:
            origin = _chosen(self._best[_search_name("search", concept)])
        few = len(concept.test) < self.sizes.prompts
        wanted = f" ({self.sizes.prompts} asked for)" if few else ""
        return {
            "vector": f"{concept.pair.positive!r} - {concept.pair.negative!r} at layer {layer} of "
            f"{self.n_layers}, coefficient {c:g} ({origin}), front",
            "prompts": f"{len(concept.test)}{wanted}, for {concept.wanted}",
        }

    def describe_all(self, concepts: Mapping[str, Concept]) -> dict[str, str]:
        """One line for each concept."""
        return {name: "; ".join(self.describe(c).values()) for name, c in concepts.items()}


def _search_name(kind: str, concept: Concept) -> str:
    """The name of a search, here and of its file."""
    return f"{kind}_{concept.name}_{hashed(concept.selection)}"


def _chosen(best: Best) -> str:
    """How a setting was found."""
    if best.tied == best.searched > 1:
        return (
            f"the first of {best.searched} configurations, which all tie on the selection prompts"
        )
    return f"the best of {best.searched} configurations on {best.value.n} selection prompts"


def _labels(concept: Concept, vector: SteeringVector, c: float) -> dict[str, Any]:
    """The labels of a vector's configurations."""
    labels = {"vector": concept.name, "layer": vector.layer, "coefficient": c}
    return {**labels, "position": vector.position}


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
