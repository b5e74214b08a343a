import dataclasses
from pathlib import Path

import pytest
import torch
import transformers as hf
from conftest import make_tokenizer
from hypothesis import given
from hypothesis import strategies as st

import actadd_lens as al
from actadd_lens.models import footprint as footprints
from actadd_lens.models.footprint import check_memory, footprint
from actadd_lens.models.presets import PRESETS, shape_of

GIB = 2**30
shapes = st.sampled_from([preset.shape for preset in PRESETS.values()])
dtypes = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
sizes = st.integers(1, 300)


@pytest.fixture
def free(monkeypatch):
    """Sets how many GiB are free, by kind of device."""

    def set_free(cpu=0.0, cuda=0.0, n_gpus=0):
        gib = {"cpu": cpu, "cuda": cuda}
        monkeypatch.setattr(footprints, "free_memory", lambda device: int(gib[device.type] * GIB))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)

    return set_free


@given(shapes, dtypes, sizes, sizes, sizes)
def test_it_grows_with_rows_and_tokens(shape, dtype, rows, tokens, more):
    needed = footprint(shape, dtype, rows=rows, tokens=tokens)
    assert needed.batch < footprint(shape, dtype, rows=rows + more, tokens=tokens).batch
    assert needed.batch < footprint(shape, dtype, rows=rows, tokens=tokens + more).batch
    assert footprint(shape, dtype, rows=rows + more, tokens=tokens).total >= needed.total
    assert footprint(shape, dtype, rows=rows, tokens=tokens + more).total >= needed.total


@given(shapes, dtypes, st.integers(1, 10**9))
def test_it_grows_with_parameters(shape, dtype, more):
    larger = dataclasses.replace(shape, n_params=shape.n_params + more)
    grown = footprint(larger, dtype).total - footprint(shape, dtype).total
    assert grown == more * dtype.itemsize


@given(shapes, sizes, sizes)
def test_half_precision_halves_the_weights_and_the_cache(shape, rows, tokens):
    full = footprint(shape, torch.float32, rows=rows, tokens=tokens)
    half = footprint(shape, torch.float16, rows=rows, tokens=tokens)
    assert full.weights == 2 * half.weights == 4 * shape.n_params
    assert full.cache == 2 * half.cache
    assert full.logits == half.logits


@given(shapes, dtypes, sizes, sizes, st.integers(0, 100 * GIB))
def test_rows_that_fit_do_fit_and_one_more_does_not(shape, dtype, rows, tokens, free):
    needed = footprint(shape, dtype, rows=rows, tokens=tokens)
    fit = needed.rows_that_fit(free)
    if fit == 0:
        assert footprint(shape, dtype, tokens=tokens).total > free
    else:
        assert footprint(shape, dtype, rows=fit, tokens=tokens).total <= free
    assert footprint(shape, dtype, rows=fit + 1, tokens=tokens).total > free


def test_the_cache_is_what_transformers_keeps(plain):
    model = plain("llama")
    rows, tokens = 3, 7
    with torch.no_grad():
        cache = model(torch.ones(rows, tokens, dtype=torch.long), use_cache=True).past_key_values
    kept = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    shape = shape_of(Path(model.name_or_path))
    assert footprint(shape, torch.float32, rows=rows, tokens=tokens).cache == kept


def test_it_is_printed_in_gib():
    needed = footprint(PRESETS["gpt2-xl"].shape, torch.float16, rows=16, tokens=64)
    assert str(needed).startswith(f"{needed.total / GIB:.2f} GiB for 16 x 64 tokens: weights 2.90,")
    parts = needed.weights + needed.copies + needed.cache + needed.activations + needed.logits
    assert needed.total == parts + needed.allocator


@pytest.mark.parametrize(("rows", "tokens"), [(0, 1), (1, 0), (-1, 5)])
def test_nothing_holds_nothing(rows, tokens):
    with pytest.raises(al.PromptError, match=f"{rows} rows of {tokens} tokens"):
        footprint(PRESETS["gpt2"].shape, torch.float32, rows=rows, tokens=tokens)


def test_a_huge_model_is_refused_before_a_weight_is_opened(tmp_path):
    """There are none: whatever would open them raises something else."""
    config = hf.LlamaConfig(
        hidden_size=16384,
        num_hidden_layers=126,
        num_attention_heads=128,
        num_key_value_heads=8,
        intermediate_size=53248,
        vocab_size=128256,
    )
    config.save_pretrained(tmp_path)
    make_tokenizer(own_bos=True).save_pretrained(tmp_path)
    with pytest.raises(al.ModelLoadError, match=r"float32 does not fit on cpu: \d{4}\.\d\d GiB"):
        check_memory(tmp_path, dtype=torch.float32, device="cpu")


def test_what_fits_is_returned(free):
    free(cpu=1)
    needed = check_memory("gpt2", dtype=torch.float32, device="cpu", rows=4, tokens=32)
    assert needed == footprint(PRESETS["gpt2"].shape, torch.float32, rows=4, tokens=32)


def test_the_message_says_what_would_fit_on_a_cpu(free):
    free(cpu=4)
    with pytest.raises(al.ModelLoadError) as refused:
        check_memory("gpt2-xl", dtype=torch.float32, device="cpu")
    message = str(refused.value)
    assert "gpt2-xl in torch.float32 does not fit on cpu: 6.10 GiB are needed" in message
    assert "4.00 GiB are free" in message
    assert "dtype=torch.float16 (3.05 GiB)" in message
    assert "a smaller model such as gpt2-large (3.12 GiB)" in message
    assert "rows at once" not in message


def test_the_message_says_how_many_rows_would_fit(free):
    free(cpu=10)
    with pytest.raises(al.ModelLoadError, match=r"would fit: (\d+) rows at once") as refused:
        check_memory("gpt2-xl", dtype=torch.float32, device="cpu", rows=100)
    fit = int(str(refused.value).split("would fit: ")[1].split()[0])
    check_memory("gpt2-xl", dtype=torch.float32, device="cpu", rows=fit)


def test_the_message_names_other_devices(free):
    free(cpu=64, cuda=10, n_gpus=2)
    with pytest.raises(al.ModelLoadError) as refused:
        check_memory("meta-llama/Meta-Llama-3-8B", dtype=torch.bfloat16, device="cuda")
    assert "n_devices=2 in place of device" in str(refused.value)
    assert "device='cpu' (64.00 GiB free)" in str(refused.value)
    free(cpu=64, cuda=10, n_gpus=1)
    with pytest.raises(al.ModelLoadError) as refused:
        check_memory("meta-llama/Meta-Llama-3-8B", dtype=torch.bfloat16, device="cuda")
    assert "n_devices" not in str(refused.value)


def test_where_nothing_fits_it_says_so(free):
    free()
    with pytest.raises(al.ModelLoadError, match="Free some memory: no preset fits"):
        check_memory("gpt2", dtype=torch.float32, device="cpu")
