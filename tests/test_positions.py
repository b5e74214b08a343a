import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import start_of

import actadd_lens as al
from actadd_lens.steering.positions import NO_ROW, check_rows, parse, row_index

ANCHORED = st.one_of(st.sampled_from(["front", "middle", "back"]), st.integers(-8, 8))


def landing(position, n_rows, real):
    return row_index(parse(position), torch.tensor(real, dtype=torch.bool), n_rows).tolist()


@pytest.mark.parametrize(
    ("position", "n_tokens", "n_rows", "expected"),
    [
        ("front", 10, 4, "3333111111"),
        ("back", 10, 4, "1111113333"),
        ("middle", 10, 4, "1113333111"),
        ("middle", 9, 4, "113333111"),
        ("middle", 9, 3, "111333111"),
        (3, 6, 2, "111331"),
        (-2, 6, 2, "111133"),
        (0, 1, 1, "3"),
    ],
)
def test_ones_plus_two(position, n_tokens, n_rows, expected):
    [rows] = landing(position, n_rows, [[1] * n_tokens])
    assert "".join("1" if row == NO_ROW else "3" for row in rows) == expected
    assert [row for row in rows if row != NO_ROW] == list(range(n_rows))


@given(
    position=ANCHORED,
    n_rows=st.integers(1, 5),
    padding=st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=4
    ),
)
def test_padding_on_either_side_moves_nothing(position, n_rows, padding):
    """Each prompt of a ragged batch gets what its definition says of it alone."""
    width = max(map(sum, padding))
    masks = [
        [0] * left + [1] * length + [0] * (width - left - length) for left, length, _ in padding
    ]
    starts = [start_of(position, length, n_rows) for _, length, _ in padding]
    fits = [
        start >= 0 and start + n_rows <= length
        for start, (_, length, _) in zip(starts, padding, strict=True)
    ]
    if not all(fits):
        with pytest.raises(al.PositionError, match=rf"prompt {fits.index(False)} has"):
            landing(position, n_rows, masks)
        return
    for rows, start, (left, _, _) in zip(
        landing(position, n_rows, masks), starts, padding, strict=True
    ):
        expected = [NO_ROW] * width
        expected[left + start : left + start + n_rows] = range(n_rows)
        assert rows == expected


def test_padding_inside_a_prompt_is_not_counted():
    assert landing(1, 2, [[1, 0, 1, 0, 1]]) == [[NO_ROW, NO_ROW, 0, NO_ROW, 1]]


def test_one_row_goes_to_every_token_meant():
    mask = [[0, 1, 1], [1, 1, 0]]
    everywhere = [[NO_ROW, 0, 0], [0, 0, NO_ROW]]
    assert landing("prompt", 1, mask) == everywhere
    assert landing("all", 1, mask) == everywhere
    assert landing("generated", 1, mask) == [[NO_ROW] * 3] * 2
    assert [p for p in ("prompt", "generated", "all", "front") if parse(p).steers_generated] == [
        "generated",
        "all",
    ]


def test_what_does_not_fit_is_told_with_both_lengths_and_the_prompt():
    mask = [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]
    with pytest.raises(al.PositionError, match=r"vector has 5 rows, prompt 1 has 3 tokens"):
        landing("front", 5, mask)
    with pytest.raises(al.PositionError, match=r"2 rows, prompt 1 has 3 tokens.*position 3 "):
        landing(3, 2, mask)
    with pytest.raises(al.PositionError, match=r"1 row, prompt 0 has 0 tokens"):
        landing("back", 1, [[0, 0]])


@pytest.mark.parametrize("position", ["last", "", True])
def test_an_unknown_position_is_answered_with_the_list(position):
    with pytest.raises(al.PositionError, match=r"unknown position.*'front', 'middle', 'back'"):
        parse(position)


@pytest.mark.parametrize("position", ["prompt", "generated", "all"])
def test_one_row_positions_take_one_row(position):
    check_rows(position, 1)
    with pytest.raises(al.PositionError, match=r"this vector has 2: .*v\.collapse\('mean'\)"):
        check_rows(position, 2)
