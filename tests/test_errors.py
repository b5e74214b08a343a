import subprocess
import sys

import pytest

import actadd_lens as al
from actadd_lens import errors

ALL = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.ActAddError)
]


@pytest.mark.parametrize("error", ALL)
def test_one_base_catches_all(error):
    assert issubclass(error, al.ActAddError)
    assert getattr(al, error.__name__) is error


def test_a_rejected_value_is_a_value_error():
    not_values = {
        al.ActAddError,
        al.DataError,
        al.MissingExtraError,
        al.ModelLoadError,
        al.ModelTypeError,
        al.NumericsError,
        al.OutputError,
        al.SweepFileError,
        al.TextFileError,
        al.VectorFileError,
    }
    assert {error for error in ALL if not issubclass(error, ValueError)} == not_values


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No actadd_lens attribute stear"):
        al.stear  # noqa: B018 - asking for it is the test
    assert "steer" in dir(al)


WRONG_TYPES = """
import torch
import actadd_lens as al

model = al.load_model(PLACE)
vector = al.SteeringVector(torch.ones(2, model.cfg.d_model), "blocks.1.hook_resid_pre")
for attempt in (
    lambda: al.score(["a text"], "weddings"),
    lambda: vector.with_rows(1),
    lambda: al.extract(model, ("Love", "Hate"), ["1"]),
    lambda: al.statistics.mean(["a", 1.0]),
    lambda: vector.save("."),
    lambda: al.generate(model, "Love", {1: vector}),
):
    try:
        attempt()
    except al.ActAddError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_wrong_types_are_told(checkpoint):
    # In a process of its own: here every type is checked before the package sees the value.
    code = WRONG_TYPES.replace("PLACE", repr(str(checkpoint("gpt2"))))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        "MetricError completion 0 is a str: give what generate returns; for a text of your own "
        "al.Completion('', text, (), (), 0, 0)",
        "VectorError rows 1 are no list: write e.g. [1, 2]",
        "LayerError layer '1' is no integer: give one, 0 is the first",
        "StatisticsError values are not all numbers (could not convert string to float: 'a'): "
        "give one per sample",
        "OutputError cannot write '.': name a file, this is a directory",
        "VectorError cannot steer with a dict: take the vector of one layer, e.g. vectors[1]",
    ]
