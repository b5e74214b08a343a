"""Figures: they read tidy frames and return matplotlib figures.

Figures of sweeps and ablations read one row per configuration: `run` ("steered", "clean", or the
name of a control), `layer`, `coefficient` (both empty in the clean row), and `mean`, `low`, `high`.
The interval may be empty; infinite values are drawn as if they were empty. Several values in a
column `vector` or `position` make one panel each; a row where they are empty, such as the clean
run, is in every panel. Controls "random:1", "random:2" are draws of one control, "random", and look
alike. A frame of several metrics must be cut to one.

A figure is a `matplotlib.figure.Figure`: a notebook shows it, `figure.savefig` or `save` writes it
in any format that matplotlib knows. Nothing global is changed. The style file `STYLE` sets the look
of all figures, whatever the caller's own settings are. Labels, units, notes and titles given as
arguments may hold mathtext; text from a frame, such as pairs and tokens, is shown as it is.
"""

from actadd_lens.plots.effects import bars, coefficient_curve, layer_profile, norm_profile
from actadd_lens.plots.grids import heat_map, pareto
from actadd_lens.plots.style import STYLE, save
from actadd_lens.plots.tokens import coloured_text, placement, token_shift

__all__ = [
    "STYLE",
    "bars",
    "coefficient_curve",
    "coloured_text",
    "heat_map",
    "layer_profile",
    "norm_profile",
    "pareto",
    "placement",
    "save",
    "token_shift",
]
