"""Logit metrics: what steering does to the distribution of the next token.

Each is called with the log-probabilities (nats) of the clean and of the steered run, one row per
prediction, and gives one value per row. The caller chooses the rows: the prediction after the
prompt's last token for ``over="last"``, every prediction after the vector for ``over="text"``.

Definitions are those of the authors' code, for token sets A with probabilities P (clean) and Q
(steered): effectiveness log Q(A) - log P(A), disruption Q(A) KL(Q|A || P|A) + (1 - Q(A))
KL(Q|not A || P|not A). All are exact where a probability is 0: infinite where that is the value,
never NaN from 0 log 0.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import override

from actadd_lens.analysis.logprobs import kl_terms
from actadd_lens.errors import MetricError, PromptError
from actadd_lens.metrics.registry import Kind, OwnName, register
from actadd_lens.models.base import Bridge
from actadd_lens.models.tokens import single_token

Token: TypeAlias = int | str
"""A token id, or a string of one token of the model that the metric is bound to."""
Rows: TypeAlias = Float[Tensor, "row vocab"]
Values: TypeAlias = Float[Tensor, "row"]


@dataclass(frozen=True, kw_only=True)
class LogitMetric(ABC):
    """A value for each row of clean and steered log-probabilities."""

    over: str = "last"
    """Which predictions are read: "last", after the prompt's last token, or "text", every one after
    the vector."""
    name: str = ""
    """Of the metric, as results show it; by default made of ``base`` and the settings."""

    kind: ClassVar[Kind] = "logits"
    base: ClassVar[str]

    def __post_init__(self) -> None:
        if self.over not in ("last", "text"):
            raise MetricError(f"over is {self.over!r}: it must be 'last' or 'text'")
        object.__setattr__(self, "name", OwnName.unless(self.name, self._own_name()))

    def _own_name(self) -> str:
        return self.base if self.over == "last" else f"{self.base}_text"

    def bind(self, model: Bridge) -> "LogitMetric":  # noqa: ARG002 - most have nothing to bind
        """The metric with its strings read as tokens of ``model``."""
        return self

    def __call__(
        self, clean: Float[Tensor, "clean vocab"], steered: Float[Tensor, "steered vocab"]
    ) -> Float[Tensor, "clean"]:
        """One value per row.

        Args:
            clean: Log-probabilities (nats) of the clean run.
            steered: Log-probabilities of the steered run for the same predictions.
        """
        if clean.shape != steered.shape:
            raise MetricError(
                f"{self.name}: clean is {tuple(clean.shape)}, steered {tuple(steered.shape)}: "
                "give both runs the same predictions"
            )
        return self.values(clean, steered)

    @abstractmethod
    def values(self, clean: Rows, steered: Rows) -> Values:
        """What the metric is; see the class."""


@dataclass(frozen=True)
class KL(LogitMetric):
    """KL(steered || clean) in nats, the direction of the paper's token-level figures.

    >>> clean, steered = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]).log()
    >>> KL()(clean, steered)
    tensor([0.6931])
    """

    base = "kl"

    @override
    def values(self, clean: Rows, steered: Rows) -> Values:
        return kl_terms(steered, clean).sum(dim=-1)


@dataclass(frozen=True)
class ReverseKL(LogitMetric):
    """KL(clean || steered) in nats.

    >>> clean, steered = torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.5, 0.5]]).log()
    >>> ReverseKL()(clean, steered)
    tensor([0.6931])
    """

    base = "reverse_kl"

    @override
    def values(self, clean: Rows, steered: Rows) -> Values:
        return kl_terms(clean, steered).sum(dim=-1)


@dataclass(frozen=True)
class Entropy(LogitMetric):
    """Entropy of the steered distribution in nats.

    >>> Entropy()(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]).log())
    tensor([0.6931])
    """

    base = "entropy"

    @override
    def values(self, clean: Rows, steered: Rows) -> Values:
        return _entropy(steered)


@dataclass(frozen=True)
class RelativeKL(LogitMetric):
    """KL(steered || clean) over the entropy of the clean distribution; NaN where that is 0.

    >>> clean = torch.tensor([[0.5, 0.5]]).log()
    >>> RelativeKL()(clean, clean)
    tensor([0.])
    """

    base = "relative_kl"

    @override
    def values(self, clean: Rows, steered: Rows) -> Values:
        entropy = _entropy(clean)
        ratio = kl_terms(steered, clean).sum(dim=-1) / entropy
        return torch.where(entropy > 0, ratio, torch.full_like(ratio, math.nan))


@dataclass(frozen=True)
class TotalVariation(LogitMetric):
    """Half the sum of ``|steered - clean|`` over the vocabulary, in [0, 1].

    >>> TotalVariation()(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]]).log())
    tensor([0.5000])
    """

    base = "total_variation"

    @override
    def values(self, clean: Rows, steered: Rows) -> Values:
        return (steered.exp() - clean.exp()).abs().sum(dim=-1) / 2


@dataclass(frozen=True)
class _OfTokens(LogitMetric):
    """A logit metric of one token or a set of tokens."""

    tokens: Token | Sequence[Token]
    """Ids, or strings of one token each; stored as a tuple."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", self.members)
        super().__post_init__()

    @property
    def members(self) -> tuple[Token, ...]:
        """The set."""
        return (self.tokens,) if isinstance(self.tokens, (int, str)) else tuple(self.tokens)

    def _own_name(self) -> str:
        return f"{super()._own_name()}({', '.join(map(repr, self.members))})"

    def bind(self, model: Bridge) -> "LogitMetric":
        """The metric with its strings read as tokens of ``model``.

        Raises:
            MetricError: A string is not one token of the model.
        """
        try:
            ids = [
                token if isinstance(token, int) else single_token(model, token, "token")
                for token in self.members
            ]
        except PromptError as error:
            raise MetricError(str(error)) from error
        return replace(self, tokens=tuple(ids))

    def _mask(self, like: Rows) -> Bool[Tensor, "vocab"]:
        """True for the tokens of the set."""
        vocab = like.shape[-1]
        unknown = [t for t in self.members if not (isinstance(t, int) and 0 <= t < vocab)]
        if unknown:
            raise MetricError(
                f"{self.name}: {unknown[0]!r} is not an id of the vocabulary's {vocab} tokens: "
                "bind the metric to the model first, metric.bind(model), or give ids"
            )
        mask = torch.zeros(vocab, dtype=torch.bool, device=like.device)
        mask[[int(t) for t in self.members]] = True
        return mask


