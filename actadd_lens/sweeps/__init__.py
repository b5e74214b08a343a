"""Sweeps: many ways to steer, measured at close to the least arithmetic that does it.

In the order in which they import each other: ``controls`` and ``configurations`` say what is run;
``measurement`` is what is asked for, checked; ``logits`` and ``completions`` run the model;
``store`` and ``results`` save the values and make a table of them; ``measuring`` does it all.
``search`` holds the result of a sweep, ``grid`` and ``ablations`` the functions that a caller uses.
"""

from actadd_lens.sweeps.ablations import Ablation as Ablation
from actadd_lens.sweeps.ablations import ablate as ablate
from actadd_lens.sweeps.ablations import dimension_ablation as dimension_ablation
from actadd_lens.sweeps.ablations import layer_transplant as layer_transplant
from actadd_lens.sweeps.ablations import pair_variance as pair_variance
from actadd_lens.sweeps.ablations import position_ablation as position_ablation
from actadd_lens.sweeps.controls import Steered as Steered
from actadd_lens.sweeps.controls import register_control as register_control
from actadd_lens.sweeps.effect_by_token import steering_reach as steering_reach
from actadd_lens.sweeps.grid import coefficient_sweep as coefficient_sweep
from actadd_lens.sweeps.grid import layer_sweep as layer_sweep
from actadd_lens.sweeps.grid import sweep as sweep
from actadd_lens.sweeps.results import Result as Result
from actadd_lens.sweeps.search import Best as Best
from actadd_lens.sweeps.search import SweepResult as SweepResult
