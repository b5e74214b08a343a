"""Peak memory against its estimate: ``python -m benchmarks.footprint PLACE DTYPE ROWS TOKENS``.

As in ``peak``, each measurement has a process of its own. What the libraries hold before a model is
loaded is subtracted: it is no part of the estimate.
"""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy
from typing import Any

import torch
import transformers

import actadd_lens as al
from actadd_lens.models.footprint import footprint
from actadd_lens.models.presets import shape_of
from benchmarks.checkpoint import prompt_of
from benchmarks.measures import Row
from benchmarks.peak import held

_IDS: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}
_WIDE: dict[str, Any] = {"num_attention_heads": 16, "hidden_size": 1024, "vocab_size": 32000}
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(
        num_hidden_layers=12, num_key_value_heads=4, intermediate_size=2816, **_WIDE, **_IDS
    ),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(
        num_hidden_layers=8, intermediate_size=4096, **_WIDE, **_IDS
    ),
}
"""Of 170 to 200 million parameters; GPT-NeoX is one whose bridge copies fused weights."""

CASES = (
    ("gpt2", torch.float32, 16, 64),
    ("gpt2", torch.float32, 4, 200),
    ("gpt2", torch.float16, 4, 32),
    ("llama", torch.float32, 16, 64),
    ("llama", torch.float16, 4, 32),
    ("gpt-neox", torch.float32, 16, 64),
    ("gpt-neox", torch.float16, 4, 32),
)


def rows(gpt2: Path) -> Iterator[Row]:
    """Measured over estimated bytes, of loading a model and completing prompts."""
    for name, dtype, n_rows, n_tokens in CASES:
        place = gpt2 / f"{name}-{dtype}"
        if not place.is_dir():
            _save(place, gpt2, name, dtype)
        estimate = footprint(shape_of(place), dtype, rows=n_rows, tokens=n_tokens)
        case = (str(place), str(dtype).removeprefix("torch."), str(n_rows), str(n_tokens))
        command = [sys.executable, "-m", "benchmarks.footprint", *case]
        written = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        before, peak = map(int, written.split()[-2:])
        ratio = (peak - before) / estimate.total
        detail = f"{(peak - before) / 1e6:.0f} MB; {estimate}"
        quantity = f"peak / footprint, {name} {case[1]}, {n_rows} x {n_tokens} tokens"
        yield Row(quantity, False, 1.0, ratio, ratio, detail)


def _save(place: Path, gpt2: Path, name: str, dtype: torch.dtype) -> None:
    """In the precision it is loaded in: the pages of a file in another would be counted too."""
    factory = transformers.AutoModelForCausalLM
    if name == "gpt2":
        model = factory.from_pretrained(gpt2, dtype=dtype)
    else:
        model = factory.from_config(MODELS[name]()).to(dtype)
    model.save_pretrained(place)
    for tokenizer in gpt2.glob("tokenizer*"):
        copy(tokenizer, place)


def main() -> None:
    """Print what is held by the libraries, and the peak of loading and generating."""
    torch.set_num_threads(1)
    import transformer_lens.model_bridge  # noqa: F401 - held before the model is

    _, dtype, n_rows, n_tokens = sys.argv[1:]
    before, _ = held()
    model = al.load_model(sys.argv[1], device="cpu", dtype=getattr(torch, dtype))
    n_prompt = int(n_tokens) // 2
    prompts = [prompt_of(model, n_prompt)] * int(n_rows)
    al.generate(model, prompts, max_new_tokens=int(n_tokens) - n_prompt, stop_at_eos=False)
    _, peak = held()
    print(before, peak)


if __name__ == "__main__":
    main()
