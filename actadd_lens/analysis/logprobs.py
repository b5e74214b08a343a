"""Log-probabilities of given text and of what follows it: no sampling, no judge.

Position i predicts token i + 1. Texts are read in batches of like length.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from actadd_lens.display import bar
from actadd_lens.errors import PromptError, require_count
from actadd_lens.frames import DataFrame
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.hook_points import check_model, hooked_points
from actadd_lens.models.memory import batches, budget
from actadd_lens.models.tokens import (
    PromptLike,
    Prompts,
    as_prompts,
    is_prompt,
    left_padded,
    right_padded,
    token_texts,
)
from actadd_lens.steering import positions
from actadd_lens.steering.checks import as_interventions, check_fit
from actadd_lens.steering.edits import prompt_edits
from actadd_lens.steering.interventions import Intervention, Steering, conditions_of, n_rows
from actadd_lens.steering.numerics import not_finite
from actadd_lens.vectors.vector import SteeringVector


def token_logprobs(
    model: Bridge,
    texts: Prompts,
    steering: Steering = None,
    *,
    batch_size: int | None = None,
    progress: bool | None = None,
    grad: bool = False,
) -> list[Float[Tensor, "pos"]]:
    """Log-probability of every token of the texts, given those before it.

    Args:
        model: Any TransformerBridge with a tokenizer.
        texts: A text, token ids, a chat, or a list of these.
        steering: An intervention such as a vector, several of them, or None.
        batch_size: Texts read at once; by default as many as keep the logits within 128 MiB.
        progress: Whether to show a progress bar; by default when it takes more than a moment.
        grad: Whether gradients flow from the result, to rows of vectors that require them and to
            the model's parameters. It then holds what every pass has computed.

    Returns:
        For each text log p(token i + 1 | tokens 0 to i) in nats, i = 0, 1, ...: one value less
        than it has tokens, BOS included. Float32, on the CPU.

    Raises:
        PromptError: No text, an empty one, or one beyond the context.
        PositionError: A vector does not fit on a text.
        VectorError, LayerError: A vector that does not fit the model.
        NumericsError: Logits that are not finite.

    >>> model = load_model("testbed")
    >>> [values] = token_logprobs(model, ["Anna loved the concert."])
    >>> len(values) == len(model.to_tokens("Anna loved the concert.", prepend_bos=True)[0]) - 1
    True
    """
    sequences, given = as_prompts(model, texts), as_interventions(model, steering)
    return sequence_logprobs(model, sequences, given, batch_size, progress, grad=grad)


def sequence_logprobs(
    model: Bridge,
    sequences: Sequence[Sequence[int]],
    steering: Steering = None,
    batch_size: int | None = None,
    progress: bool | None = None,
    *,
    grad: bool = False,
    strict: bool = True,
) -> list[Float[Tensor, "pos"]]:
    """As ``token_logprobs``, of sequences of token ids; NaN instead of an error if not strict."""
    if batch_size is not None:
        require_count("batch_size", batch_size)
    for index, ids in enumerate(sequences):
        if len(ids) < 2:
            raise PromptError(
                f"text {index} has 1 token: nothing is predicted in it; give it words"
            )
    given = as_interventions(model, steering, warn=False)
    check_fit(sequences, given)
    given = tuple(i for i in given if not isinstance(i, SteeringVector) or _changes(i.rows))
    # Hooks of a caller, those of ``steer`` among them, may count positions from the end.
    spare = not any(hooked_points(model)) and _spares_last_token(sequences, given)
    own, at_once = BridgeModel(model), budget(model, logits="all").sequences
    read: dict[int, Tensor] = {}
    with bar(len(sequences), "text", "reading", progress) as advance:
        for batch in batches([len(ids) for ids in sequences], at_once, batch_size):
            rows = [sequences[index] for index in batch]
            inputs = [ids[:-1] for ids in rows] if spare else rows
            tokens, mask = right_padded(model, inputs)
            edits = prompt_edits(model, [given] * len(rows), mask, rows).by_point
            logits = own.run(tokens, mask, edits=edits, gradients=grad).logits
            assert logits is not None
            for index, ids, row in zip(batch, rows, logits, strict=True):
                row = row[: len(ids) - 1].float()
                chosen = row.gather(1, torch.tensor(ids[1:], device=row.device)[:, None])[:, 0]
                total = row.logsumexp(dim=1)
                if strict and not total.isfinite().all():
                    raise not_finite(model, ids, (), given, f"of text {index}")
                read[index] = (chosen - total).cpu()
            advance(len(batch))
    return [read[index] for index in range(len(sequences))]


def next_token_logprobs(
    model: Bridge,
    prompts: Prompts,
    steering: Steering = None,
    *,
    batch_size: int | None = None,
    grad: bool = False,
) -> Float[Tensor, "prompt vocab"]:
    """Log-probabilities (nats) of what follows each prompt's last token.

    Arguments and errors are those of ``token_logprobs``.

    Returns:
        A row for each prompt, a column for each token of the vocabulary; float32, on the CPU.

    >>> model = load_model("testbed")
    >>> next_token_logprobs(model, "The capital of Arvenia is").exp().sum()
    tensor(1.0000)
    """
    sequences, given = as_prompts(model, prompts), as_interventions(model, steering)
    read: dict[int, Tensor] = {}
    for batch, logprobs in predictions(model, sequences, given, batch_size, grad=grad):
        read |= dict(zip(batch, logprobs.cpu(), strict=True))
    return torch.stack([read[index] for index in range(len(read))])


def predictions(
    model: Bridge,
    sequences: Sequence[Sequence[int]],
    steering: Steering = None,
    batch_size: int | None = None,
    *,
    grad: bool = False,
) -> Iterator[tuple[list[int], Float[Tensor, "prompt vocab"]]]:
    """As ``next_token_logprobs``, of token ids, a batch at a time with the prompts' indices."""
    if batch_size is not None:
        require_count("batch_size", batch_size)
    given = as_interventions(model, steering, warn=False)
    check_fit(sequences, given)
    at_once = budget(model, logits="last").sequences
    equal = not BridgeModel(model).supports("padding")
    for batch in batches([len(ids) for ids in sequences], at_once, batch_size, equal=equal):
        rows = [sequences[index] for index in batch]
        tokens, mask = left_padded(model, rows)
        edits = prompt_edits(model, [given] * len(rows), mask, rows).by_point
        run = BridgeModel(model).run(tokens, mask, edits=edits, keep=1, gradients=grad)
        logprobs = run.last_logits.float().log_softmax(dim=1)
        for index, largest in zip(batch, logprobs.amax(dim=1).tolist(), strict=True):
            if not math.isfinite(largest):
                ids = sequences[index]
                raise not_finite(model, ids, (), given, f"after prompt {index}")
        yield batch, logprobs


