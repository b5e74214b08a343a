"""Sweeps: many ways to steer, measured at close to the least arithmetic that does it.

``cells`` says what is tried and ``controls`` what it is set beside; ``reading`` takes logit
metrics, as many at once as ``budget`` allows, and ``writing`` completion metrics; ``store`` keeps
what is made, and ``identity`` and ``settings`` tell if it is of the same measurement; ``measuring``
runs it all, ``tables`` makes the table of it; ``results`` and ``search`` are what a caller gets;
``grids`` is the way in.
"""

from actadd_lens.sweeps.grids import coefficient_sweep as coefficient_sweep
from actadd_lens.sweeps.grids import layer_sweep as layer_sweep
from actadd_lens.sweeps.grids import sweep as sweep
from actadd_lens.sweeps.results import Result as Result
from actadd_lens.sweeps.search import Best as Best
from actadd_lens.sweeps.search import SweepResult as SweepResult
