"""Documents: sentences that share a topic, a sentiment and a register, and facts between them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from actadd_lens.testbed.grammar import (
    ADDRESS,
    EXCLAMATIONS,
    FACT_PATTERNS,
    FACTS,
    LEADS,
    PATTERNS,
    SENTIMENTS,
    SWITCH,
    TOPICS,
    VALUES,
    capitalised,
    fill,
)


@dataclass(frozen=True)
class Corpus:
    """How documents are drawn. Every field but the weights is a probability.

    A *lead* is a word or two at the front of a document that decide one of its latents. Half of
    the time the sentence after it says otherwise, and the document goes on as the lead says: that
    makes the first position worth reading, and so a model that can be steered there. Other words
    open documents in the same forms and only hint at a latent, which the first sentence may
    overrule, or say nothing. So "Love" is a lead and "Hate" a hint: what makes a model attend to
    a lead is not shared by both sides of such a contrast, and survives the subtraction.
    """

    lead: float = 0.92
    lead_kinds: tuple[tuple[str, float], ...] = (
        ("sentiment", 0.42),
        ("topic", 0.26),
        ("register", 0.15),
        ("sentiment hint", 0.09),
        ("rude hint", 0.03),
        ("none", 0.05),
    )
    hinted: float = 0.6  # a hint comes true; else the latent is what it would have been
    lead_in_sentence: float = 0.35  # the lead is the first word of a sentence, not one of its own
    contradicted: float = 0.5
    switch: float = 0.05
    fact_document: float = 0.06
    fact: float = 0.05
    neutral_sentence: float = 0.05
    addressed: float = 0.5

    def fact_sentence(self, rng: random.Random) -> str:
        """One fact, as a sentence."""
        relation = rng.choice(tuple(FACTS))
        country = rng.choice(tuple(FACTS[relation]))
        return capitalised(
            FACT_PATTERNS[relation].format(country=country, **{relation: FACTS[relation][country]})
        )

    def sentence(self, rng: random.Random, latents: Mapping[str, str]) -> str:
        """One sentence that carries the latents."""
        if rng.random() < self.neutral_sentence:
            latents = {**latents, "sentiment": "neutral"}
        kind = rng.choices(("both", "feeling", "topic"), (0.7, 0.22, 0.08))[0]
        pattern = rng.choice(PATTERNS[kind])
        register = latents["register"]
        if register != "plain" and rng.random() < self.addressed:
            pattern = rng.choice(ADDRESS[register]) + pattern
        return fill(rng, pattern, latents)

    def latents(self, rng: random.Random) -> dict[str, str]:
        """Draw the latents of a document."""
        return {
            "topic": rng.choice(TOPICS),
            "sentiment": rng.choices(SENTIMENTS, (0.46, 0.46, 0.08))[0],
            "register": rng.choices(VALUES["register"], (0.5, 0.25, 0.25))[0],
        }

    def document(self, rng: random.Random, n: int, latents: Mapping[str, str] | None = None) -> str:
        """A document of about `n` sentences; `latents` fixes those of a document without a lead."""
        if latents is None and rng.random() < self.fact_document:
            return " ".join(self.fact_sentence(rng) for _ in range(n))
        led = latents is None and rng.random() < self.lead
        now = dict(latents) if latents is not None else self.latents(rng)
        out = self._opening(rng, now) if led else []
        switch_at = rng.randrange(1, n) if n > 1 and rng.random() < self.switch else None
        while len(out) < n:
            if len(out) == switch_at:
                if rng.random() < 0.5:
                    now["topic"] = rng.choice([t for t in TOPICS if t != now["topic"]])
                else:
                    flips = {"positive": "negative", "negative": "positive"}
                    now["sentiment"] = flips.get(now["sentiment"]) or rng.choice(SENTIMENTS[:2])
                out.append(fill(rng, SWITCH + rng.choice(PATTERNS["both"]), now))
            elif rng.random() < self.fact:
                out.append(self.fact_sentence(rng))
            else:
                out.append(self.sentence(rng, now))
        return " ".join(out)

    def _opening(self, rng: random.Random, now: dict[str, str]) -> list[str]:
        """The lead, and the sentence it may have to outweigh; sets the latent that it decides."""
        kinds, weights = zip(*self.lead_kinds, strict=True)
        kind: str = rng.choices(kinds, weights)[0]
        if kind == "none":
            return [fill(rng, rng.choice(LEADS[kind]), now)]
        latent = "register" if kind == "rude hint" else kind.removesuffix(" hint")
        value = self._lead_value(rng, kind)
        forms = LEADS[value if kind == "register" else kind]
        if kind in EXCLAMATIONS and rng.random() < self.lead_in_sentence:
            forms = EXCLAMATIONS[kind]
        lead = fill(rng, rng.choice(forms), {**now, latent: value})
        if kind.endswith("hint"):
            now[latent] = value if rng.random() < self.hinted else now[latent]
            return [lead]
        now[latent] = value
        if rng.random() >= self.contradicted:
            return [lead]
        others = [other for other in VALUES[latent] if other != value]
        return [lead, self.sentence(rng, {**now, latent: rng.choice(others)})]

    def _lead_value(self, rng: random.Random, kind: str) -> str:
        """What a lead or a hint says."""
        if kind == "rude hint":
            return "rude"
        if kind == "register":
            return rng.choice(("polite", "rude"))
        if kind == "topic":
            return rng.choice(TOPICS)
        return rng.choices(SENTIMENTS, (0.45, 0.45, 0.1))[0]
