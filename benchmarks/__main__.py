"""Print the tables of docs/benchmarks.md: ``python -m benchmarks [PART ...]``."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

import actadd_lens as al
from actadd_lens.models.load import TESTBED
from actadd_lens.models.plain import shared_model
from benchmarks import against_peer, footprint, peak, sweeps
from benchmarks.checkpoint import make_gpt2_small, prompt_of
from benchmarks.measures import Row, Times, interleaved, speedup

N_PROMPT = 16
N_NEW = 64
REPETITIONS = 3
Run = Callable[[int], None]
"""Generates this many tokens."""

IMPORT = "import time; t = time.perf_counter(); import actadd_lens; print(time.perf_counter() - t)"


def generation(model: Any, plain: Any, batch: int) -> Iterator[Row]:
    """Sampled generation at temperature 1, the same number of tokens from each."""
    prompts = [prompt_of(model, N_PROMPT)] * batch
    ids = model.to_tokens(prompts, prepend_bos=True)
    vector = 5 * al.SteeringVector.from_pair(model, ("Love", "Hate"), 6)
    runs: dict[str, Run] = {
        "clean": lambda n: ours(model, prompts, None, n),
        "steered": lambda n: ours(model, prompts, vector, n),
        "hf": lambda n: hugging_face(plain, ids, n),
    }
    if batch == 1:
        runs["bridge"] = lambda n: bridge(model, ids, n)
    times = timed(runs, REPETITIONS if batch > 1 else 2 * REPETITIONS)
    n = batch * N_NEW
    yield speedup(f"steered / clean, batch {batch}", 0.98, times["steered"], times["clean"], n)
    target = 0.93 if batch == 1 else 0.97
    name = f"generate / Hugging Face generate (sdpa), batch {batch}"
    yield speedup(name, target, times["clean"], times["hf"], n)
    if batch == 1:
        name = "generate / TransformerBridge generate, batch 1"
        yield speedup(name, 1.15, times["clean"], times["bridge"], n)


def bundled() -> Iterator[Row]:
    """The testbed, where the overhead of each step weighs most."""
    if not TESTBED.is_dir():
        return
    model = al.load_model("testbed", device="cpu")
    prompt = prompt_of(model, N_PROMPT)
    ids = model.to_tokens(prompt, prepend_bos=True)
    runs: dict[str, Run] = {
        "ours": lambda n: ours(model, [prompt], None, n),
        "bridge": lambda n: bridge(model, ids, n),
    }
    times = timed(runs, 5 * REPETITIONS)
    name = "generate / TransformerBridge generate, testbed"
    yield speedup(name, 1.7, times["ours"], times["bridge"], N_NEW)


def ours(model: Any, prompts: list[str], steering: Any, n_new: int) -> None:
    """This package."""
    al.generate(model, prompts, steering, max_new_tokens=n_new, stop_at_eos=False)


def hugging_face(plain: Any, ids: torch.Tensor, n_new: int) -> None:
    """The plain model by itself."""
    plain.generate(
        ids, attention_mask=torch.ones_like(ids), pad_token_id=0, do_sample=True, top_k=0,
        min_new_tokens=n_new, max_new_tokens=n_new,
    )  # fmt: skip


def bridge(model: Any, ids: torch.Tensor, n_new: int) -> None:
    """TransformerLens by itself."""
    model.generate(ids, max_new_tokens=n_new, stop_at_eos=False, verbose=False)


def timed(runs: dict[str, Run], repetitions: int) -> dict[str, Times]:
    """Each run for N_NEW tokens, after a short one that does not count."""
    for run in runs.values():
        run(2)
    return interleaved({name: partial(run, N_NEW) for name, run in runs.items()}, repetitions)


def extraction(model: Any) -> Iterator[Row]:
    """All layers of one pair, against a forward pass over the same two prompts."""
    pair = al.ContrastPair(prompt_of(model, N_PROMPT), prompt_of(model, N_PROMPT // 2))
    tokens = pair.tokens(model)

    def forward_pass() -> None:
        with torch.no_grad():
            model(tokens, return_type="logits")

    runs = {"extract": lambda: al.extract(model, pair), "pass": forward_pass}
    interleaved(runs, 1)
    times = interleaved(runs, 10 * REPETITIONS)
    extract, whole = times["extract"], times["pass"]
    detail = f"{1000 * extract.best:.0f} against {1000 * whole.best:.0f} ms"
    name = "extract, all layers / forward pass of 2"
    ratios = extract.best / whole.best, extract.middle / whole.middle
    yield Row(name, False, 1.1, *ratios, detail)


def likelihood(model: Any, plain: Any, n_tokens: int, target: float) -> Iterator[Row]:
    """Log-probs of 64 short texts, against a loop over the plain model, one text at a time."""
    texts = [prompt_of(model, n_tokens)] * 64
    ids = [model.to_tokens(text, prepend_bos=True) for text in texts]

    def loop() -> None:
        with torch.no_grad():
            for tokens in ids:
                logprobs = plain(tokens).logits.log_softmax(dim=-1)
                logprobs[0, :-1].gather(1, tokens[0, 1:, None])

    runs = {"ours": lambda: al.token_logprobs(model, texts), "loop": loop}
    interleaved(runs, 1)
    times = interleaved(runs, REPETITIONS)
    name = f"token_logprobs / Hugging Face loop, 64 texts of {n_tokens} tokens"
    yield speedup(name, target, times["ours"], times["loop"], 64 * (n_tokens - 1))


def memory(model: Any) -> Iterator[Row]:
    """Storage that the plain model has for itself, as a share of the model's."""
    plain = shared_model(model)
    if plain is None:
        raise RuntimeError("no plain model of the benchmark's model: it decodes on the bridge")
    of_model, of_plain = storages(model.original_model), storages(plain.module)
    own = sum(size for place, size in of_plain.items() if place not in of_model)
    whole = sum(of_model.values())
    share, detail = own / whole, f"{own / 1e6:.1f} of {whole / 1e6:.0f} MB"
    yield Row("weights held twice, share", False, 0.0, share, share, detail)


