"""The explorer: its widgets give what the library gives, and errors are shown."""

import gc
import sys
import weakref
from typing import Any

import pytest
import torch

import actadd_lens as al
from actadd_lens import display as displays
from actadd_lens.models.base import Bridge

pytestmark = pytest.mark.slow  # many widgets

OPTIONS: dict[str, Any] = {"samples": 2, "max_new_tokens": 5}
PROMPT = "I hate you because she talks"


@pytest.fixture
def explorer(neo: Bridge) -> Any:
    return al.explore(neo, ("Love you", "Hate"), prompt=PROMPT, layer=1, coefficient=3, **OPTIONS)


def message(explorer: Any) -> str:
    return str(explorer.page.children[-1].value)


def test_it_begins_with_what_was_asked_for(neo: Bridge, explorer: Any) -> None:
    vector = 3 * al.SteeringVector.from_pair(neo, ("Love you", "Hate"), 1)
    assert explorer.vector == vector
    assert explorer.result.comparison == al.compare(neo, PROMPT, vector, **OPTIONS)
    shift = al.next_token_shift(neo, PROMPT, vector)
    assert explorer.result.kl == pytest.approx(float(shift["kl_contribution"].sum()))
    assert explorer.result.relative_norm == pytest.approx(
        float(al.dose(neo, vector, PROMPT)["dose"].max())
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("layer", 2, lambda m: 3 * al.SteeringVector.from_pair(m, ("Love you", "Hate"), 2)),
        ("coefficient", -2.0, lambda m: -2 * _vector(m)),
        ("position", "back", lambda m: 3 * _vector(m).at("back")),
        ("position", " -4 ", lambda m: 3 * _vector(m).at(-4)),
        ("rows", "mean", lambda m: 3 * _vector(m).collapse("mean")),
        ("positive", "Calm", lambda m: 3 * al.SteeringVector.from_pair(m, ("Calm", "Hate"), 1)),
        ("negative", "Calm", lambda m: 3 * al.SteeringVector.from_pair(m, ("Love you", "Calm"), 1)),
    ],
)
def test_each_widget_changes_its_own_setting(
    neo: Bridge, explorer: Any, name: str, value: Any, expected: Any
) -> None:
    before = message(explorer)
    explorer.widgets[name].value = value
    assert torch.allclose(explorer.vector.rows, expected(neo).rows, atol=1e-5)
    assert explorer.vector.position == expected(neo).position
    assert explorer.vector.layer == expected(neo).layer
    assert message(explorer) != before


def _vector(model: Bridge) -> al.SteeringVector:
    return al.SteeringVector.from_pair(model, ("Love you", "Hate"), 1)


def test_prompt_and_seed_change_both_runs(neo: Bridge, explorer: Any) -> None:
    explorer.widgets["prompt"].value = "The wedding was"
    explorer.widgets["seed"].value = 5
    expected = al.compare(neo, "The wedding was", explorer.vector, seed=5, **OPTIONS)
    assert explorer.result.comparison == expected


@pytest.mark.parametrize(
    ("name", "value", "reported"),
    [
        ("position", "nonsense", "unknown position"),
        ("position", "all", "repeats one row"),
        ("position", "99", "does not fit"),
        ("prompt", "", "prompt 0 is empty"),
        ("prompt", "<b>a</b> " * 40, "reads at most"),
    ],
)
def test_invalid_settings_show_their_error_and_the_last_result_stays(
    explorer: Any, name: str, value: str, reported: str
) -> None:
    before = explorer.result
    explorer.widgets[name].value = value
    assert reported in message(explorer)
    assert explorer.result is before


def test_any_other_error_is_shown_and_raised(
    explorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("actadd_lens.explorer.next_token_shift", fail)
    with pytest.raises(RuntimeError):
        explorer.widgets["coefficient"].value = 1.0
    assert "out of memory" in message(explorer)


def test_an_interrupt_leaves_no_stale_result(
    explorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    before = message(explorer)
    monkeypatch.setattr("actadd_lens.explorer.generate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        explorer.widgets["prompt"].value = "The wedding was"
    assert message(explorer) != before
    assert "running" in message(explorer)


def test_it_lets_go_of_the_model_when_it_is_closed(checkpoint: Any) -> None:
    model = al.load_model(checkpoint("gpt2"))
    held = weakref.ref(model)
    explorer = al.explore(model, layer=1, **OPTIONS)
    explorer.close()
    del model, explorer
    gc.collect()
    assert held() is None


def test_errors_are_escaped(explorer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise al.VectorError("<script>x</script>")

    monkeypatch.setattr("actadd_lens.explorer.next_token_shift", fail)
    explorer.widgets["coefficient"].value = 1.0
    assert "&lt;script&gt;" in message(explorer)


def test_a_result_is_escaped_and_says_which_run_is_which(neo: Bridge) -> None:
    hostile = "<b>She</b> talks about weddings"
    result = al.explore(neo, ("<i>Love", "Hate"), prompt=hostile, layer=1, **OPTIONS).result
    page = result._repr_html_()
    assert "<b>" not in page
    assert "<i>" not in page
    table = page.split("<table>")[1]
    assert table.index("clean") < table.index("steered")
    first = displays.html(result.comparison.clean[0].text)
    assert table.index(f">{first}</td>") < table.index(
        f">{displays.html(result.comparison.steered[0].text)}</td>"
    )
    likeliest = result.shift.assign(change=result.shift["p_steered"] - result.shift["p_clean"])
    up, down = likeliest["change"].idxmax(), likeliest["change"].idxmin()
    likelier, unlikelier = page.split("<table>")[2:4]
    assert displays.html(repr(result.shift["token"][up])) in likelier
    assert displays.html(repr(result.shift["token"][down])) in unlikelier
    figures = [f"{result.shift[name][up]:.3g}" for name in ("p_clean", "p_steered")]
    row = likelier.split("<tbody>")[1].split("</tr>")[0]
    assert row.index(f">{figures[0]}<") < row.index(f">{figures[1]}<")


def test_one_row_goes_everywhere(explorer: Any) -> None:
    explorer.widgets["rows"].value = "last"
    explorer.widgets["position"].value = "generated"
    assert explorer.vector.position == "generated"
    assert "no row is added to the prompt" in message(explorer)


def test_it_does_not_begin_with_what_cannot_be_shown(neo: Bridge) -> None:
    with pytest.raises(al.PromptError, match="prompt 0 is empty"):
        al.explore(neo, prompt="", layer=1, **OPTIONS)
    with pytest.raises(al.PositionError, match="unknown position 'nowhere'"):
        al.explore(neo, prompt=PROMPT, position="nowhere", layer=1, **OPTIONS)


def test_it_shows_itself_as_a_widget(explorer: Any) -> None:
    assert "application/vnd.jupyter.widget-view+json" in explorer._repr_mimebundle_()


def test_the_model_is_left_as_it_was(neo: Bridge, explorer: Any) -> None:
    clean = neo(PROMPT)
    explorer.widgets["coefficient"].value = 15.0
    assert torch.equal(neo(PROMPT), clean)


def test_bad_arguments(neo: Bridge) -> None:
    with pytest.raises(TypeError, match="temprature"):
        al.explore(neo, layer=1, temprature=1.0)
    with pytest.raises(al.LayerError, match="99"):
        al.explore(neo, layer=99)


def test_without_ipywidgets_the_extra_is_named(
    neo: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(al.MissingExtraError, match=r"actadd-lens\[notebook\]"):
        al.explore(neo, layer=1)
