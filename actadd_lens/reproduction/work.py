"""What an experiment asks of a model, counted as it asks: passes, tokens read, tokens decoded."""

from dataclasses import astuple, dataclass, replace
from typing import Literal

from actadd_lens.reproduction.sizes import Sizes

Axis = Literal["prompts", "documents", "facts", "repeats"]


@dataclass(frozen=True)
class Work:
    """Counts that add up."""

    passes: float = 0.0
    """Sequences read, those behind which text is generated included."""
    read: float = 0.0
    """Tokens read in parallel, each through all blocks: half the blocks count half a token."""
    decoded: float = 0.0
    """Tokens decoded one at a time, behind a cache."""
    unembedded: float = 0.0
    """Tokens of which logits were made."""

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Ask:
    """One thing asked of a model: several runs over the same sequences."""

    name: str
    """What for; a search is named alike in every experiment that needs it."""
    runs: int
    """Steered or not: how often each sequence is read."""
    sequences: int
    tokens: float
    """Of a sequence, on the mean."""
    counts: Axis
    """Which of the sizes the number of sequences follows."""
    samples: int = 0
    """Completions of each sequence in each run; 0 reads alone."""
    new_tokens: int = 0
    """Of a completion; where there are no samples, of one that is read behind its prompt."""
    layers: int = 1
    """Layers that the runs are spread over: more in a model that has more."""
    each_layer: int = 0
    """Runs that every one of them adds."""
    depth: float = 1.0
    """Share of the blocks that a run goes through, on the mean."""
    all_logits: bool = False
    """Whether logits are made after every token, not the last alone."""
    judged: bool = False
    """Whether the model reads each completion once more, to judge it."""

    @property
    def work(self) -> Work:
        """What it comes to.

        Every run is read for its divergence from the clean one; where text is generated, its
        prompt is read again, and so is the text if the steered model judges it.

        >>> Ask("one", 2, 10, 8, "prompts", samples=1, new_tokens=24, depth=0.5).work
        Work(passes=40, read=240.0, decoded=460, unembedded=500)
        """
        passes = self.runs * self.sequences
        if not self.samples:
            length = self.tokens + self.new_tokens
            read = passes * length * self.depth
            return Work(passes, read, 0, passes * (length if self.all_logits else 1))
        read = passes * self.tokens * self.depth
        texts = passes * self.samples
        judged = texts * (self.tokens + self.new_tokens) if self.judged else 0
        return Work(
            2 * passes + (texts if self.judged else 0),
            read + passes * self.tokens + judged,
            texts * (self.new_tokens - 1),
            passes + texts * self.new_tokens + judged,
        )

    def scaled(self, old: Sizes, new: Sizes, n_layers: int, more_layers: int) -> "Ask":
        """The same at other sizes, for a model of ``more_layers`` instead of ``n_layers``."""
        tried = min(n_layers, old.layers), min(more_layers, new.layers)
        more = tried[1] - tried[0] if self.layers > 1 else 0
        share = getattr(new, self.counts) / getattr(old, self.counts)
        return replace(
            self,
            runs=self.runs + self.each_layer * more,
            layers=self.layers + more,
            sequences=round(self.sequences * share),
            samples=new.samples if self.samples else 0,
            new_tokens=new.new_tokens if self.new_tokens else 0,
        )
