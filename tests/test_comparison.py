"""Two runs of the same keys, side by side."""

import io
from typing import Any

import pytest
from rich.console import Console

import actadd_lens as al
from actadd_lens.models.base import Bridge

PROMPTS = ["I hate you because", "The wedding was"]


def vector(model: Bridge) -> al.SteeringVector:
    return 4 * al.SteeringVector.from_pair(model, ("Love", "Hate"), 1)


def shown(text: str, prompt: str = "p") -> al.Comparison:
    """A comparison whose steered completion has this text."""
    runs = [
        al.Completions((al.Completion(prompt, t, (1,), (-1.0,), 0, 0),)) for t in ("clean", text)
    ]
    return al.Comparison(*runs)


def test_both_runs_are_those_of_generate(model: Bridge) -> None:
    options: dict[str, Any] = {"samples": 2, "seed": 7, "max_new_tokens": 5, "top_k": 50}
    found = al.compare(model, PROMPTS, vector(model), **options)
    assert found.clean == al.generate(model, PROMPTS, **options)
    assert found.steered == al.generate(model, PROMPTS, vector(model), **options)


def test_a_zero_vector_changes_nothing(model: Bridge) -> None:
    found = al.compare(model, PROMPTS, 0 * vector(model), max_new_tokens=5)
    assert len(found.clean) == 6
    assert found.clean == found.steered


def test_the_frame_is_tidy(model: Bridge) -> None:
    found = al.compare(model, PROMPTS, vector(model), samples=2, max_new_tokens=3)
    frame = found.frame
    assert list(frame.columns) == ["run", *found.clean.frame.columns]
    assert frame["run"].tolist() == ["clean", "steered"] * 4
    steered = frame[frame["run"] == "steered"]
    assert steered["text"].tolist() == [c.text for c in found.steered]


def test_it_prints_as_a_table_without_markup_or_colour() -> None:
    text = str(shown("[bold]no markup[/bold]"))
    assert "[bold]no markup[/bold]" in text
    assert "\x1b" not in text
    for heading in ("prompt", "clean", "steered"):
        assert heading in text


def test_rich_renders_it() -> None:
    console = Console(file=io.StringIO(), width=60)
    console.print(shown("behind"))
    assert "behind" in console.file.getvalue()


def test_html_is_escaped() -> None:
    html = shown("<script>alert('x')</script> & more", prompt="<b>")._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html
    assert "&amp; more" in html


def test_an_unknown_keyword_raises(model: Bridge) -> None:
    with pytest.raises(TypeError, match="temprature"):
        al.compare(model, PROMPTS, vector(model), temprature=0.5)


def test_a_notebook_gets_the_text_as_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    # There, rich displays what it is to print, and nothing would be left to return.
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert "steered" in repr(shown("some text"))