@dataclass(frozen=True)
class TokenLogProb(_OfTokens):
    """Log-probability (nats) of the token, or of a set together, in the steered run.

    >>> TokenLogProb(1)(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]).log())
    tensor([-0.6931])
    """

    base = "token_logprob"

    @override
    def values(self, clean: Rows, steered: Rows) -> Values:
        return _mass(steered, self._mask(steered))


@dataclass(frozen=True)
class TokenRank(_OfTokens):
    """How many tokens are more likely in the steered run than the likeliest of the set, from 0.

    >>> TokenRank(1)(torch.zeros(1, 3), torch.tensor([[0.5, 0.2, 0.3]]).log())
    tensor([2.])
    """

    base = "token_rank"

    @override
    def values(self, clean: Rows, steered: Rows) -> Values:
        if not self.members:
            raise MetricError(
                "a rank is of one token or the likeliest of several: give at least one"
            )
        best = steered[:, self._mask(steered)].amax(dim=-1, keepdim=True)
        return (steered > best).sum(dim=-1).float()


@dataclass(frozen=True)
class LogitDifference(_OfTokens):
    """Log-odds (nats) between two tokens in the steered run: logit of the first less the second's.

    NaN where both have probability 0: their odds are undefined.

    >>> LogitDifference((0, 1))(torch.zeros(1, 2), torch.tensor([[0.8, 0.2]]).log())
    tensor([1.3863])
    """

    base = "logit_difference"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.members) != 2:
            raise MetricError(f"a logit difference is between 2 tokens, not {len(self.members)}")

    @override
    def values(self, clean: Rows, steered: Rows) -> Values:
        self._mask(steered)
        first, second = (steered[:, int(token)] for token in self.members)
        return first - second


@dataclass(frozen=True)
class Effectiveness(_OfTokens):
    """log Q(A) - log P(A) in nats: how much more likely the set becomes; 0 for no tokens.

    >>> clean, steered = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
    >>> Effectiveness(0)(clean, steered)
    tensor([0.4055])
    """

    base = "effectiveness"

    @override
    def values(self, clean: Rows, steered: Rows) -> Values:
        members = self._mask(steered)
        before, after = _mass(clean, members), _mass(steered, members)
        return torch.where(before == after, torch.zeros_like(after), after - before)


@dataclass(frozen=True)
class Disruption(_OfTokens):
    """What steering changes apart from the probability of the set A, in nats.

    Q(A) KL(Q|A || P|A) + (1 - Q(A)) KL(Q|not A || P|not A), each renormalised in its set; for no
    tokens KL(Q || P).

    >>> clean, steered = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
    >>> Disruption(0)(clean, steered)
    tensor([0.])
    """

    base = "disruption"

    @override
    def values(self, clean: Rows, steered: Rows) -> Values:
        members = self._mask(steered)
        inside = _conditional_kl(clean, steered, members)
        return inside + _conditional_kl(clean, steered, ~members)


kl = register("kl")(KL())
reverse_kl = register("reverse_kl")(ReverseKL())
entropy = register("entropy")(Entropy())
relative_kl = register("relative_kl")(RelativeKL())
total_variation = register("total_variation")(TotalVariation())


def _entropy(logprobs: Rows) -> Values:
    return -torch.where(logprobs == -math.inf, 0.0, logprobs.exp() * logprobs).sum(dim=-1)


def _mass(logprobs: Rows, members: Bool[Tensor, "vocab"]) -> Values:
    """Log-probability of a set; -inf for an empty one."""
    return logprobs[:, members].logsumexp(dim=-1)


def _conditional_kl(clean: Rows, steered: Rows, part: Bool[Tensor, "vocab"]) -> Values:
    """Q(part) KL(Q|part || P|part); 0 where Q(part) is 0."""
    before, after = _mass(clean, part), _mass(steered, part)
    q = steered[:, part] - after[:, None]
    p = clean[:, part] - before[:, None].where(before[:, None] > -math.inf, 0.0)
    within = kl_terms(q, p).sum(dim=-1)
    divergence = torch.where(within == math.inf, within, after.exp() * within)
    return torch.where(after == -math.inf, torch.zeros_like(after), divergence)
