"""Sweeps: many ways to steer, measured at close to the least arithmetic that does it.

In the order in which they import each other: ``configurations`` says what is run, controls
included; ``store`` saves the values, ``results`` makes a table of them; ``measurement`` checks what
is asked for, and runs the model. ``search`` holds the result of a sweep, ``grid`` and ``ablations``
the functions that a caller uses.
"""

from actadd_lens.sweeps.ablations import Ablation as Ablation
from actadd_lens.sweeps.ablations import ablate as ablate
from actadd_lens.sweeps.ablations import dimension_ablation as dimension_ablation
from actadd_lens.sweeps.ablations import layer_transplant as layer_transplant
from actadd_lens.sweeps.ablations import pair_variance as pair_variance
from actadd_lens.sweeps.ablations import position_ablation as position_ablation
from actadd_lens.sweeps.ablations import steering_reach as steering_reach
from actadd_lens.sweeps.configurations import Steered as Steered
from actadd_lens.sweeps.configurations import register_control as register_control
from actadd_lens.sweeps.grid import coefficient_sweep as coefficient_sweep
from actadd_lens.sweeps.grid import layer_sweep as layer_sweep
from actadd_lens.sweeps.grid import sweep as sweep
from actadd_lens.sweeps.results import Result as Result
from actadd_lens.sweeps.search import Best as Best
from actadd_lens.sweeps.search import SweepResult as SweepResult
