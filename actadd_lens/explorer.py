"""A vector tried by hand in a notebook: turn a knob, see what it writes and what it makes likelier.

To look and to get ideas. What is found here was chosen by eye on one prompt: measure it with
``sweep`` on prompts that had no part in it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from actadd_lens import display
from actadd_lens.analysis.logprobs import next_token_shift
from actadd_lens.errors import ActAddError
from actadd_lens.generation.comparison import Comparison
from actadd_lens.generation.completions import Completions, generate
from actadd_lens.metrics.judges import require
from actadd_lens.models.bridge import Bridge
from actadd_lens.models.load import load_model
from actadd_lens.models.tokens import ContrastPair, as_pair
from actadd_lens.steering.placement import placement
from actadd_lens.steering.positions import ANCHORS, SPREADS
from actadd_lens.vectors.extraction import extract
from actadd_lens.vectors.norms import dose
from actadd_lens.vectors.provenance import described
from actadd_lens.vectors.vector import SteeringVector

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any  # pandas takes half a second to import: only where a frame is asked for

Rows = Literal["all", "mean", "last"]
TOP = 6
"""Tokens shown on either side."""
LARGEST = 20.0
"""Coefficient at which the slider ends, unless it begins further out."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One vector on one prompt."""

    vector: SteeringVector
    """With its coefficient, at its position."""
    comparison: Comparison
    """Clean and steered completions of the prompt."""
    shift: DataFrame
    """What ``next_token_shift`` says of the token after the prompt."""
    placement: DataFrame
    """What ``placement`` says of the prompt."""
    dose: float | None
    """Largest norm of a row over that of the clean stream where it lands; None if none lands."""

    @property
    def kl(self) -> float:
        """KL(steered || clean) of the token after the prompt, in nats."""
        return max(0.0, float(self.shift["kl_contribution"].sum()))  # rounding may go below

    def _repr_html_(self) -> str:
        v = self.vector
        dose = "no dose on the prompt" if self.dose is None else f"dose {self.dose:.3g}"
        figures = f"{dose}; KL of the next token {self.kl:.3g} nats"
        texts = [(clean.text, steered.text) for clean, steered in self.comparison.pairs]
        return display.block(
            figures,
            display.muted(described(v.hook_point, v.position, v.provenance)),
            display.tokens(self._placed()),
            display.table(["clean", "steered"], texts, tinted=1),
            display.abreast(
                self._shifted("likelier", likelier=True),
                self._shifted("less likely", likelier=False),
            ),
        )

    def _placed(self) -> list[tuple[str, int | None, float]]:
        """Each token of the prompt with the row that lands on it."""
        import pandas as pd

        columns = (self.placement[name] for name in ("token", "row", "norm"))
        return [
            (str(token), None if row is pd.NA else int(row), float(norm))
            for token, row, norm in zip(*columns, strict=True)
        ]

    def _shifted(self, title: str, *, likelier: bool) -> display.Markup:
        """The tokens whose probability rose, or fell, the most."""
        change = self.shift["p_steered"] - self.shift["p_clean"]
        order = change.sort_values(ascending=not likelier, kind="stable").index[:TOP]
        columns = ["token", "p_clean", "p_steered", "log_ratio"]
        rows = [*self.shift.loc[order, columns].itertuples(index=False, name=None)]
        largest = max(max(clean, steered) for _, clean, steered, _ in rows)
        lines = [
            (repr(token), clean, steered, ratio, display.bar(max(clean, steered) / largest))
            for token, clean, steered, ratio in rows
        ]
        return display.table([title, "p clean", "p steered", "log ratio", ""], lines)


@dataclass(eq=False, repr=False)
class Explorer:
    """Knobs, and what the last turn of one came to. Shows itself in a notebook."""

    widget: Any
    """The ipywidgets container; ``widget.children`` are its parts."""
    knobs: Mapping[str, Any]
    """The widgets by name: "positive", "negative", "rows", "layer", "coefficient", "position",
    "prompt", "seed"."""
    trial: Trial
    """What the last settings that made sense came to: vector, completions, shift."""

    @property
    def vector(self) -> SteeringVector:
        """The vector of ``trial``, to go on with: measure it, save it."""
        return self.trial.vector

    def close(self) -> None:
        """Let go of the model: widgets live as long as the kernel unless they are closed."""
        for knob in self.knobs.values():
            knob.unobserve_all()
            knob.close()
        self.widget.close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)


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
    """Widgets for pair, layer, coefficient, position and prompt, and what they come to.

    Each turn shows which rows land on which token, clean beside steered completions with the same
    random numbers, the tokens whose probability changes most, and KL(steered || clean) of the next
    token. The bundled model answers within a second; a large one takes as long as it takes to
    generate. What makes no sense, such as a vector that does not fit, is told in place of a result.
    An explorer holds its model until it is closed: ``explorer.close()``.

    Args:
        model: Any TransformerBridge with a tokenizer; the bundled model by default.
        pair: Contrast pair to begin with.
        prompt: Text to begin with.
        layer: Injection layer to begin with; by default that in the middle.
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
        ActAddError: What to begin with makes no sense; the error is that of ``generate``.

    >>> explorer = explore(load_model("testbed"), layer=1, samples=1, max_new_tokens=4)
    >>> explorer.knobs["coefficient"].value = -2.0
    >>> explorer.vector.layer, len(explorer.trial.comparison.clean)
    (1, 1)
    """
    require("ipywidgets", "notebook", "the explorer")
    bridge = load_model() if model is None else model
    contrast = as_pair(pair)
    last = bridge.n_layers(bridge) - 1
    if layer is not None:
        bridge.check_layers(bridge, [layer])
    begun: dict[str, Any] = {
        "positive": contrast.positive,
        "negative": contrast.negative,
        "rows": "all",
        "layer": (last + 1) // 2 if layer is None else layer,
        "coefficient": float(coefficient),
        "position": str(position),
        "prompt": prompt,
        "seed": seed,
    }
    options = {"samples": samples, "max_new_tokens": max_new_tokens, **sampling}
    tried = _trier(bridge, contrast.pad, options)
    return _explorer(_knobs(begun, last), tried, tried(**begun))


