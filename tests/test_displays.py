"""What a notebook shows: everything there, everything escaped, no colours that a theme fights."""

import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al
from actadd_lens import display as displays
from actadd_lens.models.base import Bridge
from actadd_lens.sweeps.results import DISPLAYED
from actadd_lens.vectors.provenance import label_of

HOSTILE = "<script>alert('$x$')</script> & \"[bold]\""


class Read(HTMLParser):
    """Text and tags of a page; fails on tags that are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.styles, self._open = "", set[str](), "", list[str]()
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.styles += f"{dict(attributes).get('style', '')};"
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(value: Any) -> Read:
    return Read(value._repr_html_())


def completions(text: str, n: int = 1) -> al.Completions:
    items = [al.Completion(text, text, (1,), (-1.0,), index, 0) for index in range(n)]
    return al.Completions(tuple(items))


@pytest.fixture(scope="module")
def vector(neo: Bridge) -> al.SteeringVector:
    return 3 * al.SteeringVector.from_pair(neo, ("Love you", HOSTILE[:12]), 1)


@pytest.fixture(scope="module")
def result(neo: Bridge) -> al.SweepResult:
    return al.sweep(
        neo,
        {HOSTILE: ("Love", "Hate"), "other": ("Calm", "Anger")},
        ["I hate you", "She talks"],
        coefficients=[1, 2, 3, 4, 5],
        metrics=["kl", "entropy"],
        progress=False,
    )


@given(st.text())
def test_any_text_is_shown_and_nothing_of_it_is_markup(text: str) -> None:
    page = shown(al.Comparison(completions(text), completions(text)))
    assert page.tags <= {"div", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert displays.html(text) == displays.html(displays.html(text))
    assert "".join(text.split()) in "".join(page.text.split())


@pytest.mark.slow
def test_every_display_is_escaped(neo: Bridge, vector: al.SteeringVector, result: Any) -> None:
    ablation = al.position_ablation(
        neo, vector, ["I hate you because she talks"], metrics="kl", progress=False
    )
    runs = [vector, completions(HOSTILE), result, ablation]
    for value in [*runs, al.SteeringVector.from_prompt(neo, HOSTILE, 1)]:
        page = shown(value)
        assert "script" not in page.tags
        assert 'class="actadd-lens tex2jax_ignore mathjax_ignore"' in value._repr_html_()
    assert HOSTILE in shown(completions(HOSTILE)).text
    assert HOSTILE in shown(result).text


def test_no_colour_is_opaque(vector: al.SteeringVector, result: al.SweepResult) -> None:
    # What is no tint is the theme's own: an opaque colour is illegible in light or in dark.
    for value in (vector, result, al.Comparison(completions("a"), completions("b"))):
        page = shown(value)
        for declaration in re.findall(r"[\w-]*color: *([^;\"]+)", page.styles):
            assert re.fullmatch(r"rgba\(\d+, \d+, \d+, 0\.\d+\)", declaration)


def test_a_vector_shows_its_tokens_and_norms(neo: Bridge) -> None:
    vector = 2 * al.SteeringVector.from_pair(neo, ("Love", "Hate"), 1)
    text = shown(vector).text
    for part in ("'Love'", "'Hate'", "2 x ('Love' - 'Hate') at blocks.1.hook_resid_pre, front"):
        assert part in text
    assert f"{vector.norms()[1]:.3g}" in text


@pytest.mark.parametrize(
    "changed",
    [
        lambda v: v + v.shuffled(0),
        lambda v: v.collapse("mean"),
        lambda v: v.shuffled(0),
        lambda v: al.SteeringVector(v.rows, v.hook_point),
    ],
)
def test_rows_that_are_no_longer_of_a_token_name_none(neo: Bridge, changed: Any) -> None:
    vector = al.SteeringVector.from_pair(neo, ("Love you", "Hate"), 1)
    table = vector._repr_html_().split("<table>")
    assert "positive" in table[1]
    assert "positive" not in changed(vector)._repr_html_().split("<table>")[1]


def test_a_saved_vector_still_knows_its_tokens(vector: al.SteeringVector, tmp_path: Any) -> None:
    vector.save(tmp_path / "v.safetensors")
    again = al.SteeringVector.load(tmp_path / "v.safetensors")
    assert again._repr_html_() == vector._repr_html_()


def test_a_vector_of_zeros(neo: Bridge) -> None:
    assert "norm" in shown(al.SteeringVector(torch.zeros(2, 32), "blocks.1.hook_resid_pre")).text


def test_completions_beyond_the_limit_are_counted() -> None:
    assert "and 5 more" in shown(completions("text", 35)).text
    assert "more" not in shown(completions("text", 30)).text


def test_a_sweep_shows_each_cell_beside_its_controls(result: al.SweepResult) -> None:
    page = shown(result)
    for name in ("steered", "random", "negated", "clean", "95 % interval", "2 prompts"):
        assert name in page.text
    summary = result.summary()
    first = summary[(summary["run"] == "steered") & (summary["metric"] == "kl")].iloc[0]
    assert f"{first['mean']:.3g} [{first['low']:.3g}, {first['high']:.3g}]" in page.text
    n_cells = 2 * 3 * 5
    assert f"{n_cells - DISPLAYED} more configurations" in page.text
    assert page.text.count("steered") >= 2  # a table for either metric


def test_one_prompt_has_no_interval(neo: Bridge) -> None:
    one = al.sweep(neo, ("Love", "Hate"), "I hate", metrics="kl", layers=[1], progress=False)
    assert "no interval" in shown(one).text
    assert "nan" not in shown(one).text


def test_an_interrupted_result_says_so(result: al.SweepResult) -> None:
    cut = al.SweepResult(result.frame, result.provenance, complete=False)
    assert "interrupted" in shown(cut).text


@given(
    st.dictionaries(
        st.sampled_from(["kind", "positive", "prompt", "steps", "texts", "model"]),
        st.recursive(
            st.none() | st.integers() | st.sampled_from(["pair", "prompt", "a"]),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
            max_leaves=4,
        ),
    )
)
def test_any_provenance_of_a_callers_own_is_shown(provenance: dict[str, Any]) -> None:
    v = al.SteeringVector(torch.ones(2, 4), "blocks.1.hook_resid_pre", provenance=provenance)
    for vector in (v, 2 * v):
        assert "blocks.1.hook_resid_pre" in shown(vector).text
        assert label_of(vector.provenance)


@pytest.mark.slow
def test_each_figure_stands_under_its_own_run(result: al.SweepResult) -> None:
    table = result._repr_html_().split("<table>")[1]
    summary = result.summary()
    first = summary[summary["metric"] == "kl"].query("run != 'clean'").head(3)
    expected = [
        f"{mean:.3g} [{low:.3g}, {high:.3g}]"
        for mean, low, high in zip(first["mean"], first["low"], first["high"], strict=True)
    ]
    head, body = table.split("<tbody>")
    names = re.findall(r">([^<>]+)</th>", head)[-3:]
    figures = re.findall(r"nowrap\">([^<>]+)</span>", body.split("</tr>")[0])
    assert names == ["steered", *first["run"].tolist()[1:]]
    assert figures == expected
    assert "0.12" in re.findall(r"<th style=\"[^\"]*\">steered", head)[0]


def test_a_result_whose_steered_cells_came_last_counts_and_tints_rightly(
    result: al.SweepResult,
) -> None:
    # As an interrupt may leave it: controls are there, not every cell is.
    frame = result.frame
    late = frame[frame["run"].isin(["steered"])].query("coefficient < 2")
    order = pd.concat([frame[frame["run"] == "random"], late])
    page = shown(al.SweepResult(order, result.provenance, complete=False))
    assert not re.search(r"\.\.\. and -", page.text)
    assert page.text.index("steered") < page.text.index("interval")
    none = frame[frame["run"] == "random"]
    assert "0.12)" not in al.SweepResult(none, result.provenance)._repr_html_()


@pytest.mark.parametrize(
    ("shown", "delay", "is_drawn"),
    [(True, 60.0, True), (False, 0.0, False), (None, 60.0, False), (None, 0.0, True)],
)
def test_a_progress_bar_is_shown_when_asked_for_or_when_the_work_lasts(
    shown: bool | None, delay: float, is_drawn: bool, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(displays, "DELAY_SECONDS", delay)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with displays.bar(8, "text", "reading", shown, done=4) as advance:
        advance(4)
    written = capsys.readouterr().err
    assert ("8/8" in written) == is_drawn
    assert bool(written) == is_drawn
