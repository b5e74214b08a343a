"""`actadd-lens demo`, `steer`, `extract`, `shift`, `score`, `show` and `models`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup
from cloup.constraints import AnySet, If, IsSet, constraint, require_all, require_any

from actadd_lens.cli import app
from actadd_lens.errors import OutputError
from actadd_lens.texts import read_texts

if TYPE_CHECKING:
    from actadd_lens import SteeringVector

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
ARCHITECTURES = "bloom, gemma2, gpt2, gpt-j, gpt-neo, gpt-neox, llama, mistral, opt, qwen2, qwen3"

EXTRACTION = (
    *app.pair_options,
    cloup.option("--layer", type=int, help="Injection layer, from 0."),
    cloup.option(
        "--site", type=click.Choice(SITES), help="Where in the layer. [default: resid_pre]"
    ),
    cloup.option(
        "--position",
        help="front, middle, back, sink or an index; one-row vectors: prompt, generated, all.",
    ),
)
"""A contrast pair, and where its vector is read and added."""
COEFFICIENT = cloup.option("--coefficient", type=float, default=1.0, show_default=True)


def _source_options(required: bool) -> Callable[[app.Command], app.Command]:
    """A steering vector, from a pair or from a file; None may be given where it isn't required."""
    begun = AnySet("positive", "negative", "pad", "layer", "site", "position")
    by_pair = ~IsSet("vector") if required else begun & ~IsSet("vector")
    return app.all_of(
        cloup.option_group(
            "Steering vector",
            *EXTRACTION,
            cloup.option("--vector", type=cloup.path(), help="A saved vector, no pair."),
            COEFFICIENT,
        ),
        constraint(
            If("vector", then=app.forbidden), ["positive", "negative", "pad", "layer", "site"]
        ),
        constraint(If(by_pair, then=require_all), ["positive", "negative", "layer"]),
    )


@app.cli.command()
@app.out_option("out/demo", "Directory for figures, rows and vectors.")
def demo(out: Path) -> None:
    """Steer the bundled model: completions, success rates with controls, figures."""
    with app.status("loading the bundled model"):
        from actadd_lens.cli.demo import heading, questions, run_demo

        model = app.loaded("testbed")
    console = app.result_console()
    shown = sys.stderr.isatty()
    written = run_demo(model, questions(), out, console=console, progress=shown)
    heading(console, "written")
    for path in written:
        click.echo(path)


@app.cli.command()
@cloup.argument("prompts", nargs=-1, required=True)
@app.model_option
@_source_options(required=True)
@cloup.option_group(
    "Sampling",
    cloup.option(
        "--samples", type=int, default=3, show_default=True, help="Completions per prompt."
    ),
    cloup.option("--max-new-tokens", type=int, default=40, show_default=True),
    cloup.option("--temperature", type=float, default=1.0, show_default=True, help="0 is greedy."),
    cloup.option("--top-p", type=float, default=1.0, show_default=True),
    cloup.option("--top-k", type=int),
    app.stop_option,
    cloup.option("--frequency-penalty", type=float, default=0.0, show_default=True),
    cloup.option("--seed", type=int, default=0, show_default=True),
)
def steer(prompts: tuple[str, ...], model: str, **options: Any) -> None:
    """Complete PROMPTS clean and steered, with the vector of a pair of prompts or a saved vector.

    In a pipe: a header, then one line per completion, clean ones first.
    """
    with app.status(f"loading {model}"):
        from actadd_lens import compare
        from actadd_lens.generation.sampling import Sampling

        bridge = app.loaded(model)
        steering = _steering_of(bridge, options)
    sampling = {f.name: options[f.name] for f in fields(Sampling) if f.name in options}
    with app.status("completing"):
        comparison = compare(bridge, list(prompts), steering, **sampling)
    if sys.stdout.isatty():
        app.result_console().print(comparison)
        return
    runs = (("clean", comparison.clean), ("steered", comparison.steered))
    header = ("run", "prompt_index", "sample_index", "prompt", "text")
    lines = [
        (run, c.prompt_index, c.sample_index, c.prompt, c.text)
        for run, completions in runs
        for c in completions
    ]
    app.table([header, *lines])


