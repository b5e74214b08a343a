"""Edits of passes by hook point: which token each intervention edits.

Algorithm 1, step 4: ``SteeringVector.apply`` adds row i to the i-th of these tokens.

``prompt_edits`` and ``decode_edits`` serve passes that the package makes itself, where each row of
a batch may be steered by something else; ``call_edits`` serves those of a caller (``hooks``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from actadd_lens.errors import PositionError, VectorError
from actadd_lens.models import hook_points
from actadd_lens.models.base import Bridge, Edit
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.plain import BareModel
from actadd_lens.models.watch import Call
from actadd_lens.steering import positions
from actadd_lens.steering.checks import as_interventions
from actadd_lens.steering.interventions import (
    Intervention,
    Steering,
    When,
    add,
    added,
    applied,
    conditions_of,
    in_range,
    n_rows,
)


@dataclass(frozen=True)
class PromptEdits:
    """Edits of one pass over prompts."""

    by_point: Mapping[str, Edit]
    """What becomes of the stream, by hook point."""
    holds: dict[int, Bool[Tensor, "batch"]] = field(default_factory=dict)
    """Whether the condition of each ``When`` holds for each prompt; filled during the pass."""


def prompt_edits(
    model: Bridge,
    steerings: Sequence[Steering],
    mask: Int[Tensor, "batch pos"] | Bool[Tensor, "batch pos"],
    prompts: Sequence[Sequence[int]] | None = None,
) -> PromptEdits:
    """Edits that steer each row of a batch of prompts by something of its own.

    Rows may differ in vectors, coefficients, layers and positions; a row steered with None is
    clean. So many configurations of a prompt are read side by side.

    Args:
        model: Any TransformerBridge.
        steerings: For each row an intervention, several, or None; the same object for rows that are
            steered alike saves work.
        mask: 1 for a real token, 0 for padding.
        prompts: The prompts, for positions that depend on what they say.

    Raises:
        VectorError: An intervention that does not fit the model, or not one steering for each row.
        LayerError: An intervention at a layer that the model does not have.
        PositionError: From the pass itself, if an intervention does not fit on its prompt.
    """
    if len(steerings) != len(mask):
        raise VectorError(
            f"{len(steerings)} steerings for a batch of {len(mask)} prompts: "
            "give one for each, None for a clean one"
        )
    alike: dict[int, list[int]] = {}
    for row, steering in enumerate(steerings):
        alike.setdefault(id(steering), []).append(row)
    holds: dict[int, Tensor] = {}
    points: dict[str, list[Edit]] = {}
    for rows in alike.values():
        items = as_interventions(model, steerings[rows[0]], warn=False)
        for item in conditions_of(items):
            holds.setdefault(id(item), torch.zeros(len(mask), dtype=torch.bool))
        own = None if prompts is None else [prompts[row] for row in rows]
        call_of = partial(_given, Call(real=mask[rows].bool(), contents=own))
        for name, edit in call_edits(model, items, call_of, holds, rows):
            points.setdefault(name, []).append(_of_rows(rows, len(mask), edit))
    return PromptEdits({name: chained(edits) for name, edits in points.items()}, holds)


def _tokens_of_call(
    items: Sequence[Intervention],
    call: Call,
    shape: Sequence[int],
    rows: Sequence[int] | None,
) -> Iterator[tuple[Intervention, Bool[Tensor, "row pos"]]]:
    """Interventions, and which tokens of a pass each edits.

    Where a prompt is read in parts, rows of a vector may belong to tokens of an earlier part: what
    is left of the vector is given then.
    """
    for item in items:
        plan, at = positions.parse(item.position), torch.zeros(shape, dtype=torch.bool)
        if call.generated is True:
            if plan.steers_generated:
                yield item, ~at
            continue
        assert call.real is not None
        index = positions.row_index(plan, call.real, n_rows(item), rows, call.contents, call.turn)
        at = index != positions.NO_ROW
        if plan.steers_generated and isinstance(call.generated, Tensor):
            at = at | call.generated.to(at.device)
        if call.turn is None or plan.one_row_only or n_rows(item) == 1:
            yield item, at
            continue
        first = index.where(at, n_rows(item)).amin(dim=1)
        for row in sorted(set(first.tolist()) - {n_rows(item)}):
            if row and not hasattr(item, "rows"):
                raise PositionError(
                    f"the {n_rows(item)} tokens that {type(item).__name__} edits at "
                    f"{plan.position!r} are not all in one pass: read the prompt in one"
                )
            rest: Any = item  # what has rows is a SteeringVector, which this module cannot import
            if row:
                rest = replace(rest, rows=rest.rows[row:])
            yield rest, at & (first == row)[:, None]


def _check_judged_once(item: When, call: Call, at: Bool[Tensor, "row pos"]) -> None:
    """A condition that averages over a prompt needs all of it in one pass."""
    turn = call.turn
    if turn is None or item.condition.position not in positions.SPREADS:
        return
    if bool((at.sum(dim=1).cpu() != turn.end - turn.start).any()):
        raise PositionError(
            f"a condition at {item.condition.position!r} averages over the prompt, which is read "
            "in parts: read it in one pass, or judge it at one token, e.g. at 'back'"
        )


def _given(call: Call, _: Tensor) -> Call:
    return call


def call_edits(
    model: Bridge | BareModel,
    interventions: Sequence[Intervention],
    call_of: Callable[[Tensor], Call],
    holds: dict[int, Bool[Tensor, "batch"]],
    rows: Sequence[int] | None = None,
) -> list[tuple[str, Edit]]:
    """Edits of passes in which all rows, or some of a batch, are steered alike, by hook point.

    Args:
        model: Any TransformerBridge.
        interventions: Fit for the model.
        call_of: What is known of the pass that a stream is of; ``real`` is None in a decode step.
        holds: Whether conditions hold for each prompt: filled in prompt passes, used in all.
        rows: Indices of the rows in the batch, all of them by default.
    """

    def judge(item: When) -> Edit:
        plan = positions.parse(item.condition.position)

        def edit(stream: Tensor) -> Tensor:
            call = call_of(stream)
            if call.real is not None:
                index = positions.row_index(plan, call.real, 1, rows, call.contents, call.turn)
                at = index != positions.NO_ROW
                _check_judged_once(item, call, at)
                if bool(at.any()):
                    found = item.condition.holds(stream, at.to(stream.device)).cpu()
                    before = holds.get(id(item))
                    if rows is not None:
                        holds[id(item)][rows] = found
                    elif call.turn is None or before is None or len(before) != len(found):
                        holds[id(item)] = found
                    else:  # a prompt that is read in parts
                        holds[id(item)] = torch.where(at.any(dim=1).cpu(), found, before)
            return stream

        return edit

    def holding(item: When, n_rows_here: int) -> Tensor:
        found = holds.get(id(item))
        found = found if found is None or rows is None else found[rows]
        if found is None or len(found) != n_rows_here:
            raise VectorError(
                f"a batch of {n_rows_here} is generated, and the condition was judged on "
                f"{0 if found is None else len(found)} prompts: read the prompts inside the "
                "context in the same batch, or give the When to generate itself"
            )
        return found

    def edit_at(items: Sequence[Intervention]) -> Edit:
        def edit(stream: Tensor) -> Tensor:
            chosen, at = [], []
            for item, tokens in _tokens_of_call(items, call_of(stream), stream.shape[:2], rows):
                tokens = tokens.to(stream.device)
                if isinstance(item, When) and bool(tokens.any()):
                    tokens = tokens & holding(item, len(stream)).to(stream.device)[:, None]
                chosen.append(item)
                at.append(tokens)
            return applied(stream, chosen, at) if chosen else stream

        return edit

    judges = [(i.condition.hook_point, judge(i)) for i in conditions_of(interventions)]
    own, carried = _placed(model, interventions, edit_at)
    return [*carried, *judges, *own]


def _placed(
    model: Bridge | BareModel,
    interventions: Sequence[Intervention],
    edit_at: Callable[[Sequence[Intervention]], Edit],
) -> tuple[list[tuple[str, Edit]], list[tuple[str, Edit]]]:
    """Edits by hook point, and those that carry an earlier edit on to another point.

    Where TransformerLens reads a point outside the stream (``injection_points``), what is added
    there is added once more where the skip connection meets it. What another intervention
    changes there is carried over as the difference that it made.
    """
    by_point: dict[str, list[Intervention]] = {}
    for item in interventions:
        by_point.setdefault(item.hook_point, []).append(item)
    own, carried = [], []
    for name, items in by_point.items():
        points = (
            (name,) if isinstance(model, BareModel) else hook_points.injection_points(model, name)
        )
        first, *others = points
        edit = again = edit_at(items)
        if others and not all(item.additive for item in items):
            edit, again = _carried(edit)
        own.append((first, edit))
        carried += [(other, again) for other in others]
    return own, carried


def _carried(edit: Edit) -> tuple[Edit, Edit]:
    """An edit, and one that adds what the first has changed to another stream."""
    changes: list[Tensor] = []

    def first(stream: Tensor) -> Tensor:
        edited = edit(stream)
        changes[:] = [(edited.float() - stream.float()).where(edited != stream, 0)]
        return edited

    return first, lambda stream: add(stream, changes[0])


def chained(edits: Sequence[Edit]) -> Edit:
    """One edit that makes several in their order."""
    if len(edits) == 1:
        return edits[0]

    def edit(stream: Tensor) -> Tensor:
        for part in edits:
            stream = part(stream)
        return stream

    return edit


def _of_rows(rows: Sequence[int], n_rows_in_batch: int, edit: Edit) -> Edit:
    """An edit of some rows of a batch; the others keep their bits."""
    if len(rows) == n_rows_in_batch:
        return edit

    def edit_rows(stream: Tensor) -> Tensor:
        edited = stream.clone()
        edited[rows] = edit(stream[rows])
        return edited

    return edit_rows


@dataclass(frozen=True)
class DecodeEdits:
    """What happens to the generated tokens of each row of a batch.

    Interventions at the positions "generated" and "all" edit generated tokens, no others.
    """

    sums: Mapping[str, Float[Tensor, "row d_model"]]
    """By hook point, the sum of what additive interventions add to every token of each row."""
    others: Mapping[str, Sequence[tuple[int, Intervention]]]
    """By hook point, in the order given, the other interventions and their rows."""

    @property
    def points(self) -> set[str]:
        """Hook points where something happens."""
        return {*self.sums, *self.others}

    def of(self, rows: Int[Tensor, "batch"]) -> dict[str, Edit]:
        """Edits of one decode step over some of the rows, by hook point."""
        return {name: self._edit(name, rows) for name in self.points}

    def _edit(self, name: str, rows: Int[Tensor, "batch"]) -> Edit:
        total = self.sums[name][rows, None] if name in self.sums else None
        wanted = [(rows == row, item) for row, item in self.others.get(name, ())]

        def edit(stream: Tensor) -> Tensor:
            stream = stream if total is None else add(stream, total.to(stream.device))
            for chosen, item in wanted:
                at = chosen[:, None].expand(stream.shape[:2]).to(stream.device)
                stream = item.apply(stream, at).to(stream.dtype)
            return in_range(stream, total)

        return edit


def decode_edits(
    model: Bridge,
    steerings: Sequence[Steering],
    holds: Mapping[int, Bool[Tensor, "batch"]] | None = None,
) -> DecodeEdits:
    """Edits of every decode step; mostly none.

    Args:
        model: Any TransformerBridge.
        steerings: For each row an intervention, several, or None.
        holds: From ``prompt_edits``, once the prompts have been read.
    """
    own = BridgeModel(model)
    sums: dict[str, Tensor] = {}
    others: dict[str, list[tuple[int, Intervention]]] = {}
    for row, steering in enumerate(steerings):
        items = [
            item
            for item in as_interventions(model, steering, warn=False)
            if positions.parse(item.position).steers_generated
            and not (isinstance(item, When) and holds and not bool(holds[id(item)][row]))
        ]
        by_point: dict[str, list[Intervention]] = {}
        for item in items:
            names = hook_points.injection_points(model, item.hook_point)
            if len(names) > 1 and not item.additive:
                raise VectorError(
                    f"{type(item).__name__} cannot edit generated tokens at {item.hook_point}, "
                    f"which {own.name} reads beside the stream: use hook_resid_pre, or "
                    "hook_resid_post"
                )
            for name in names:
                by_point.setdefault(name, []).append(item)
        for name, found in by_point.items():
            adding = [item for item in found if item.additive]
            if adding:
                sums.setdefault(name, torch.zeros(len(steerings), own.d_model, device=own.device))
                everywhere = [torch.ones(1, 1, dtype=torch.bool)] * len(adding)
                sums[name][row] = added(adding, everywhere, own.d_model)[0, 0].to(own.device)
            others.setdefault(name, []).extend((row, i) for i in found if not i.additive)
    return DecodeEdits(sums, {name: found for name, found in others.items() if found})


def joined_edits(
    prompt: Mapping[str, Edit], generated: Mapping[str, Edit], n_prompt: int
) -> dict[str, Edit]:
    """Edits of a pass over prompts of ``n_prompt`` columns and the tokens generated after them."""

    def edit_of(name: str) -> Edit:
        def edit(stream: Tensor) -> Tensor:
            parts = stream[:, :n_prompt], stream[:, n_prompt:]
            edits = prompt.get(name), generated.get(name)
            pairs = zip(edits, parts, strict=True)
            return torch.cat([part if edit is None else edit(part) for edit, part in pairs], dim=1)

        return edit

    return {name: edit_of(name) for name in {**prompt, **generated}}
