"""`actadd-lens demo`, `steer`, `extract`, `show` and `models`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import cloup

from actadd_lens.cli.app import cli
from actadd_lens.cli.options import (
    Source,
    check_writable,
    loaded,
    model_option,
    out_option,
    pair_options,
    source_options,
    stop_option,
    taken,
)
from actadd_lens.cli.terminal import result_console, status, table

ARCHITECTURES = "bloom, gemma2, gpt2, gpt-j, gpt-neo, gpt-neox, llama, mistral, opt, qwen2, qwen3"


@cli.command()
@out_option("out/demo", "Directory for figures, rows and vectors.")
def demo(out: Path) -> None:
    """Steer the bundled model: completions, success rates with controls, figures."""
    with status("loading the bundled model"):
        from actadd_lens.cli.demo import heading, questions, run_demo

        model = loaded("testbed")
    console = result_console()
    shown = sys.stderr.isatty()
    written = run_demo(model, questions(), out, console=console, progress=shown)
    heading(console, "written")
    for path in written:
        click.echo(path)


@cli.command()
@cloup.argument("prompts", nargs=-1, required=True)
@model_option
@source_options(required=True)
@cloup.option_group(
    "Sampling",
    cloup.option(
        "--samples", type=int, default=3, show_default=True, help="Completions per prompt."
    ),
    cloup.option("--max-new-tokens", type=int, default=40, show_default=True),
    cloup.option("--temperature", type=float, default=1.0, show_default=True, help="0 is greedy."),
    cloup.option("--top-p", type=float, default=1.0, show_default=True),
    cloup.option("--top-k", type=int),
    stop_option,
    cloup.option("--frequency-penalty", type=float, default=0.0, show_default=True),
    cloup.option("--seed", type=int, default=0, show_default=True),
)
def steer(prompts: tuple[str, ...], model: str, **options: Any) -> None:
    """Complete PROMPTS clean and steered, with the vector of a pair of prompts or a saved vector.

    In a pipe: a header, then one line per completion, clean ones first.
    """
    source = taken(Source, options)
    with status(f"loading {model}"):
        from actadd_lens.generation.comparison import compare
        from actadd_lens.models.load import load_model

        bridge = load_model(model)
    steering = source.load(bridge)
    with status("completing"):
        comparison = compare(bridge, list(prompts), steering, **options)
    if sys.stdout.isatty():
        result_console().print(comparison)
        return
    runs = (("clean", comparison.clean), ("steered", comparison.steered))
    header = ("run", "prompt_index", "sample_index", "prompt", "text")
    lines = [
        (run, c.prompt_index, c.sample_index, c.prompt, c.text)
        for run, completions in runs
        for c in completions
    ]
    table([header, *lines])


@cli.command("extract")
@model_option
@pair_options
@cloup.option(
    "-o", "--output", type=cloup.file_path(), required=True, help="File to write (safetensors)."
)
def extract_command(model: str, output: Path, **options: Any) -> None:
    """Write the steering vector of a pair of prompts to a file."""
    check_writable(output)
    with status(f"loading {model}"):
        from actadd_lens.models.load import load_model

        bridge = load_model(model)
    Source(**options).load(bridge).save(output)
    click.echo(output)


@cli.command()
@cloup.argument("path", type=cloup.path())
def show(path: Path) -> None:
    """Print what the vector file PATH holds: where it acts, where it comes from (as JSON), rows."""
    with status("reading"):
        from actadd_lens.vectors.vector import SteeringVector

        vector = SteeringVector.load(path)
    origin = dict(vector.provenance)
    tokens = origin.pop("tokens", [])
    n_rows, width = vector.rows.shape
    facts = {
        "hook point": vector.hook_point,
        "layer": vector.layer,
        "position": vector.position,
        "rows": n_rows,
        "width": width,
        **{name: json.dumps(value, ensure_ascii=False) for name, value in origin.items()},
    }
    table(facts.items())
    click.echo()
    norms = [f"{norm:.4g}" for norm in vector.norms().tolist()]
    columns = _token_columns(tokens, n_rows)
    table([("row", "norm", *columns), *zip(range(n_rows), norms, *columns.values(), strict=True)])


@cli.command()
def models() -> None:
    """List the bundled model, presets with the paper's settings, and how to name another."""
    from actadd_lens.models.presets import PRESETS, shape_of

    columns = ("name", "layers", "parameters", "the paper's setting")
    lines = [("testbed", shape_of("testbed"), "bundled, offline; actadd-lens demo uses it")]
    for preset in PRESETS.values():
        known = preset.paper.get("sentiment")
        said = known and (
            f'"{known.positive}" - "{known.negative}", layer {known.layer}, coefficient '
            f"{known.coefficient:g}"
        )
        lines.append((preset.name, preset.shape, said or ""))
    table([columns, *((name, s.n_layers, f"{s.n_params:,}", said) for name, s, said in lines)])
    click.echo()
    click.echo(f"Architectures under test: {ARCHITECTURES}.")
    click.echo("--model takes any Hugging Face hub name that TransformerLens supports, and any")
    click.echo("local directory with config.json, weights and tokenizer files; the latter offline.")


def _token_columns(tokens: Any, n_rows: int) -> dict[str, list[Any]]:
    """Token ids of each row's prompts, if the file has them: it may hold anything there."""
    match tokens:
        case [[*positive], [*negative]] if len(positive) == len(negative) == n_rows:
            return {"positive token": positive, "negative token": negative}
        case [[*only]] if len(only) == n_rows:
            return {"token": only}
    return {}
