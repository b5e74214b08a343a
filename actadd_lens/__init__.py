"""Activation steering on TransformerLens: extract, inject, generate, compare.

>>> import actadd_lens as al
>>> model = al.load_model("testbed")
>>> vector = al.SteeringVector.from_pair(model, ("Love.", "Hate."), layer=2)
>>> with al.steer(model, 6 * vector):
...     logits = model("My friend")

Public names stand in ``__init__.pyi`` and are imported at first use, so that this import stays
quick.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
