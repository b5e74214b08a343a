"""How much of everything an experiment measures."""

from dataclasses import dataclass, fields, replace

from actadd_lens.errors import require_count


@dataclass(frozen=True)
class Sizes:
    """Counts that every experiment takes its own from."""

    prompts: int = 100
    """Of each split."""
    samples: int = 1
    """Completions of a prompt in every run."""
    new_tokens: int = 24
    """Of a completion."""
    layers: int = 48
    """Layers tried at most, spread evenly; every one of a model that has no more."""
    documents: int = 600
    """Texts to read."""
    facts: int = 60
    """Questions with known answers."""
    draws: int = 10
    """Random vectors, where they are the question."""
    repeats: int = 9
    """Of each timing."""

    def __post_init__(self) -> None:
        for field in fields(self):
            require_count(field.name, getattr(self, field.name))

    def with_prompts(self, n: int) -> "Sizes":
        """The same with ``n`` prompts a split, and documents and facts in proportion.

        >>> Sizes().with_prompts(10).documents
        60
        """
        share = n / self.prompts
        scaled = {
            name: max(1, round(share * getattr(self, name))) for name in ("documents", "facts")
        }
        return replace(self, prompts=n, **scaled)


TESTBED = Sizes()
PAPER = Sizes(prompts=1000, new_tokens=40, documents=5000, facts=1000)
"""For real models: RealToxicityPrompts and IMDb are sampled as in the paper, n = 1000."""
