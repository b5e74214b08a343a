"""Ablations: which rows, positions, dimensions, layers and pairs the effect depends on.

Each makes parts of a vector, or several vectors, and hands them to ``ablate``, which measures them
with their controls. An ablation of your own does the same. ``**options`` are those of ``ablate``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from einops import einsum

from actadd_lens.errors import PositionError, SweepError, VectorError
from actadd_lens.frames import DataFrame, Figure
from actadd_lens.generation.completions import Completion, generate
from actadd_lens.metrics.logits import kl
from actadd_lens.metrics.registry import Metric
from actadd_lens.models import hook_points
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.memory import batches, budget
from actadd_lens.models.tokens import (
    Prompt,
    PromptLike,
    Prompts,
    as_prompts,
    right_padded,
)
from actadd_lens.steering import positions
from actadd_lens.steering.checks import as_interventions
from actadd_lens.steering.edits import chained, prompt_edits
from actadd_lens.steering.positions import PositionLike
from actadd_lens.sweeps.configurations import (
    KEYS,
    Configuration,
    Needs,
    Pairs,
    Steered,
    check_axes,
    check_controls,
    clean_configuration,
    control_settings,
    labelled,
    numbers,
    with_controls,
)
from actadd_lens.sweeps.identity import fingerprint, metric_described, plain
from actadd_lens.sweeps.measurement import measure
from actadd_lens.sweeps.results import Result, noted, typed
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.geometry import cosines
from actadd_lens.vectors.pair import ContrastPair, as_pair
from actadd_lens.vectors.provenance import label_of, source
from actadd_lens.vectors.vector import SteeringVector

CONTROLS: tuple[str, ...] = ("random",)
WHOLE = "whole"
"""The part that is the vector as it was given."""
CHOICES = ("first", "top", "random")
"""Which dimensions are taken."""


@dataclass(frozen=True, eq=False, repr=False)
class Ablation(Result):
    """Values of the parts of a vector, or of several ways to make one."""

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
        """The figure of the ablation.

        Args:
            metric: Which; the first by default.
            **options: Of ``plots.bars`` or ``plots.heat_map``, e.g. ``ylabel`` and ``unit``.

        Raises:
            SweepError: There is no such metric.
        """
        from actadd_lens import plots

        name = metric or self.metrics[0]
        table = self.intervals(self.values_of(name))
        axes = self.provenance["axes"]
        if "y" in axes:
            label = options.pop("ylabel", name)
            options.setdefault("note", self._note(noted(table, options.get("unit"))))
            return plots.heat_map(table, y=axes["y"], label=label, **options)
        options.setdefault("note", self._note(f"95 % intervals, n = {table['n'].max()} prompts"))
        return plots.bars(table, **{**axes, "ylabel": name, **options})


def ablate(
    model: Bridge,
    kind: str,
    parts: Sequence[tuple[Mapping[str, Any], SteeringVector]],
    prompts: Prompts,
    metrics: str | Metric | Sequence[object],
    axes: Mapping[str, str],
    settings: Mapping[str, Any],
    *,
    controls: Sequence[str] = CONTROLS,
    seed: int = 0,
    **options: Any,
) -> Ablation:
    """Measure parts of vectors, and the controls of each part.

    Args:
        model: Any TransformerBridge with a tokenizer.
        kind: Name of the ablation.
        parts: Labels and vector of each part. Labels are the columns of this ablation, which all
            parts have, and maybe "vector" and "coefficient".
        prompts: Texts to read or to continue.
        metrics: As of ``sweep``.
        axes: Of the figure: {"x": column, "group": column} draws bars, {"y": column} a map of that
            column by layer.
        settings: What the parts were made from, as plain JSON.
        controls: "random", "random:1", ..., "negated", and registered ones that need a vector only.
        seed: Of completions and of random directions.
        **options: ``samples``, ``store``, ``progress``, ``batch_tokens`` and sampling options.

    Raises:
        SweepError, VectorError, MetricError, PromptError, SamplingError: As of ``sweep``.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love.", "Hate."), layer=1)
    >>> parts = [({"vector": "v", "coefficient": c, "sign": c > 0}, c * vector) for c in (-4, 4)]
    >>> result = ablate(
    ...     model, "sign", parts, "My friend", metrics="kl", axes={"x": "sign"}, settings={},
    ...     progress=False,
    ... )  # fmt: skip
    >>> len(result.summary().query("run == 'steered'"))
    2
    """
    extra = dict.fromkeys(name for labels, _ in parts for name in labels if name not in KEYS)
    configurations = [clean_configuration(**extra), *_configurations(parts, controls, seed)]
    settings = {"kind": kind, "axes": dict(axes), **control_settings(controls), **settings}
    return measure(
        model, configurations, prompts, metrics, settings, Ablation, seed=seed, **options
    )


def position_ablation(
    model: Bridge,
    vector: SteeringVector,
    prompts: Prompts,
    *,
    metrics: str | Metric | Sequence[object],
    starts: Sequence[int] | None = None,
    **options: Any,
) -> Ablation:
    """The effect of each row alone, of all rows but one, and of the rows at other positions.

    Other arguments and errors are those of ``sweep``; controls are those of ``ablate``.

    Args:
        vector: Already times its coefficient. Rows that are zero, as BOS's, are not varied.
        starts: Positions to move row 0 to; by default every one where the rows fit on all prompts.
            Not for vectors whose one row is added to many tokens.

    Returns:
        An ``Ablation`` with the columns ``ablation`` ("whole", "alone", "left out" or "moved") and
        ``part``: the row that is alone or left out, or the position of row 0, as text.

    Raises:
        PositionError: The vector does not fit on a prompt at one of the ``starts``.

    >>> model = load_model("testbed")
    >>> vector = 4 * SteeringVector.from_pair(model, ("Love.", "Hate."), layer=1)
    >>> result = position_ablation(
    ...     model, vector, ["My friend went home."], metrics=["kl"], progress=False
    ... )
    >>> sorted(result.frame["ablation"].dropna().unique())
    ['alone', 'left out', 'moved', 'whole']
    """
    _check_vector(model, vector)
    n_rows, rows = len(vector.rows), vector.rows.any(dim=1).nonzero()[:, 0].tolist()
    parts = [(WHOLE, WHOLE, vector)]
    parts += [("alone", f"row {row}", vector.with_rows([row])) for row in rows]
    for row in rows:
        others = [other for other in range(n_rows) if other != row]
        parts.append(("left out", f"row {row}", vector.with_rows(others)))
    if not positions.parse(vector.position).one_row_only:
        every = range(min(len(ids) for ids in as_prompts(model, prompts)) - n_rows + 1)
        places = numbers("starts", every if starts is None else starts, int)
        check_axes(starts=places)
        parts += [("moved", f"at {start}", vector.at(start)) for start in places]
    elif starts is not None:
        raise PositionError(
            f"a vector at {vector.position!r} goes to many tokens and can't start at {starts}: "
            "give it another position, or leave starts out"
        )
    made = [({"ablation": kind, "part": part}, own) for kind, part, own in parts]
    axes = {"x": "part", "group": "ablation"}
    settings = {"vector": described(vector), "parts": [f"{kind} {part}" for kind, part, _ in parts]}
    return ablate(model, "position_ablation", made, prompts, metrics, axes, settings, **options)


def dimension_ablation(
    model: Bridge,
    vector: SteeringVector,
    prompts: Prompts,
    *,
    fractions: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 1.0),
    metrics: str | Metric | Sequence[object],
    seed: int = 0,
    **options: Any,
) -> Ablation:
    """A vector with a fraction of its dimensions: the first, the largest, or a random choice.

    The dimensions left out are set to zero, nothing is rescaled. "top" takes those with the largest
    norm over all rows.

    Other arguments and errors are those of ``sweep``; controls are those of ``ablate``.

    Args:
        vector: Already times its coefficient.
        fractions: Of d_model, in (0, 1].
        seed: Of completions, of the random choice and of random directions.

    Returns:
        An ``Ablation`` with the columns ``ablation`` ("first", "top" or "random") and ``fraction``.

    Raises:
        SweepError: A fraction out of range, or one twice.

    >>> model = load_model("testbed")
    >>> vector = 4 * SteeringVector.from_pair(model, ("Love.", "Hate."), layer=1)
    >>> result = dimension_ablation(
    ...     model, vector, "My friend", fractions=[0.5, 1], metrics="kl", progress=False
    ... )
    >>> result.summary()["ablation"].dropna().unique().tolist()
    ['first', 'top', 'random']
    """
    _check_vector(model, vector)
    shares = numbers("fractions", fractions)
    check_axes(fractions=shares)
    for share in shares:
        if not 0 < share <= 1:
            raise SweepError(f"fraction {share:g} is out of range: it must be in (0, 1]")
    parts = []
    for choice, order in orders(vector, seed).items():
        for share in shares:
            kept = vector.with_dims(order[: max(1, round(share * len(order)))])
            parts.append(({"ablation": choice, "fraction": share}, kept))
    axes = {"x": "fraction", "group": "ablation"}
    settings = {"vector": described(vector), "fractions": shares}
    options["seed"] = seed
    return ablate(model, "dimension_ablation", parts, prompts, metrics, axes, settings, **options)


def orders(vector: SteeringVector, seed: int) -> dict[str, list[int]]:
    """Dimensions in the order in which each choice takes them."""
    norms = torch.linalg.vector_norm(vector.rows, dim=0)
    generator = torch.Generator().manual_seed(int(seed))
    return {
        "first": list(range(len(norms))),
        "top": norms.argsort(descending=True, stable=True).tolist(),
        "random": torch.randperm(len(norms), generator=generator).tolist(),
    }


def layer_transplant(
    model: Bridge,
    pair: ContrastPair | tuple[PromptLike, PromptLike],
    prompts: Prompts,
    *,
    coefficient: float,
    metrics: str | Metric | Sequence[object],
    recorded: Sequence[int] | None = None,
    injected: Sequence[int] | None = None,
    norm_matched: bool = False,
    position: PositionLike = "front",
    **options: Any,
) -> Ablation:
    """The vector of every layer s, injected at every layer t.

    Other arguments and errors are those of ``sweep``; controls are those of ``ablate``.

    Args:
        pair: Contrast pair.
        coefficient: What every vector is multiplied by.
        recorded: Layers s; every one by default.
        injected: Layers t; every one by default.
        norm_matched: Whether each row is given the norm that the vector of layer t has there, so
            that only the direction is moved.
        position: Where row 0 is added.

    Returns:
        An ``Ablation`` with the column ``recorded``: layer s; ``layer`` is t.

    >>> model = load_model("testbed")
    >>> result = layer_transplant(
    ...     model, ("Love.", "Hate."), "My friend", coefficient=4, recorded=[1, 2],
    ...     injected=[1, 2], metrics="kl", progress=False,
    ... )  # fmt: skip
    >>> len(result.summary().query("run == 'steered'"))
    4
    """
    every, contrast = range(BridgeModel(model).n_layers), as_pair(pair)
    sources = numbers("recorded", every if recorded is None else recorded, int)
    targets = numbers("injected", every if injected is None else injected, int)
    check_axes(recorded=sources, injected=targets)
    vectors = extract(model, contrast, sorted({*sources, *targets}))
    parts = []
    for s, t in product(sources, targets):
        rows = vectors[s].to_hook_point(hook_points.hook_point(t))
        moved = coefficient * (with_norms_of(rows, vectors[t]) if norm_matched else rows)
        parts.append(({"coefficient": coefficient, "recorded": s}, moved.at(position)))
    settings = {
        "pair": contrast.identity,
        "coefficient": float(coefficient),
        "recorded": sources,
        "injected": targets,
        "norm_matched": norm_matched,
        "position": positions.parse(position).saved,
    }
    axes = {"y": "recorded"}
    return ablate(model, "layer_transplant", parts, prompts, metrics, axes, settings, **options)


def with_norms_of(vector: SteeringVector, other: SteeringVector) -> SteeringVector:
    """The rows of one vector with the norms of another's; rows that are zero stay so."""
    scale = torch.where(vector.norms() > 0, other.norms() / vector.norms(), 0.0)
    rows = einsum(vector.rows, scale, "pos d_model, pos -> pos d_model")
    origin = {**vector.provenance, "norms_of": other.hook_point}
    return SteeringVector(rows, vector.hook_point, vector.position, origin)


