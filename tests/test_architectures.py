"""Every architecture in every mode, against the plain Hugging Face model alone and without a cache.

The table in docs/reference/architectures.md says how each is run; it is compared with what this
run finds. Write it anew with ``python tests/test_architectures.py``.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ARCHITECTURES, BEYOND, D_MODEL
from oracle import Addition, greedy, logits, start_of, stream

import actadd_lens as al
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.plain import PlainModel, fast_model
from actadd_lens.models.tokens import encode, end_tokens, pad_left
from actadd_lens.models.watch import watched

TEXTS = ["I love you and you love me", "She talks", "The wedding was on a sunny day"]
ROWS = 2 * torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(3))
POSITIONS = ("front", "back", "prompt", "generated", "all")
LAYER, N_NEW = 1, 6
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "architectures.md"
UPSTREAM = ("bamba",)
"""In transformers 5.23 their cache continues a prompt otherwise than a whole pass does."""

Load = Callable[[str], Any]


def vector(position: str, layer: int = LAYER) -> al.SteeringVector:
    rows = ROWS if position in ("front", "back") else ROWS[:1]
    return al.SteeringVector(rows, f"blocks.{layer}.hook_resid_pre", position)


def expected(plain: Any, architecture: str, ids: list[int], position: str | None) -> list[int]:
    """The greedy completion by hand: rows on the prompt, and one on what is generated."""
    row, every, additions = ROWS[:1], [], []
    if position in ("front", "back"):
        start = start_of(position, len(ids), len(ROWS))
        additions = [Addition(LAYER, "resid_pre", ROWS, start)]
    if position in ("prompt", "all"):
        additions = [Addition(LAYER, "resid_pre", row.repeat(len(ids), 1))]
    if position in ("generated", "all"):
        every = [(LAYER, "resid_pre", row)]
    return greedy(plain, architecture, ids, N_NEW, additions, every)


@pytest.mark.parametrize("architecture", BEYOND)
@pytest.mark.parametrize("position", [None, *POSITIONS])
def test_a_padded_batch_is_completed_as_each_prompt_alone(
    bridge: Load, plain: Load, architecture: str, position: str | None
) -> None:
    model, steering = bridge(architecture), position and vector(position)
    made = al.generate(
        model, TEXTS, steering, temperature=0, max_new_tokens=N_NEW, stop_at_eos=False
    )
    ids = [encode(model, text) for text in TEXTS]
    want = [expected(plain(architecture), architecture, row, position) for row in ids]
    assert [list(completion.tokens) for completion in made] == want


@pytest.mark.parametrize("architecture", BEYOND)
def test_samples_depend_neither_on_batch_nor_on_rows_that_end(
    bridge: Load, architecture: str
) -> None:
    model = bridge(architecture)
    options: dict[str, Any] = {"samples": 2, "max_new_tokens": N_NEW}
    one = al.generate(model, TEXTS, vector("all"), batch_size=1, stop_at_eos=False, **options)
    together = al.generate(model, TEXTS, vector("all"), stop_at_eos=False, **options)
    assert [item.tokens for item in together] == [item.tokens for item in one]
    # Some token that was drawn early ends a row; all else must stay as it was.
    end, tokenizer = one[2].tokens[1], model.tokenizer
    before, tokenizer.eos_token_id = tokenizer.eos_token_id, end
    try:
        cut = al.generate(model, TEXTS, vector("all"), **options)
        ends = end_tokens(model)
    finally:
        tokenizer.eos_token_id = before
    for whole, part in zip(one, cut, strict=True):
        n_kept = len(part.tokens)
        assert part.tokens == whole.tokens[:n_kept]
        assert n_kept == N_NEW or part.tokens[-1] in ends


@pytest.mark.parametrize("architecture", BEYOND)
def test_a_sweep_is_the_oracle_at_every_layer(bridge: Load, plain: Load, architecture: str) -> None:
    model, hf = bridge(architecture), plain(architecture)
    what = {str(layer): vector("front", layer) for layer in range(BridgeModel(model).n_layers)}
    frame = al.sweep(model, what, TEXTS, coefficients=[1.0], metrics=["kl"], controls=()).frame
    found = frame[frame["run"] == "steered"].set_index(["vector", "prompt_index"])["value"]
    for index, text in enumerate(TEXTS):
        ids = encode(model, text)
        clean = logits(hf, architecture, ids)[-1].log_softmax(-1)
        for layer in what:
            additions = [Addition(int(layer), "resid_pre", ROWS)]
            steered = logits(hf, architecture, ids, additions)[-1].log_softmax(-1)
            kl = float((steered.exp() * (steered - clean)).sum())
            assert found[layer, index] == pytest.approx(kl, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["openai-gpt", "recurrent-gemma"])
def test_prompted_controls_need_no_padding(bridge: Load, architecture: str) -> None:
    options: dict[str, Any] = {"coefficients": [1.0], "layers": [1], "controls": ["prompted"]}
    texts = ["Love", "Hate"]  # longer by different numbers of tokens, once a text is in front
    frame = al.sweep(bridge(architecture), ("I", "She"), texts, metrics="kl", **options).frame
    assert frame[frame["run"] == "prompted"]["value"].notna().all()


@pytest.mark.parametrize("architecture", BEYOND)
def test_rows_are_those_of_the_plain_model(bridge: Load, plain: Load, architecture: str) -> None:
    model = bridge(architecture)
    positive, negative = al.ContrastPair("Love", "Hate").tokens(model).tolist()
    for layer, found in al.extract(model, ("Love", "Hate")).items():
        streams = [
            stream(plain(architecture), architecture, side, layer, "resid_pre")
            for side in (positive, negative)
        ]
        torch.testing.assert_close(found.rows, streams[0] - streams[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", [name for name in BEYOND if name not in UPSTREAM])
@pytest.mark.parametrize("position", POSITIONS)
def test_steer_and_the_bridges_own_generation(
    bridge: Load, plain: Load, architecture: str, position: str
) -> None:
    model = bridge(architecture)
    for text in TEXTS[:2]:
        ids = encode(model, text)
        with al.steer(model, vector(position)):
            made = model.generate(
                torch.tensor([ids]),
                max_new_tokens=N_NEW,
                do_sample=False,
                stop_at_eos=False,
                verbose=False,
                return_type="tokens",
            )
        want = expected(plain(architecture), architecture, ids, position)
        assert made[0, len(ids) :].tolist() == want


BARE = [name for name in (*ARCHITECTURES, *BEYOND) if name not in UPSTREAM]


@pytest.mark.parametrize("architecture", BARE)
@pytest.mark.parametrize("position", POSITIONS)
def test_steer_takes_a_bare_hugging_face_model(
    bridge: Load, plain: Load, architecture: str, position: str
) -> None:
    """Alone and in a padded batch, with the cache of transformers."""
    model, hf = bridge(architecture), plain(architecture)
    rows = [encode(model, text) for text in TEXTS[:2]]
    pads = BridgeModel(model).supports("padding")
    batches = [rows] if pads else [[row] for row in rows]
    made: list[list[int]] = []
    for batch in batches:
        width = max(map(len, batch))
        tokens, mask = pad_left(batch, 0)
        options = {"attention_mask": mask} if pads else {}
        with al.steer(hf, vector(position)):
            out = hf.generate(
                tokens,
                **options,
                max_new_tokens=N_NEW,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                use_cache=BridgeModel(model).supports("cache"),
            )
        made += out[:, width:].tolist()
    want = [expected(hf, architecture, row, position) for row in rows]
    assert made == want


def described(model: Bridge) -> tuple[str, ...]:
    """How a model is run: a row of the table."""
    own, fast = BridgeModel(model), fast_model(model)
    layers = [layer for layer in range(own.n_layers) if fast.supports("start at a layer", layer)]
    starts = "every layer" if len(layers) == own.n_layers else f"layers {layers}"
    return (
        "together, padded" if own.supports("padding") else "of equal length together",
        "cached" if own.supports("cache") else "all tokens anew at each step",
        starts if isinstance(fast, PlainModel) and layers else "whole passes",
        "yes" if isinstance(fast, PlainModel) else "no",
    )


def lines(load: Load) -> Iterator[str]:
    """The lines of the table."""
    yield "| architecture | prompts are read | decoding | sweeps start at | shared-weight model |"
    yield "|---|---|---|---|---|"
    for architecture in (*ARCHITECTURES, *BEYOND):
        yield f"| {architecture} | {' | '.join(described(load(architecture)))} |"


@pytest.mark.slow
def test_the_table_says_how_each_architecture_is_run(bridge: Load) -> None:
    page = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line for line in page if line.startswith("|")] == list(lines(bridge))


@pytest.mark.parametrize("architecture", ["llama", "mamba", "gemma4"])
def test_what_is_found_out_under_hooks_is_what_is_found_without(
    checkpoint: Callable[[str], Path], architecture: str
) -> None:
    model = al.load_model(checkpoint(architecture), device="cpu")
    with al.steer(model, vector("front")), watched(model):
        assert BridgeModel(model).supports("padding")
        assert BridgeModel(model).supports("cache")


def main() -> None:
    """Write the table anew."""
    import tempfile

    import conftest
    from architectures import save

    def load(architecture: str) -> Bridge:
        place = Path(tempfile.mkdtemp())
        if architecture in BEYOND:
            save(architecture, conftest.make_tokenizer(own_bos=True), place)
        else:
            conftest.make_checkpoint(architecture, place)
        return al.load_model(place, device="cpu")

    page = PAGE.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(page) if line.startswith("|"))
    last = max(i for i, line in enumerate(page) if line.startswith("|"))
    PAGE.write_text(
        "\n".join([*page[:first], *lines(load), *page[last + 1 :]]) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    sys.exit(main())
