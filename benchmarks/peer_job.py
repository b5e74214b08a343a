"""Runs benchmarks/peer.py in the peer's own environment, which need not be there to import this."""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

SCRIPT = Path(__file__).with_name("peer.py")
DEFAULTS = {
    "threads": 1,
    "repetitions": 3,
    "logits_to_keep": 0,  # all positions, as the model does unless told otherwise
    "samples": 1,
    "new_tokens": 0,  # no generation sweep
    "kept": [],
}


def run_peer(
    interpreter: Path, job: Mapping[str, Any], rows: Mapping[int, torch.Tensor]
) -> dict[str, Any]:
    """Run a job with the peer's interpreter and return what it measured.

    A job has ``checkpoint``, ``prompts`` (token ids, all of one length), ``layers`` and
    ``coefficients``, and may set any of ``DEFAULTS``. ``rows`` has what is added to the stream that
    enters block l, for each layer. The result has ``seconds`` of each repetition of the sweeps
    "logits" and "generation", ``peak_bytes`` up to the end of each, ``versions``, and ``logprobs``
    [kept cell, prompt, token] of the (layer, coefficient) cells in ``kept``.
    """
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        vectors, written, out = (
            directory / f for f in ("rows.safetensors", "job.json", "out.json")
        )
        save_file({str(layer): row.contiguous() for layer, row in rows.items()}, vectors)
        whole = {**DEFAULTS, **job, "checkpoint": str(job["checkpoint"]), "rows": str(vectors)}
        written.write_text(json.dumps(whole))
        # Isolated, or the folder of the script and PYTHONPATH would be searched for its imports.
        subprocess.run([interpreter, "-I", SCRIPT, written, out], check=True)
        result: dict[str, Any] = json.loads(out.read_text())
        result["logprobs"] = load_file(out.with_suffix(".safetensors"))["logprobs"]
    return result