def pair_variance(
    model: Bridge,
    pairs: Pairs,
    prompts: Prompts,
    *,
    layer: int,
    coefficient: float,
    metrics: str | Metric | Sequence[object],
    position: PositionLike = "front",
    **options: Any,
) -> Ablation:
    """The effect of each of several pairs, and the cosines between their vectors.

    Other arguments and errors are those of ``sweep``; controls are those of ``ablate``.

    Args:
        pairs: Two contrast pairs or more, or a mapping from label to pair.
        layer: Injection layer.
        coefficient: What every vector is multiplied by.
        position: Where row 0 is added.

    Returns:
        An ``Ablation`` with a configuration for each pair; its ``cosines`` are of whole vectors,
        row by row.

    Raises:
        SweepError: Fewer than two pairs.

    >>> model = load_model("testbed")
    >>> pairs = [("Love.", "Hate."), ("Joy.", "Grief.")]
    >>> result = pair_variance(
    ...     model, pairs, "My friend", layer=1, coefficient=4, metrics="kl", progress=False
    ... )
    >>> result.cosines.shape
    (2, 2)
    """
    hook_points.check_model(model)
    named = labelled(pairs)
    if len(named) < 2:
        raise SweepError(f"a variance over pairs needs two at least, not {len(named)}")
    vectors = {label: extract(model, pair, [layer])[layer] for label, pair in named.items()}
    settings = {
        "pairs": [[label, *p.identity] for label, p in named.items()],
        "layer": layer,
        "coefficient": float(coefficient),
        "position": positions.parse(position).saved,
    }
    parts = [
        ({"vector": label, "coefficient": coefficient}, (coefficient * vector).at(position))
        for label, vector in vectors.items()
    ]
    axes = {"x": "vector"}
    found = ablate(model, "pair_variance", parts, prompts, metrics, axes, settings, **options)
    between = cosines(vectors)
    angles = {"pairs": list(between.index), "values": between.to_numpy().round(6).tolist()}
    return replace(found, provenance={**found.provenance, "cosines": angles})


