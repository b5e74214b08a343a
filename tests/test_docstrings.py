"""Every example in a docstring is run and says what it gives."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest
import torch

import actadd_lens as al
from actadd_lens.models import load as models

pytestmark = pytest.mark.slow  # many sweeps, or the examples of every docstring

PACKAGE = Path(al.__file__).parent
ROOMS = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("room", ROOMS)
def test_examples(room, monkeypatch, checkpoint):
    # A small model answers for the bundled one: no example depends on what it was trained on.
    monkeypatch.setattr(models, "TESTBED", checkpoint("gpt-neo"))
    known = {"torch": torch, "al": al, "load_model": al.load_model}
    known["SteeringVector"] = al.SteeringVector
    module = import_module(room)
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testmod(module, extraglobs=known, optionflags=options)
    assert result.failed == 0
