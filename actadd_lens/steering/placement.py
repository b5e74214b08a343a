"""Which row of a vector is added at which token of a prompt.

The positions of ``positions``, applied to real prompts. The model is not run.
"""

from collections.abc import Sequence
from math import nan

import torch

from actadd_lens.errors import VectorError
from actadd_lens.frames import DataFrame
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import Prompts, as_prompts, token_texts
from actadd_lens.steering import positions
from actadd_lens.steering.checks import as_interventions
from actadd_lens.steering.interventions import Intervention, Steering, n_rows


def placement(model: Bridge, steering: Steering, prompts: Prompts) -> DataFrame:
    """Which row of each vector is added at which token of each prompt.

    The model is not run: the tokenizer and the position determine the result (Algorithm 1, step 4).
    ``plots.placement`` draws the result.

    Args:
        model: Any TransformerBridge with a tokenizer.
        steering: An intervention such as a vector, or several of them.
        prompts: A text, token ids, a chat, or a list of these.

    Returns:
        A row for each prompt, vector and token: ``prompt_index``, ``vector`` (its index among
        several), ``position`` (BOS is 0), ``token`` (its text), ``row`` (of the vector; <NA> where
        none is added) and ``norm`` (of what is added there, in the units of the stream; 0 where
        nothing is, NaN for interventions that are not vectors). A vector at "generated" is not
        added to tokens of a prompt.

    Raises:
        PositionError: A vector that does not fit on a prompt.
        PromptError: No prompt, an empty one, or one beyond the context.
        VectorError, LayerError: No vector, or one that does not fit the model.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    >>> placement(model, vector.at(1), "I hate you")["row"].tolist()[:2]
    [<NA>, 0]
    """
    import pandas as pd

    given = as_interventions(model, steering, warn=False)
    if not given:
        raise VectorError("no vector to place: give at least one")
    lines: list[tuple[int, int, int, str, int | None, float]] = []
    for index, ids in enumerate(as_prompts(model, prompts)):
        tokens = token_texts(model, ids)
        for which, item in enumerate(given):
            norms = item.norms().tolist() if hasattr(item, "norms") else [nan] * n_rows(item)
            for position, row in enumerate(rows_on(item, ids, index)):
                landed = row != positions.NO_ROW
                value = (row, norms[row]) if landed else (None, 0.0)
                lines.append((index, which, position, tokens[position], *value))
    columns = ["prompt_index", "vector", "position", "token", "row", "norm"]
    return pd.DataFrame(lines, columns=columns).astype({"row": "Int64"})


def rows_on(intervention: Intervention, tokens: Sequence[int], prompt: int = 0) -> list[int]:
    """Row of a vector on each token of a prompt; ``positions.NO_ROW`` where none is.

    Args:
        intervention: At any position.
        tokens: The prompt.
        prompt: Its index, for the message of an error.

    Raises:
        PositionError: The vector does not fit on the prompt.

    >>> rows_on(SteeringVector(torch.ones(2, 4), "blocks.1.hook_resid_pre", "back"), range(4))
    [-1, -1, 0, 1]
    """
    real = torch.ones(1, len(tokens), dtype=torch.bool)
    plan = positions.parse(intervention.position)
    [index] = positions.row_index(plan, real, n_rows(intervention), [prompt], [tokens])
    found: list[int] = index.tolist()
    return found
