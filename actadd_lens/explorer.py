"""A vector tried by hand in a notebook: change a widget, and see what the vector does.

The explorer is for getting ideas. A setting found here was chosen by eye on one prompt: measure it
with ``sweep`` on other prompts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from actadd_lens import display
from actadd_lens.analysis.logprobs import next_token_shift
from actadd_lens.errors import ActAddError, PromptError, require
from actadd_lens.frames import DataFrame
from actadd_lens.generation.comparison import Comparison
from actadd_lens.generation.completions import Completions, generate
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.hook_points import check_layers
from actadd_lens.models.load import load_model
from actadd_lens.steering.placement import placement
from actadd_lens.steering.positions import ANCHORS, SINK, SPREADS
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.geometry import dose
from actadd_lens.vectors.pair import ContrastPair, as_pair
from actadd_lens.vectors.provenance import described
from actadd_lens.vectors.vector import SteeringVector

TOP = 6
"""Tokens shown whose probability rose the most, and as many whose probability fell."""
LARGEST = 20.0
"""Coefficient at which the slider ends, unless the first coefficient is larger."""


@dataclass(frozen=True, eq=False)
class ExplorerResult:
    """One vector on one prompt."""

    vector: SteeringVector
    """With its coefficient, at its position."""
    comparison: Comparison
    """Clean and steered completions of the prompt."""
    shift: DataFrame
    """What ``next_token_shift`` returns for the token after the prompt."""
    placement: DataFrame
    """What ``placement`` returns for the prompt."""
    relative_norm: float | None
    """Norm of the vector's row over that of the clean stream where it is added, the largest of all
    rows; None if no row is added to the prompt."""

    @property
    def kl(self) -> float:
        """KL(steered || clean) of the token after the prompt, in nats."""
        return max(0.0, float(self.shift["kl_contribution"].sum()))  # rounding may go below

    def _repr_html_(self) -> str:
        v = self.vector
        size = "no row is added to the prompt"
        if self.relative_norm is not None:
            size = f"relative norm {self.relative_norm:.3g}"
        placed = self.placement[["token", "row", "norm"]].astype(object)
        placed = placed.where(placed.notna(), None)
        texts = [(clean.text, steered.text) for clean, steered in self.comparison.pairs]
        return display.block(
            f"{size}; KL of the next token {self.kl:.3g} nats",
            display.muted(described(v.hook_point, v.position, v.provenance)),
            display.tokens(placed.itertuples(index=False, name=None)),
            display.table(["clean", "steered"], texts, tinted=1),
            display.side_by_side(
                self._shifted("likelier", likelier=True),
                self._shifted("less likely", likelier=False),
            ),
        )

    def _shifted(self, title: str, *, likelier: bool) -> display.Markup:
        """The tokens whose probability rose, or fell, the most."""
        change = self.shift["p_steered"] - self.shift["p_clean"]
        order = change.sort_values(ascending=not likelier, kind="stable").index[:TOP]
        columns = ["token", "p_clean", "p_steered", "log_ratio"]
        rows = [*self.shift.loc[order, columns].itertuples(index=False, name=None)]
        largest = max(max(clean, steered) for _, clean, steered, _ in rows)
        lines = [
            (repr(token), clean, steered, ratio, display.share_bar(max(clean, steered) / largest))
            for token, clean, steered, ratio in rows
        ]
        return display.table([title, "p clean", "p steered", "log ratio", ""], lines)


@dataclass(eq=False, repr=False)
class Explorer:
    """Widgets and the result of the last update. It shows itself in a notebook."""

    page: Any
    """The ipywidgets container of all widgets and of the result."""
    widgets: Mapping[str, Any]
    """The widgets by name: "positive", "negative", "rows", "layer", "coefficient", "position",
    "prompt", "seed"."""
    result: ExplorerResult
    """The result of the last settings that were valid."""

    @property
    def vector(self) -> SteeringVector:
        """The vector of ``result``, ready to be measured or saved."""
        return self.result.vector

    def close(self) -> None:
        """Release the model. Widgets that are not closed live as long as the kernel."""
        for widget in self.widgets.values():
            widget.unobserve_all()
            widget.close()
        self.page.close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.page._repr_mimebundle_(**options)


def explore(
    model: Bridge | None = None,
    pair: ContrastPair | tuple[str, str] = ("Love.", "Hate."),
    *,
    prompt: str = "Anna hated the song.",
    layer: int | None = None,
    coefficient: float = 6.0,
    position: int | str = "front",
    samples: int = 3,
    max_new_tokens: int = 24,
    seed: int = 0,
    **sampling: Any,
) -> Explorer:
    """Widgets for pair, layer, coefficient, position and prompt, with their result below them.

    Each update shows which row is added to which token, clean next to steered completions with the
    same random numbers, the tokens whose probability changes most, and KL(steered || clean) of the
    next token. The bundled model answers within a second; a large one takes as long as it takes to
    generate. Invalid settings, such as a vector that does not fit, show their error instead of a
    result. An explorer holds its model until it is closed: ``explorer.close()``.

    Args:
        model: Any TransformerBridge with a tokenizer; the bundled model by default.
        pair: Contrast pair to begin with.
        prompt: Text to begin with.
        layer: Injection layer to begin with; the middle one by default.
        coefficient: Likewise.
        position: Likewise; see ``SteeringVector.position``.
        samples: Completions of each run.
        max_new_tokens: Tokens of each.
        seed: Of the completions' random streams.
        **sampling: Further keywords of ``generate``, e.g. ``temperature``.

    Raises:
        MissingExtraError: ipywidgets is not installed.
        TypeError: A keyword that ``generate`` does not have.
        LayerError: The model has no such layer.
        ActAddError: The first settings are invalid; the error is that of ``generate``.

    >>> explorer = explore(load_model("testbed"), layer=1, samples=1, max_new_tokens=4)
    >>> explorer.widgets["coefficient"].value = -2.0
    >>> explorer.vector.layer, len(explorer.result.comparison.clean)
    (1, 1)
    """
    ipywidgets = require("ipywidgets", "notebook", "the explorer")
    bridge = load_model() if model is None else model
    contrast = as_pair(pair)
    if not all(isinstance(side, str) for side in (contrast.positive, contrast.negative)):
        raise PromptError("the explorer takes a pair of two texts, which its fields can show")
    if layer is not None:
        check_layers(bridge, [layer])
    n_layers = BridgeModel(bridge).n_layers
    end = max(LARGEST, abs(coefficient))
    layout, narrow = ipywidgets.Layout(width="98%"), {"description_width": "5.5em"}
    look: dict[str, Any] = {"layout": layout, "style": narrow}
    late = {"continuous_update": False, **look}
    widgets = {
        "positive": ipywidgets.Text(value=contrast.positive, **late),
        "negative": ipywidgets.Text(value=contrast.negative, **late),
        "rows": ipywidgets.Dropdown(options=["all", "mean", "last"], **look),
        "layer": ipywidgets.IntSlider(
            value=n_layers // 2 if layer is None else layer, max=n_layers - 1, **late
        ),
        "coefficient": ipywidgets.FloatSlider(
            value=float(coefficient), min=-end, max=end, step=0.5, **late
        ),
        "position": ipywidgets.Combobox(
            value=str(position), options=[*ANCHORS, *SPREADS, SINK, "1"], **late
        ),
        "prompt": ipywidgets.Text(value=prompt, **late),
        "seed": ipywidgets.IntText(value=seed, **late),
    }
    for name, widget in widgets.items():
        widget.description = name
    options = {"samples": samples, "max_new_tokens": max_new_tokens, **sampling}
    compute = _computation(bridge, contrast.pad, options)
    first = compute({name: widget.value for name, widget in widgets.items()})
    shown = ipywidgets.HTML(first._repr_html_())
    half = ipywidgets.Layout(width="50%")
    columns = [
        ipywidgets.VBox([widgets[name] for name in names.split()], layout=half)
        for names in ("positive negative rows seed", "layer coefficient position")
    ]
    page = ipywidgets.VBox([ipywidgets.HBox(columns), widgets["prompt"], shown])
    explorer = Explorer(page, widgets, first)

    def update(_: object) -> None:
        shown.value = display.block("running ...")  # an interrupt leaves no former result
        try:
            result = compute({name: widget.value for name, widget in widgets.items()})
        except Exception as error:
            shown.value = display.block(type(error).__name__, display.html(error))
            if isinstance(error, ActAddError):
                return
            raise
        explorer.result = result
        shown.value = result._repr_html_()

    for widget in widgets.values():
        widget.observe(update, names="value")
    return explorer


def _computation(
    bridge: Bridge, pad: str | int, options: dict[str, Any]
) -> Callable[[Mapping[str, Any]], ExplorerResult]:
    """Settings to result; the last pair's vectors and the last prompt's clean run are cached."""

    @lru_cache(maxsize=1)
    def vectors(positive: str, negative: str) -> dict[int, SteeringVector]:
        return extract(bridge, ContrastPair(positive, negative, pad))

    @lru_cache(maxsize=1)
    def clean(prompt: str, seed: int) -> Completions:
        return generate(bridge, prompt, seed=seed, **options)

    def result(settings: Mapping[str, Any]) -> ExplorerResult:
        prompt, seed, rows = (settings[name] for name in ("prompt", "seed", "rows"))
        vector = vectors(settings["positive"], settings["negative"])[settings["layer"]]
        vector = settings["coefficient"] * vector
        typed = settings["position"].strip()
        place = int(typed) if typed.removeprefix("-").isdecimal() else typed
        vector = (vector if rows == "all" else vector.collapse(rows)).at(place)
        steered = generate(bridge, prompt, vector, seed=seed, **options)
        on_prompt = vector.position != "generated"
        return ExplorerResult(
            vector,
            Comparison(clean(prompt, seed), steered),
            next_token_shift(bridge, prompt, vector),
            placement(bridge, vector, prompt),
            float(dose(bridge, vector, prompt)["dose"].max()) if on_prompt else None,
        )

    return result