def next_token_shift(model: Bridge, prompt: PromptLike, steering: Steering) -> DataFrame:
    """How steering moves the distribution of the token after a prompt.

    Args:
        model: Any TransformerBridge with a tokenizer.
        prompt: One text, token ids, or a chat.
        steering: An intervention such as a vector, or several of them.

    Returns:
        A row for each token of the vocabulary, the largest contributions first: ``token`` (its
        text), ``token_id``, ``p_clean``, ``p_steered``, ``log_ratio`` = log(p_steered / p_clean)
        in nats, and ``kl_contribution`` = p_steered * log_ratio, which sums to
        KL(steered || clean).

    Raises:
        PromptError, PositionError, VectorError, LayerError: See ``token_logprobs``.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love.", "Hate."), layer=1)
    >>> shift = next_token_shift(model, "We hated the song. It was a", 4 * vector)
    >>> bool(shift["kl_contribution"].sum() >= 0)
    True
    """
    import pandas as pd

    check_model(model)
    if not is_prompt(prompt):
        raise PromptError(f"one prompt is asked for, not {prompt!r}: give one text, or token ids")
    clean, steered = (next_token_logprobs(model, prompt, s)[0] for s in (None, steering))
    shift = pd.DataFrame(
        {
            "token": token_texts(model, range(len(clean))),
            "token_id": range(len(clean)),
            "p_clean": clean.exp(),
            "p_steered": steered.exp(),
            "log_ratio": steered - clean,
            "kl_contribution": kl_terms(steered, clean),
        }
    )
    return shift.sort_values("kl_contribution", ascending=False, ignore_index=True)


def kl_terms(
    p: Float[Tensor, "*batch vocab"], q: Float[Tensor, "*batch vocab"]
) -> Float[Tensor, "*batch vocab"]:
    """What each token contributes to KL(p || q), in nats: p log(p / q), and 0 where p is 0.

    Args:
        p: Log-probabilities.
        q: Log-probabilities; where q is 0 and p is not, the term is infinite.

    >>> p = torch.tensor([0.0, -torch.inf])
    >>> kl_terms(p, torch.tensor([0.5, 0.5]).log())
    tensor([0.6931, 0.0000])
    """
    ratio = torch.where(p == -math.inf, torch.zeros_like(p), p - q)
    return torch.where(ratio == math.inf, ratio, p.exp() * ratio)  # exp may come out as 0


def rows_end(
    sequences: Sequence[Sequence[int]], interventions: Sequence[Intervention]
) -> list[int]:
    """For each text the position after all rows; 0 where one row is added to every token."""
    lengths = torch.tensor([len(ids) for ids in sequences])
    each = [positions.ends(i.position, sequences, n_rows(i)) for i in interventions]
    ends: list[int] = torch.stack([torch.zeros_like(lengths), *each]).amax(dim=0).tolist()
    return ends


def _changes(rows: Float[Tensor, "pos d_model"]) -> bool:
    """Whether rows change anything, or are to be trained; others are as good as none."""
    return rows.requires_grad or bool(rows.any())


def _spares_last_token(sequences: Sequence[Sequence[int]], given: Sequence[Intervention]) -> bool:
    """Whether the texts can be read without their last token, which predicts nothing in them.

    Not if it is edited or decides a condition, or if a position is counted from the end.
    """
    ends = [positions.parse(i.position).end_from_front(n_rows(i)) for i in given]
    judged = [conditional.condition.position for conditional in conditions_of(given)]
    ends += [positions.parse(position).end_from_front(1) for position in judged]
    shortest = min(map(len, sequences))
    return all(end is not None and end < shortest for end in ends)
