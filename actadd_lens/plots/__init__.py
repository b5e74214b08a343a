"""Every figure. Tidy frames in, matplotlib figures out; nothing global is touched or shown.

Figures of cells read one row per cell: `control` ("steered" for steered cells, "clean" for the
clean run, anything else for a control), `layer`, `coefficient` (both empty in the clean row), and
`mean`, `low`, `high`, an interval, which may be empty; what is infinite is drawn as if it were
empty. Several values in a column `pair` or `position` make a panel for each; a row where they are
empty, such as the clean run, belongs into every panel. Controls "random:1", "random:2" are draws of
one control, "random", and drawn alike. A frame of several metrics has to be cut to one.

A figure is a `matplotlib.figure.Figure`: a notebook shows it, `figure.savefig` or `save` writes it
in any format that matplotlib knows. The look of all of them is in the style file `STYLE`, whatever
the caller's own settings are. Labels, units, notes and titles that are given as arguments may hold
mathtext; what stands in a frame, such as pairs and tokens, is shown as it is.
"""

from actadd_lens.plots.categories import bars
from actadd_lens.plots.curves import coefficient_curve, layer_profile
from actadd_lens.plots.fronts import pareto
from actadd_lens.plots.maps import heat_map
from actadd_lens.plots.norms import norm_profile
from actadd_lens.plots.passages import coloured_text
from actadd_lens.plots.placements import placement
from actadd_lens.plots.shifts import token_shift
from actadd_lens.plots.style import STYLE, save

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
