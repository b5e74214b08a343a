"""How likely another model finds a completion."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from actadd_lens.analysis.logprobs import sequence_logprobs
from actadd_lens.generation.completions import Completion
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import check_context, encode


@dataclass(frozen=True, repr=False)
class Fluency:
    """Perplexity of a completion given its prompt under a judge, from 1 (certain) upwards.

    exp of the mean negative log-probability of the completion's tokens, those of the prompt being
    read but not counted: the disfluency of Turner et al. (2308.10248), who ask a larger model than
    the one they steer. Lower is more fluent; text that repeats itself is very fluent by it.

    The judge's own tokenizer splits prompt and completion together. A token that straddles their
    border counts. A completion without tokens is NaN.

    Raises:
        PromptError: Prompt and completion are together beyond the judge's context.

    >>> judge = load_model("testbed")
    >>> completion = al.Completion("Anna loved", " the concert.", (), (), 0, 0)
    >>> [perplexity] = Fluency(judge)([completion])
    >>> perplexity >= 1
    True
    """

    judge: Bridge
    """Any TransformerBridge with a tokenizer, in eval mode."""
    name: str = "fluency"

    def __repr__(self) -> str:
        return f"Fluency(judge={self.judge.cfg.model_name!r}, name={self.name!r})"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One perplexity a completion."""
        if not completions:
            return []
        rows, n_given = [], []
        for index, completion in enumerate(completions):
            prompt = encode(self.judge, completion.prompt)
            row = encode(self.judge, completion.prompt + completion.text)
            check_context(self.judge, len(row), f"completion {index}, with its prompt,")
            rows.append(row)
            n_given.append(_n_shared(prompt, row))
        written = [i for i, row in enumerate(rows) if len(row) > n_given[i]]
        perplexities = [math.nan] * len(rows)
        if written:
            read = sequence_logprobs(self.judge, [rows[i] for i in written])
            for i, logprobs in zip(written, read, strict=True):
                # The log-prob at k is of token k + 1: from the last given token on they count.
                perplexities[i] = (-logprobs[n_given[i] - 1 :].mean()).exp().item()
        return perplexities


def _n_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in same)