def steering_reach(
    model: Bridge,
    vector: SteeringVector,
    prompts: Prompts,
    *,
    max_new_tokens: int = 24,
    controls: Sequence[str] = CONTROLS,
    seed: int = 0,
    progress: bool | None = None,
    **sampling: Any,
) -> Ablation:
    """KL(steered || clean) of every generated token, along what the steered model writes.

    Both runs read the steered completion; only one of them is steered. The sum over a completion
    estimates the KL divergence between the two models' distributions of whole completions.

    Other arguments and errors are those of ``ablate`` and ``generate``.

    Args:
        vector: Already times its coefficient.
        max_new_tokens: Tokens generated at most.
        **sampling: As of ``generate``, ``samples`` among it.

    Returns:
        An ``Ablation`` with the column ``step``, 0 for the first generated token, and the metric
        "kl" in nats, which its column ``kl`` repeats. A completion that has ended has no further
        steps. The clean run has no row: its divergence is 0.

    >>> model = load_model("testbed")
    >>> vector = 4 * SteeringVector.from_pair(model, ("Love.", "Hate."), layer=1)
    >>> result = steering_reach(
    ...     model, vector, "My friend", max_new_tokens=3, progress=False, stop_at_eos=False
    ... )
    >>> sorted(result.frame["step"].unique().tolist())
    [0, 1, 2]
    """
    import pandas as pd

    _check_vector(model, vector)
    configurations = _configurations([({}, vector)], controls, seed)
    sampling = {"max_new_tokens": max_new_tokens, "seed": seed, **sampling}
    ids, lines = as_prompts(model, prompts), []
    for configuration in configurations:
        [steering] = configuration.run.steering
        written = generate(model, prompts, steering, progress=progress, **sampling)
        for index, values in _divergences(model, ids, written, steering):
            c = written[index]
            of_text = {"prompt": c.prompt, "sample": c.sample_index, "text": c.text}
            own = {**configuration.labels, **of_text, "prompt_index": c.prompt_index}
            lines += [{**own, "step": i, "value": x, "kl": x} for i, x in enumerate(values)]
    columns = [*KEYS, "step", "prompt", "sample", "metric", "value", "prompt_index", "dose", "kl"]
    frame = pd.DataFrame(lines, columns=[*columns, "text"])
    frame = frame.assign(metric="kl", dose=float("nan"))
    settings = {
        "kind": "steering_reach",
        "axes": {"x": "step"},
        "vector": described(vector),
        **control_settings(controls),
        "model": {"name": BridgeModel(model).name, "weights": fingerprint(model)},
        "prompts": [prompt.label for prompt in ids],
        "metrics": [["kl", metric_described(kl), False]],
        "sampling": sampling,
        "versions": source(model)["versions"],
    }
    return Ablation(typed(frame), plain(settings))


