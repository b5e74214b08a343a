import pytest

import actadd_lens as al
from actadd_lens import errors

ALL = [value for value in vars(errors).values() if isinstance(value, type)]


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
        al.OutputError,
        al.SweepFileError,
        al.TextFileError,
        al.VectorFileError,
    }
    assert {error for error in ALL if not issubclass(error, ValueError)} == not_values


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'stear'"):
        al.stear  # noqa: B018 - asking for it is the test
    assert "steer" in dir(al)