def _trier(bridge: Bridge, pad: str | int, options: dict[str, Any]) -> Callable[..., Trial]:
    """What settings come to; the last pair's vectors and the last prompt's clean run are kept."""

    @lru_cache(maxsize=1)
    def vectors(positive: str, negative: str) -> dict[int, SteeringVector]:
        return extract(bridge, ContrastPair(positive, negative, pad))

    @lru_cache(maxsize=1)
    def clean(prompt: str, seed: int) -> Completions:
        return generate(bridge, prompt, seed=seed, **options)

    def tried(
        positive: str,
        negative: str,
        rows: Rows,
        layer: int,
        coefficient: float,
        position: str,
        prompt: str,
        seed: int,
    ) -> Trial:
        vector = coefficient * vectors(positive, negative)[layer]
        vector = (vector if rows == "all" else vector.collapse(rows)).at(_place(position))
        lands = vector.position != "generated"
        steered = generate(bridge, prompt, vector, seed=seed, **options)
        return Trial(
            vector,
            Comparison(clean(prompt, seed), steered),
            next_token_shift(bridge, prompt, vector),
            placement(bridge, vector, prompt),
            float(dose(bridge, vector, prompt)["dose"].max()) if lands else None,
        )

    return tried


def _place(position: str) -> int | str:
    """A position as it was typed: a number, or a name."""
    typed = position.strip()
    return int(typed) if typed.removeprefix("-").isdecimal() else typed


def _knobs(begun: Mapping[str, Any], last_layer: int) -> dict[str, Any]:
    import ipywidgets as widgets

    end = max(LARGEST, abs(begun["coefficient"]))
    look: dict[str, Any] = {"continuous_update": False, "style": {"description_width": "5.5em"}}
    wide = widgets.Layout(width="98%")
    made = {
        "positive": widgets.Text(layout=wide, **look),
        "negative": widgets.Text(layout=wide, **look),
        "rows": widgets.Dropdown(options=["all", "mean", "last"], layout=wide, style=look["style"]),
        "layer": widgets.IntSlider(min=0, max=last_layer, layout=wide, **look),
        "coefficient": widgets.FloatSlider(min=-end, max=end, step=0.5, layout=wide, **look),
        "position": widgets.Combobox(options=[*ANCHORS, *SPREADS, "1"], layout=wide, **look),
        "prompt": widgets.Text(layout=wide, **look),
        "seed": widgets.IntText(layout=wide, **look),
    }
    for name, knob in made.items():
        knob.description, knob.value = name, begun[name]
    return made


def _explorer(knobs: dict[str, Any], tried: Callable[..., Trial], first: Trial) -> Explorer:
    """The knobs with their result below them, made anew at each turn."""
    import ipywidgets as widgets

    result = widgets.HTML(first._repr_html_())
    half = widgets.Layout(width="50%")
    columns = [
        widgets.VBox([knobs[name] for name in names], layout=half)
        for names in (
            ("positive", "negative", "rows", "seed"),
            ("layer", "coefficient", "position"),
        )
    ]
    page = widgets.VBox([widgets.HBox(columns), knobs["prompt"], result])
    explorer = Explorer(page, knobs, first)

    def turned(_: object) -> None:
        result.value = display.block("running ...")  # an interrupt leaves nothing stale
        try:
            trial = tried(**{name: knob.value for name, knob in knobs.items()})
        except Exception as error:
            result.value = display.block(type(error).__name__, display.html(error))
            if isinstance(error, ActAddError):
                return
            raise
        explorer.trial = trial
        result.value = trial._repr_html_()

    for knob in knobs.values():
        knob.observe(turned, names="value")
    return explorer