def _divergences(
    model: Bridge,
    ids: Sequence[Prompt],
    written: Sequence[Completion],
    vector: SteeringVector,
) -> Iterator[tuple[int, list[float]]]:
    """Index of each completion with the divergence at each of its tokens."""
    rows = [[*ids[c.prompt_index], *c.tokens[:-1]] for c in written]
    own, at_once = BridgeModel(model), budget(model, logits="all").sequences
    for batch in batches([len(row) for row in rows], at_once):
        tokens, mask = right_padded(model, [rows[i] for i in batch])
        lengths = torch.tensor([len(ids[written[i].prompt_index]) for i in batch])
        before = torch.arange(mask.shape[1]) < lengths[:, None]
        of_prompt = mask * before.to(mask.device)
        prompts = [ids[written[i].prompt_index] for i in batch]
        edits = dict(prompt_edits(model, [vector] * len(batch), of_prompt, prompts).by_point)
        if positions.parse(vector.position).steers_generated:
            # Every token of the rest is steered, as each is in its decode step.
            rest = prompt_edits(model, [vector.at("prompt")] * len(batch), mask - of_prompt)
            edits = {name: chained([edit, rest.by_point[name]]) for name, edit in edits.items()}
        clean, steered = (own.run(tokens, mask, edits=chosen).logits for chosen in ({}, edits))
        assert clean is not None
        assert steered is not None
        for place, i in enumerate(batch):
            end = len(rows[i])
            after = slice(end - len(written[i].tokens), end)
            both = (run[place, after].float().log_softmax(dim=-1) for run in (clean, steered))
            yield i, kl(*both).tolist()


