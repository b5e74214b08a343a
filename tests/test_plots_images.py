"""Every figure looks as it did when it was last looked at.

The images of `tests/baseline` are renewed by
`pytest -n 0 tests/test_plots_images.py --mpl-generate-path tests/baseline`; look at them before
they are committed. They are small, and compared with a tolerance that lets letters differ a little.
"""

from __future__ import annotations

from functools import partial

import pandas as pd
import pytest

from actadd_lens import plots

compared = partial(
    pytest.mark.mpl_image_compare,
    baseline_dir="baseline",
    tolerance=12,
    style={},
    savefig_kwargs={"dpi": 50},
)
CLEAN = {"run": "clean", "mean": 0.1, "low": 0.05, "high": 0.2}


def cells(**columns: object) -> pd.DataFrame:
    """Three layers by three coefficients with a control, and the clean run."""
    lines = [
        {"layer": layer, "coefficient": c, "run": control, "mean": mean,
         "low": mean - 0.05, "high": mean + 0.08, "vector": "Love - Hate", **columns}
        for layer in range(3)
        for c in (1.0, 4.0, 8.0)
        for control, mean in (("steered", 0.2 + layer * c / 30), ("random", 0.1))
    ]  # fmt: skip
    return pd.DataFrame([*lines, CLEAN]).astype({"layer": "Int64", "coefficient": "Float64"})


@compared()
def test_layer_profile():
    return plots.layer_profile(cells(), ylabel="positive completions", unit="%", note="n = 100")


@compared()
def test_coefficient_curve():
    return plots.coefficient_curve(cells(), ylabel="positive completions", unit="%")


@compared()
def test_heat_map():
    return plots.heat_map(cells(), chosen=(2, 8.0), label="positive completions", unit="%")


@compared()
def test_bars():
    frame = pd.DataFrame(
        [
            {"part": f"row {row}", "ablation": ablation, "run": control, "mean": mean,
             "low": mean - 0.1, "high": mean + 0.1}
            for row in range(1, 4)
            for ablation, control, mean in (
                ("alone", "steered", 0.9 / row), ("left out", "steered", 0.2 * row),
                ("alone", "random", 0.1),
            )
        ]
        + [CLEAN]
    )  # fmt: skip
    return plots.bars(frame, x="part", group="ablation", ylabel="success", unit="%")


@compared()
def test_pareto():
    points = [(0.1, 0.2, True), (0.5, 0.6, True), (0.4, 1.0, False), (0.8, 2.0, True)]
    lines = [
        {"layer": i, "coefficient": 2.0, "run": "steered", "on_front": front, "success": success,
         "success_low": success - 0.05, "success_high": success + 0.05, "cost": cost,
         "cost_low": cost - 0.1, "cost_high": cost + 0.1}
        for i, (success, cost, front) in enumerate(points)
    ]  # fmt: skip
    return plots.pareto(pd.DataFrame(lines), success="success", cost="KL", cost_unit="nats")


@compared()
def test_norm_profile():
    rows = [
        (layer, position, 1000.0 if position == 0 else (layer + 1.0) * position)
        for layer in range(4)
        for position in range(6)
    ]
    frame = pd.DataFrame(rows, columns=["layer", "position", "norm"])
    return plots.norm_profile(frame, vectors={layer: 2.0 + layer for layer in range(4)})


@compared()
def test_token_shift():
    frame = pd.DataFrame(
        {
            "token": [" wedding", " $bride", "\n", " the"],
            "p_clean": [0.01, 0.001, 0.2, 0.4],
            "p_steered": [0.3, 0.1, 0.25, 0.2],
            "kl_contribution": [1.0, 0.46, 0.06, -0.14],
        }
    )
    return plots.token_shift(frame)


@compared()
def test_coloured_text():
    tokens = ["<s>", "Anna", " loved", " the", " wedding", ".", " It", " cost", " $", "5", "."]
    change = [float("nan"), 0.1, 1.5, 0.0, 2.5, -0.2, 0.0, -1.8, -0.4, 0.2, 0.0]
    return plots.coloured_text(tokens, change, title="change of log-prob")


@compared()
def test_placement():
    tokens = ["<s>", "Anna", " hated", " the", " $", "song", "."]
    lines = [
        (prompt, 0, place, token, place - start if 0 <= place - start < 3 else pd.NA, norm)
        for prompt, start in ((0, 0), (1, 4))
        for place, token in enumerate(tokens)
        for norm in [float(place != start)]
    ]
    columns = ["prompt_index", "vector", "position", "token", "row", "norm"]
    return plots.placement(pd.DataFrame(lines, columns=columns).astype({"row": "Int64"}))
