"""Ablations: which rows, positions, dimensions, layers and pairs the effect hangs on.

Each takes a vector or pairs apart, runs the parts as cells of a sweep, with their controls, and
returns an ``Ablation``: a tidy table with intervals and a figure.
"""

from actadd_lens.sweeps.ablations.dimensions import dimension_ablation as dimension_ablation
from actadd_lens.sweeps.ablations.layers import layer_transplant as layer_transplant
from actadd_lens.sweeps.ablations.pairs import pair_variance as pair_variance
from actadd_lens.sweeps.ablations.positions import position_ablation as position_ablation
from actadd_lens.sweeps.ablations.reach import steering_reach as steering_reach
from actadd_lens.sweeps.ablations.results import Ablation as Ablation
