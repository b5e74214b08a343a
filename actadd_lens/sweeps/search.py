"""The result of a sweep: its best configuration, on held-out prompts too, and the Pareto front."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any
from weakref import ref

from actadd_lens.errors import SweepError
from actadd_lens.frames import DataFrame, Figure, Series
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import Prompts, as_prompts
from actadd_lens.statistics import ClusterInterval
from actadd_lens.steering.positions import Position, parse
from actadd_lens.sweeps.configurations import CLEAN, STEERED, Configuration
from actadd_lens.sweeps.identity import fingerprint
from actadd_lens.sweeps.measurement import measure
from actadd_lens.sweeps.results import Result, brief, noted

PLACE = ["vector", "layer", "coefficient", "position"]
"""Columns that name a steered configuration."""
_COMPARE = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Best:
    """The configuration that a search chose."""

    vector: str
    """Its label."""
    layer: int
    """Injection layer."""
    coefficient: float | None
    """What the vector is multiplied by; None for what cannot be multiplied."""
    position: Position
    """Where it is applied."""
    metric: str
    """What was to be high, or low."""
    value: ClusterInterval
    """On the prompts it was chosen on; the best of many looks better than it is."""
    searched: int
    """Configurations that it is the best of."""
    allowed: int
    """Those of them that meet ``subject_to``."""
    tied: int
    """Those of the allowed whose mean is the same, itself among them."""
    subject_to: tuple[str, ...] = ()
    """Limits that it keeps to."""
    test: ClusterInterval | None = None
    """On prompts that had no part in the choice."""
    held_out: "SweepResult | None" = field(default=None, repr=False)
    """All metrics and controls of the chosen configuration on those prompts."""

    def __str__(self) -> str:
        c = "" if self.coefficient is None else f", coefficient {self.coefficient:g}"
        among = f"{self.searched} configurations"
        if self.subject_to:
            limits = ", ".join(self.subject_to)
            among = f"{self.allowed} configurations with {limits} ({self.searched} tried)"
        tied = f"; {self.tied} configurations tie" if self.tied > 1 else ""
        lines = [
            f"{self.vector} at layer {self.layer}{c}, position {parse(self.position).label}",
            f"  best of {among} by {self.metric}: {_shown(self.value)}{tied}",
        ]
        if self.test is not None:
            lines.append(f"  on held-out prompts: {_shown(self.test)}")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Recipe:
    """How a sweep was made: what is needed to measure one of its configurations again."""

    model: "ref[Bridge]"
    """A result does not keep its model alive."""
    configurations: Sequence[Configuration]
    metrics: object
    settings: Mapping[str, Any]
    options: Mapping[str, Any]
    """Of ``measure``, and sampling options."""

    def run(self, prompts: Prompts, store: str | PathLike[str] | None = None) -> "SweepResult":
        """Measure the configurations on prompts."""
        model = self.model()
        assert model is not None
        found = measure(
            model, self.configurations, prompts, self.metrics, self.settings, SweepResult,
            store=store, **self.options,
        )  # fmt: skip
        return replace(found, recipe=self)


@dataclass(frozen=True, eq=False, repr=False)
class SweepResult(Result):
    """Values of every vector, layer, coefficient and position, and of their controls."""

    recipe: Recipe | None = field(default=None, repr=False)
    """How it was made; None for a result that was loaded."""

    def best(
        self,
        metric: str,
        *,
        subject_to: str | Sequence[str] = (),
        lowest: bool = False,
        test_prompts: Prompts = None,
    ) -> Best:
        """The steered configuration with the highest mean of a metric.

        Of equal ones, that of the least coefficient and then the lowest layer is taken.

        Args:
            metric: What is to be high.
            subject_to: What it must keep to, e.g. ``["valid >= 0.95", "kl <= 2"]``: means of
                metrics, ``dose`` (the relative norm) or ``kl``.
            lowest: Whether the lowest mean is best.
            test_prompts: Prompts that were not searched on: the chosen configuration
                and its controls are measured on them too, with the same options.

        Raises:
            SweepError: No such metric, nothing that keeps to it all, an interrupted sweep, test
                prompts that were searched on, or ones for a result that was loaded.
        """
        import pandas as pd

        if not self.complete:
            raise SweepError(
                "the sweep was interrupted, so not every configuration has every prompt: run it "
                "again, with store= it resumes where it stopped"
            )
        limits = (subject_to,) if isinstance(subject_to, str) else tuple(subject_to)
        means = self._means(metric)
        allowed = means.notna()
        for limit in limits:
            name, compare, bound = limit_of(limit)
            allowed &= compare(self._means(name), bound).reindex(means.index)
        if not allowed.any():
            raise SweepError(
                f"none of {len(means)} configurations has a mean {metric} and keeps to "
                f"{' and '.join(limits)}: relax a limit, or search other coefficients"
                if means.notna().any()
                else f"{metric} is NaN in all of {len(means)} configurations: see what it is "
                "undefined for"
            )
        ranked = means[allowed].round(12).rename("mean").reset_index()
        ranked["rank"] = ranked["mean"] if lowest else -ranked["mean"]
        ranked["size"] = ranked["coefficient"].abs()
        first = ranked.sort_values(["rank", "size", "layer"], kind="stable").iloc[0].to_dict()
        chosen: dict[Any, Any] = {k: None if pd.isna(v) else v for k, v in first.items()}
        held_out = None if test_prompts is None else self._on_others(chosen, test_prompts)
        return Best(
            vector=str(chosen["vector"]),
            layer=int(chosen["layer"]),
            coefficient=chosen["coefficient"],
            position=self._place(chosen["position"]),
            metric=metric,
            value=self._interval_at(metric, chosen),
            searched=len(means),
            allowed=int(allowed.sum()),
            tied=int((ranked["rank"] == chosen["rank"]).sum()),
            subject_to=limits,
            test=None if held_out is None else held_out._interval_at(metric, chosen),
            held_out=held_out,
        )

    def pareto(self, success: str, cost: str) -> DataFrame:
        """Every configuration by gain and cost, and those that no other one beats in both.

        Args:
            success: Metric that is to be high.
            cost: Metric that is to be low, e.g. ``kl`` or ``dose``.

        Returns:
            A row for each steered configuration and the clean run: ``vector``, ``layer``,
            ``coefficient``, ``position``, ``run``; ``success``, ``success_low``, ``success_high``
            and the same of ``cost``: means with 95 % intervals over prompts; ``on_front``: whether
            neither the clean run nor a configuration of the same vector is as good in both and
            better in one.

        Raises:
            SweepError: There is no such metric.
        """
        table = self._axis("success", success).merge(self._axis("cost", cost), on=self.keys)
        clean = table["run"] == CLEAN
        table["on_front"] = [
            row["run"] == STEERED
            and not _is_beaten(row, table[clean | (table["vector"] == row["vector"])])
            for _, row in table.iterrows()
        ]
        return table

    def plot(
        self, metric: str | None = None, *, chosen: Best | None = None, **options: Any
    ) -> Figure:
        """The figure that fits the axes swept: map, layer profile, coefficient curve, or bars.

        Args:
            metric: Which; the first by default.
            chosen: From ``best``: framed in a map.
            **options: Of ``plots.heat_map``, ``layer_profile`` or ``coefficient_curve``:
                ``ylabel``, ``unit`` and ``note``.

        Raises:
            SweepError: There is no such metric.
        """
        from actadd_lens import plots

        name = metric or self.metrics[0]
        table = _drawable(self.intervals(self.values_of(name)))
        steered = table[table["run"] == STEERED]
        label = options.pop("ylabel", name)
        if steered["layer"].nunique() > 1 and steered["coefficient"].nunique() > 1:
            framed: Any = None
            if chosen is not None:
                place = chosen.layer, chosen.coefficient
                alone = steered["vector"].nunique() == steered["position"].nunique() == 1
                panel = chosen.vector, parse(chosen.position).label
                framed = place if alone else {panel: place}
            options.setdefault("note", self._note(noted(table, options.get("unit"))))
            return plots.heat_map(table, chosen=framed, label=label, **options)
        options.setdefault("note", self._note(f"95 % intervals, n = {steered['n'].max()} prompts"))
        if len(steered) == 1:
            table = table.assign(condition=table["run"])
            return plots.bars(table, x="condition", ylabel=label, **options)
        if len(steered) == steered["position"].nunique():
            return plots.bars(table, x="position", ylabel=label, **options)
        several_layers = steered["layer"].nunique() > 1
        draw = plots.layer_profile if several_layers else plots.coefficient_curve
        return draw(table, ylabel=label, **options)

    def plot_pareto(self, success: str, cost: str, **options: Any) -> Figure:
        """The configurations of ``pareto`` and their front.

        Args:
            success: Metric that is to be high.
            cost: Metric that is to be low.
            **options: Of ``plots.pareto``: ``success_unit``, ``cost_unit`` and ``note``. The axes
                are named after the metrics.
        """
        from actadd_lens import plots

        n = self.frame["prompt"].nunique()
        options.setdefault("note", self._note(f"95 % intervals, n = {n} prompts"))
        table = _drawable(self.pareto(success, cost))
        return plots.pareto(table, success=success, cost=cost, **options)

    def _axis(self, name: str, metric: str) -> DataFrame:
        """Means of the steered configurations and the clean run, called ``name``."""
        rows = self.values_of(metric)
        rows = rows[rows["run"].isin([STEERED, CLEAN])]
        table = self.intervals(rows).drop(columns=["n", "missing"])
        return table.rename(columns={"mean": name, "low": f"{name}_low", "high": f"{name}_high"})

    def _steered(self, metric: str) -> DataFrame:
        rows = self.values_of(metric)
        return rows[rows["run"] == STEERED]

    def _place(self, label: int | str) -> Position:
        """The position that a table calls so."""
        tried = [parse(given) for given in self.provenance.get("positions") or ()]
        return next((plan.position for plan in tried if plan.label == label), label)

    def _means(self, metric: str) -> Series:
        """Mean over prompts of each steered configuration, as ``summary`` has it."""
        by_prompt = [*PLACE, "prompt"]
        means = self._steered(metric).groupby(by_prompt, sort=False, dropna=False)["value"].mean()
        return means.groupby(PLACE, sort=False, dropna=False).mean()

    def _interval_at(self, metric: str, chosen: Mapping[Any, Any]) -> ClusterInterval:
        """Of one steered configuration."""
        rows = self._steered(metric)
        for name in PLACE:
            here = rows[name].isna() if chosen[name] is None else rows[name] == chosen[name]
            rows = rows[here.fillna(False)]
        return self.interval(rows)

    def _on_others(self, chosen: Mapping[Any, Any], prompts: Prompts) -> "SweepResult":
        """One configuration and its controls on held-out prompts."""
        if self.recipe is None:
            raise SweepError(
                "a result that was loaded has no model to measure test prompts with: call "
                "al.sweep on them, with the layer and coefficient that were chosen"
            )
        model = self.recipe.model()
        if model is None or fingerprint(model) != self.provenance["model"]["weights"]:
            raise SweepError(
                "the model of this sweep is gone, or its weights have changed: call al.sweep on "
                "the test prompts"
            )
        # A chat's label is its last message alone, which several chats may share.
        given = [prompt.label for prompt in as_prompts(model, prompts) if not prompt.spans]
        seen = sorted({*given} & {*self.frame["prompt"]})
        if seen:
            raise SweepError(
                f"{len(seen)} of {len(given)} test prompts were searched on, {seen[0]!r} among "
                "them: give others"
            )
        configurations = [
            c
            for c in self.recipe.configurations
            if c.labels["run"] == CLEAN or all(c.labels[name] == chosen[name] for name in PLACE)
        ]
        tried = self.recipe.settings
        axes = {"layers": "layer", "coefficients": "coefficient"}
        alone = {k: [chosen[v]] for k, v in axes.items() if chosen[v] in (tried[k] or ())}
        if tried["positions"]:
            alone["positions"] = [parse(self._place(chosen["position"])).saved]
        settings = {**tried, **alone, "only": chosen["vector"], "vectors": []}
        layer = str(int(chosen["layer"]))
        for label, *made_of in tried["vectors"]:
            if label == chosen["vector"] and isinstance(made_of[0], dict):  # by layer
                made_of = [{layer: made_of[0][layer]}]
            settings["vectors"].append([label, *made_of])
        found = replace(self.recipe, configurations=configurations, settings=settings).run(prompts)
        if not found.complete:
            raise SweepError("the test prompts were interrupted: ask for the best one again")
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "recipe": None}


def limit_of(text: str) -> tuple[str, Callable[[Any, Any], Any], float]:
    """A limit, read: the metric, how it is compared, and with what.

    >>> name, _, bound = limit_of("valid >= 0.95")
    >>> name, bound
    ('valid', 0.95)
    """
    found = re.fullmatch(r"(.+?)\s*(<=|>=|<|>)\s*([-+.\deE]+)", text.strip())
    try:
        name, sign, bound = found.groups() if found else ("", "<", "none")
        return name, _COMPARE[sign], float(bound)
    except ValueError:
        raise SweepError(
            f"cannot read the limit {text!r}: write a metric, a comparison and a number, "
            "e.g. 'valid >= 0.95'"
        ) from None


def _drawable(table: DataFrame) -> DataFrame:
    """The table with coefficient 1 for interventions that no coefficient multiplies."""
    takes_none = table["coefficient"].isna() & (table["run"] != CLEAN)
    return table.assign(coefficient=table["coefficient"].mask(takes_none, 1.0))


def _is_beaten(row: Series, others: DataFrame) -> bool:
    if row[["success", "cost"]].isna().any():
        return True
    as_good = (others["success"] >= row["success"]) & (others["cost"] <= row["cost"])
    better = (others["success"] > row["success"]) | (others["cost"] < row["cost"])
    return bool((as_good & better).any())


def _shown(interval: ClusterInterval) -> str:
    lacking = f" ({interval.missing} values are NaN)" if interval.missing else ""
    return f"{brief(interval)}, n={interval.n} prompts{lacking}"