def described(vector: SteeringVector) -> dict[str, Any]:
    """A vector as plain JSON: where it acts, where its rows are from, and a hash of them."""
    return {**vector.identity(), "provenance": dict(vector.provenance)}


def _check_vector(model: Bridge, vector: SteeringVector) -> None:
    """Raise ``VectorError`` or ``LayerError`` unless it is one vector, fit for the model."""
    hook_points.check_model(model)
    if not isinstance(vector, SteeringVector):
        raise VectorError(
            f"one SteeringVector is taken apart, not a {type(vector).__name__}: extract it first"
        )
    as_interventions(model, vector)


def _configurations(
    parts: Sequence[tuple[Mapping[str, Any], SteeringVector]], controls: Sequence[str], seed: int
) -> list[Configuration]:
    """The configuration of each part, and those of its controls, which are made of it alone."""
    why = "can't be made of a part of a vector: choose 'random', 'random:1', ... or 'negated'"
    needs: tuple[Needs, ...] = ("rows", "pair", "pairs")
    check_controls(controls, dict.fromkeys(needs, why))
    found: list[Configuration] = []
    for labels, vector in parts:
        where = {"vector": label_of(vector.provenance), "coefficient": None, "layer": vector.layer}
        where |= {"position": positions.parse(vector.position).label, **labels}
        found += with_controls(Steered(vector, seed, layer=vector.layer), where, controls)
    return found
