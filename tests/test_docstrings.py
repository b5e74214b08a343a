"""Every example in a docstring is run and says what it gives."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest
import torch

import actadd_lens as al
from actadd_lens import models

ROOMS = sorted(
    path.stem
    for path in Path(al.__file__).parent.glob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("room", ROOMS)
def test_examples(room, monkeypatch, checkpoint):
    # A small model answers for the bundled one: no example depends on what it was trained on.
    monkeypatch.setattr(models, "TESTBED", checkpoint("gpt-neo"))
    name = "actadd_lens" if room == "__init__" else f"actadd_lens.{room}"
    known = {"torch": torch, "al": al, "load_model": al.load_model}
    module = import_module(name)
    result = doctest.testmod(module, extraglobs=known, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
