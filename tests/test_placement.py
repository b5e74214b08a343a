"""What is said to land where is what is added there."""

from typing import Any

import pandas as pd
import pytest
import torch
from conftest import D_MODEL
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al
from actadd_lens import plots
from actadd_lens.models.base import Bridge
from actadd_lens.steering.placement import rows_on

PROMPTS = ["I love you", "The wedding was on a sunny day"]
POINT = "blocks.1.hook_resid_pre"


def rows(n: int) -> torch.Tensor:
    return torch.randn(n, D_MODEL, generator=torch.Generator().manual_seed(n))


@given(
    n_rows=st.integers(1, 3),
    position=st.sampled_from(["front", "middle", "back", 1, -3, "prompt", "all"]),
)
def test_the_stream_changes_by_the_row_that_is_named(
    neo: Bridge, n_rows: int, position: int | str
) -> None:
    one_row = position in ("prompt", "all")
    vector = al.SteeringVector(rows(1 if one_row else n_rows), POINT, position)
    frame = al.placement(neo, vector, PROMPTS)
    for index, prompt in enumerate(PROMPTS):
        _, clean = neo.run_with_cache(prompt)
        with al.steer(neo, vector):
            _, steered = neo.run_with_cache(prompt)
        change = (steered[POINT] - clean[POINT])[0]
        said = frame[frame["prompt_index"] == index]
        assert said["position"].tolist() == list(range(len(change)))
        for place, (row, norm) in enumerate(zip(said["row"], said["norm"], strict=True)):
            added = torch.zeros(D_MODEL) if row is pd.NA else vector.rows[int(row)]
            torch.testing.assert_close(change[place], added, atol=1e-5, rtol=1e-5)
            assert norm == pytest.approx(float(added.norm()), rel=1e-5)


def test_tokens_are_the_prompts_bos_included(neo: Bridge) -> None:
    frame = al.placement(neo, al.SteeringVector(rows(1), POINT), PROMPTS)
    texts = frame.groupby("prompt_index")["token"].agg("".join).tolist()
    assert texts == [f"<|endoftext|>{prompt}" for prompt in PROMPTS]


def test_each_vector_is_told_apart(neo: Bridge) -> None:
    vector = al.SteeringVector(rows(2), POINT)
    frame = al.placement(neo, [vector, vector.at("back")], "I love you")
    first, second = (frame[frame["vector"] == which]["row"].notna() for which in (0, 1))
    assert first.tolist() == second.tolist()[::-1]


def test_nothing_lands_on_the_prompt_of_a_vector_for_generated_tokens(neo: Bridge) -> None:
    frame = al.placement(neo, al.SteeringVector(rows(1), POINT, "generated"), PROMPTS)
    assert frame["row"].isna().all()
    assert (frame["norm"] == 0).all()


def test_the_model_is_not_run(neo: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr(type(neo), "forward", run)
    assert len(al.placement(neo, al.SteeringVector(rows(1), POINT), PROMPTS))


@pytest.mark.parametrize(
    ("steering", "prompts", "error", "told"),
    [
        (None, PROMPTS, al.VectorError, "no vector to place"),
        (al.SteeringVector(rows(9), POINT), ["The wedding", "I"], al.PositionError, "9 rows"),
        (al.SteeringVector(rows(1), POINT), [], al.PromptError, "empty"),
    ],
)
def test_what_cannot_be_placed(
    neo: Bridge, steering: Any, prompts: list[str], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        al.placement(neo, steering, prompts)


def test_rows_on_names_the_prompt() -> None:
    with pytest.raises(al.PositionError, match="prompt 7 has 2 tokens"):
        rows_on(al.SteeringVector(rows(3), POINT), range(2), prompt=7)


def test_the_figure_numbers_the_tokens(neo: Bridge) -> None:
    vector = al.SteeringVector(torch.cat([torch.zeros(1, D_MODEL), rows(2)]), POINT, 1)
    figure = plots.placement(al.placement(neo, vector, PROMPTS))
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert [text for text in drawn if text.isdecimal()] == ["0", "1", "2"] * 2
    assert [text for text in drawn if text.startswith("prompt")] == ["prompt 0", "prompt 1"]


def test_the_figure_of_no_rows(neo: Bridge) -> None:
    frame = al.placement(neo, al.SteeringVector(rows(1), POINT), PROMPTS)
    with pytest.raises(al.FigureError, match="no rows"):
        plots.placement(frame.head(0))
    with pytest.raises(al.FigureError, match="lacks the columns"):
        plots.placement(frame.drop(columns="row"))


def test_bos_is_the_tokenizers_own(bridge: Any) -> None:
    frame = al.placement(bridge("llama"), al.SteeringVector(rows(1), POINT), "I love you")
    assert frame["token"][0] == "<s>"


def test_numbers_of_short_tokens_do_not_run_together() -> None:
    columns = ["prompt_index", "vector", "position", "token", "row", "norm"]
    lines = [(0, 0, place, text, place, 1.0) for place, text in enumerate("abc")]
    axes = plots.placement(pd.DataFrame(lines, columns=columns)).axes[0]
    heights = [t.get_position()[1] for t in axes.texts if t.get_text().isdecimal()]
    assert len(heights) == 3
    assert heights[0] != heights[1] != heights[2]
