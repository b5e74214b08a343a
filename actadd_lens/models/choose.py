"""Which implementation runs a pass: the fastest one that gives the right values."""

from collections.abc import Iterable

from actadd_lens.models.base import Bridge, Model
from actadd_lens.models.bridge import BridgeModel, entered_layer
from actadd_lens.models.partial import PartialModel
from actadd_lens.models.plain import shared_model


def fast_model(model: Bridge, points: Iterable[str] = ()) -> Model:
    """The shared-weight plain model where it can do the work, else the bridge.

    It cannot while a caller's hooks are attached to the bridge, where an edited or read hook point
    is not the stream that enters a block, and for models that cannot be rebuilt. The reason is
    logged once for each model.

    Args:
        model: In eval mode.
        points: Hook points that are edited or read.
    """
    plain = shared_model(model)
    if plain is None or any(entered_layer(model, name) is None for name in points):
        return BridgeModel(model)
    return PartialModel(plain)
