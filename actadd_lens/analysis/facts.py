"""Does the model still know what it knew? Facts as (prompt, answer), read from the next token."""

from collections.abc import Sequence

import torch

from actadd_lens.analysis.logprobs import predictions
from actadd_lens.errors import PromptError
from actadd_lens.frames import DataFrame
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import Prompt, PromptLike, as_prompts, bare_tokens, encode
from actadd_lens.steering.checks import as_interventions
from actadd_lens.steering.interventions import Steering


def answer_ranks(
    model: Bridge,
    facts: Sequence[tuple[PromptLike, str]],
    steering: Steering = None,
    *,
    batch_size: int | None = None,
) -> DataFrame:
    """The ranks of the answers to questions among all tokens.

    The rank is that of the answer's first token, after the prompt and a space. The LAMA benchmark
    (Petroni et al. 2019), which the paper uses, has answers of one token only.

    Args:
        model: Any TransformerBridge with a tokenizer.
        facts: (prompt, answer), e.g. ("The capital of France is", "Paris"); the prompt may also be
            token ids, or a chat.
        steering: An intervention such as a vector, several of them, or None.
        batch_size: Prompts read at once.

    Returns:
        A row for each fact: ``prompt``, ``answer``, ``n_tokens`` (of the answer), ``logprob``
        (nats, of its first token), ``rank`` (how many tokens are more likely; 0 is the top).

    Raises:
        PromptError: No fact, an empty prompt or answer, or a prompt that ends in a space.
        PositionError, VectorError, LayerError: A vector that does not fit.

    >>> model = load_model("testbed")
    >>> answer_ranks(model, al.testbed.facts()[:2]).columns.tolist()
    ['prompt', 'answer', 'n_tokens', 'logprob', 'rank']
    """
    import pandas as pd

    as_interventions(model, steering)  # warns, before anything runs
    if not facts:
        raise PromptError("the list of facts is empty: give at least one (prompt, answer)")
    for index, (_, answer) in enumerate(facts):
        if not answer.strip():
            raise PromptError(f"the answer of fact {index} is empty: give it a text")
    prompts = as_prompts(model, [prompt for prompt, _ in facts])
    answers = [_answer(model, ids, fact) for ids, fact in zip(prompts, facts, strict=True)]
    read: dict[int, tuple[float, int]] = {}
    for batch, logprobs in predictions(model, prompts, steering, batch_size):
        first = torch.tensor([answers[index][0] for index in batch], device=logprobs.device)
        own = logprobs.gather(1, first[:, None])
        ranks = (logprobs > own).sum(dim=1)
        read |= dict(zip(batch, zip(own[:, 0].tolist(), ranks.tolist(), strict=True), strict=True))
    return pd.DataFrame(
        [
            (prompts[index].label, answer, len(answers[index]), *read[index])
            for index, (_, answer) in enumerate(facts)
        ],
        columns=["prompt", "answer", "n_tokens", "logprob", "rank"],
    )


def _answer(model: Bridge, prompt: Prompt, fact: tuple[PromptLike, str]) -> Sequence[int]:
    """Tokens of an answer after its prompt and a space; a chat's reply begins without one."""
    text, answer = fact
    if not isinstance(text, str):
        return bare_tokens(model, f"{'' if prompt.spans else ' '}{answer.strip()}")
    whole = encode(model, f"{text} {answer.strip()}")
    if text != text.rstrip() or whole[: len(prompt)] != list(prompt):
        raise PromptError(
            f"the answer {answer!r} cannot be distinguished after {text!r}: end the prompt in "
            "a word, without a space"
        )
    return whole[len(prompt) :]


def precision_at_k(
    model: Bridge,
    facts: Sequence[tuple[PromptLike, str]],
    ks: Sequence[int] = (1, 5, 10, 50, 100),
    steering: Steering = None,
    *,
    batch_size: int | None = None,
) -> DataFrame:
    """P@K: share of facts whose answer is among the K most likely tokens (the paper's LAMA figure).

    Args:
        model: Any TransformerBridge with a tokenizer.
        facts: (prompt, answer).
        ks: Values of K, each at least 1.
        steering: An intervention such as a vector, several of them, or None.
        batch_size: Prompts read at once.

    Returns:
        A row for each K: ``k``, ``mean``, ``low``, ``high`` (95% Wilson interval), ``n``.

    Raises:
        PromptError: No K or one below 1; otherwise see ``answer_ranks``.

    >>> model = load_model("testbed")
    >>> precision_at_k(model, al.testbed.facts(), ks=[model.cfg.d_vocab])["mean"].tolist()
    [1.0]
    """
    import pandas as pd

    from actadd_lens.statistics import proportion

    if not ks or min(ks) < 1:
        raise PromptError(f"K is {list(ks)}: give at least one, each 1 or more")
    ranks = answer_ranks(model, facts, steering, batch_size=batch_size)["rank"]
    return pd.DataFrame([{"k": k, **vars(proportion((ranks < k).tolist()))} for k in ks])