def storages(module: torch.nn.Module) -> dict[int, int]:
    """Bytes of each storage by its address."""
    tensors = [*module.parameters(), *module.buffers()]
    held = (tensor.untyped_storage() for tensor in tensors)
    return {storage.data_ptr(): storage.nbytes() for storage in held}


def importing() -> Iterator[Row]:
    """The package alone, in a fresh interpreter."""
    command = [sys.executable, "-c", IMPORT]
    seconds = sorted(
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(3 * REPETITIONS)
    )
    best, middle = seconds[0], seconds[len(seconds) // 2]
    yield Row("import actadd_lens, seconds", False, 0.3, best, middle, "")


def swept(model: Any, directory: Path) -> Iterator[Row]:
    """Grids of configurations."""
    yield from sweeps.reading(model, 1, 16, target=4, every=2, repetitions=REPETITIONS)
    yield from sweeps.reading(model, 8, 32, target=2.2, every=4, repetitions=2)
    yield from peak.rows(directory)
    yield from sweeps.writing(model, every=8, repetitions=2)


@dataclass(frozen=True)
class Subject:
    """The model that most lines are about."""

    directory: Path
    """Its checkpoint."""
    model: Any
    plain: Any
    """By transformers alone."""


PARTS: dict[str, Callable[[Subject], Iterator[Row]]] = {
    "import": lambda _: importing(),
    "memory": lambda s: memory(s.model),
    "footprint": lambda s: footprint.rows(s.directory),
    "extraction": lambda s: extraction(s.model),
    "likelihood": lambda s: chain(
        likelihood(s.model, s.plain, 4, 5.0), likelihood(s.model, s.plain, 12, 5.0)
    ),
    "generation": lambda s: chain(generation(s.model, s.plain, 1), generation(s.model, s.plain, 8)),
    "testbed": lambda _: bundled(),
    "sweeps": lambda s: swept(s.model, s.directory),
}


def rows(parts: Sequence[str], peer: Path | None) -> Iterator[Row]:
    """The lines that are asked for, each as soon as it is known."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make_gpt2_small(directory)
        model = al.load_model(directory, device="cpu")
        if peer is not None:
            yield from against_peer.rows(model, directory, peer)
            return
        plain = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa").eval()
        for part in parts:
            yield from PARTS[part](Subject(directory, model, plain))


def main() -> None:
    """Print Markdown, line by line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Print a Markdown table of speed and memory."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="compare with what it runs")
    asked = parser.parse_args()
    for part in asked.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}: choose from {', '.join(PARTS)}")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(
        "GPT-2-small size, random weights, CPU time of one thread, best (median) of interleaved "
        "repetitions\n"
    )
    print("| quantity | target | measured (median) | met | |")
    print("|---|---|---|---|---|", flush=True)
    for row in rows(asked.parts or list(PARTS), asked.peer):
        bound = f"{'>=' if row.at_least else '<='} {row.target:g}"
        measured = f"{row.best:.4g} ({row.middle:.4g})"
        verdict = "yes" if row.met else "no"
        print(f"| {row.quantity} | {bound} | {measured} | {verdict} | {row.detail} |", flush=True)


if __name__ == "__main__":
    main()