@app.cli.command("extract")
@app.model_option
@cloup.option_group("Steering vector", *EXTRACTION, COEFFICIENT)
@constraint(require_all, ["positive", "negative", "layer"])
@cloup.option(
    "-o", "--output", type=cloup.file_path(), required=True, help="File to write (safetensors)."
)
def extract_command(model: str, output: Path, **options: Any) -> None:
    """Write the steering vector of a pair of prompts to a file."""
    _check_writable(output)
    with app.status(f"loading {model}"):
        bridge = app.loaded(model)
        vector = _steering_of(bridge, options)
    vector.save(output)
    click.echo(output)


@app.cli.command()
@cloup.argument("prompt")
@app.model_option
@_source_options(required=True)
@cloup.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Tokens.")
def shift(prompt: str, model: str, top: int, **options: Any) -> None:
    """Show how steering moves the distribution of the token after PROMPT.

    The tokens that contribute most to KL(steered || clean), in nats; the last line is their sum
    over the whole vocabulary.
    """
    with app.status(f"loading {model}"):
        from actadd_lens import next_token_shift

        bridge = app.loaded(model)
        frame = next_token_shift(bridge, prompt, _steering_of(bridge, options))
    columns = ["token", "p_clean", "p_steered", "log_ratio", "kl_contribution"]
    shown = frame[columns].head(top).assign(token=lambda rows: rows["token"].map(repr))
    total = ["KL(steered || clean)", "", "", "", float(frame["kl_contribution"].sum())]
    app.table([columns, *shown.itertuples(index=False), total])


@app.cli.command()
@cloup.argument("file", type=cloup.path())
@app.model_option
@_source_options(required=False)
@cloup.option("--metric", "metrics", multiple=True, help="A built-in metric; may be repeated.")
@cloup.option("--by", help="Field of JSON lines by whose values the texts are grouped.")
@cloup.option("-o", "--output", type=cloup.file_path(), help="File for a row per text (CSV).")
@constraint(
    require_any.rephrased(error="nothing to score by: give --metric, or a pair and a layer"),
    ["metrics", "positive", "vector"],
)
def score(
    file: Path,
    model: str,
    metrics: tuple[str, ...],
    by: str | None,
    output: Path | None,
    **options: Any,
) -> None:
    """Score the texts in FILE: by metrics, and by how much more likely steering makes them.

    FILE has one text per line, or, as .jsonl, one JSON object per line with "text" and maybe
    "prompt" and labels. With a steering vector the perplexity ratio of each text is computed too,
    and their geometric mean is shown; for these the model reads the text without its prompt.

    Prints means with 95% intervals over the texts.
    """
    if output is not None:
        _check_writable(output)
    with app.status("scoring"):
        from actadd_lens.metrics.scoring import score_texts
        from actadd_lens.vectors.files import write_atomically

        records = read_texts(file)
        bridge, steering = None, None
        if options["vector"] is not None or options["layer"] is not None:
            bridge = app.loaded(model)
            steering = _steering_of(bridge, options)
        frame, summary = score_texts(records, metrics, by=by, model=bridge, steering=steering)
    if output is not None:
        write_atomically(output, frame.to_csv(index=False).encode())
    app.table([list(summary.columns), *summary.itertuples(index=False)])


@app.cli.command()
@cloup.argument("path", type=cloup.path())
def show(path: Path) -> None:
    """Print what the vector file PATH holds: where it acts, where it comes from (as JSON), rows."""
    with app.status("reading"):
        from actadd_lens import SteeringVector

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
    app.table(facts.items())
    click.echo()
    columns = {"norm": vector.norms().tolist(), **_token_columns(tokens, n_rows)}
    app.table([("row", *columns), *zip(range(n_rows), *columns.values(), strict=True)])


@app.cli.command()
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
    app.table([columns, *((name, s.n_layers, f"{s.n_params:,}", said) for name, s, said in lines)])
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


def _steering_of(model: Any, options: app.Options) -> SteeringVector:
    """The vector that the options name, times the coefficient."""
    from actadd_lens import SteeringVector, extract

    if options.get("vector"):
        vector = SteeringVector.load(options["vector"])
    else:
        layer, site = options["layer"], options["site"] or "resid_pre"
        vector = extract(model, app.pair_of(options), [layer], site=site)[layer]
    if options["position"] is not None:
        vector = vector.at(app.position_of(options["position"]))
    coefficient: float = options["coefficient"]
    return coefficient * vector


def _check_writable(output: Path) -> None:
    """Fail before the model is loaded, not after."""
    if not output.parent.is_dir() or not os.access(output.parent, os.W_OK):
        raise OutputError(f"cannot write {output}: {output.parent} is not a writable directory")
