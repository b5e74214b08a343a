"""`actadd-lens shift` and `score`: what steering does to a distribution, and to given texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cloup
from cloup.constraints import constraint, require_any

from actadd_lens.cli.app import cli
from actadd_lens.cli.options import Source, check_writable, model_option, source_options, taken
from actadd_lens.cli.terminal import status, table


@cli.command()
@cloup.argument("prompt")
@model_option
@source_options(required=True)
@cloup.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Tokens.")
def shift(prompt: str, model: str, top: int, **options: Any) -> None:
    """Show how steering moves the distribution of the token after PROMPT.

    The tokens that contribute most to KL(steered || clean), in nats; the last line is their sum
    over the whole vocabulary.
    """
    source = taken(Source, options)
    with status(f"loading {model}"):
        from actadd_lens.analysis.logprobs import next_token_shift
        from actadd_lens.models.load import load_model

        bridge = load_model(model)
    frame = next_token_shift(bridge, prompt, source.load(bridge))
    columns = ["token", "p_clean", "p_steered", "log_ratio", "kl_contribution"]
    lines = [
        [repr(token), *(f"{figure:.4g}" for figure in figures)]
        for token, *figures in frame[columns].head(top).itertuples(index=False)
    ]
    total = f"{frame['kl_contribution'].sum():.4g}"
    table([columns, *lines, ["KL(steered || clean)", "", "", "", total]])


@cli.command()
@cloup.argument("file", type=cloup.path())
@model_option
@source_options(required=False)
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
    source = taken(Source, options)
    if output is not None:
        check_writable(output)
    with status("scoring"):
        from actadd_lens.metrics.scoring import score_texts
        from actadd_lens.texts import read_texts
        from actadd_lens.vectors.files import write_atomically

        records = read_texts(file)
        bridge, steering = None, None
        if source.is_given:
            from actadd_lens.models.load import load_model

            bridge = load_model(model)
            steering = source.load(bridge)
        frame, summary = score_texts(records, metrics, by=by, model=bridge, steering=steering)
    if output is not None:
        write_atomically(output, frame.to_csv(index=False).encode())
    rounded = [
        [f"{value:.4g}" if isinstance(value, float) else value for value in line]
        for line in summary.itertuples(index=False)
    ]
    table([list(summary.columns), *rounded])
