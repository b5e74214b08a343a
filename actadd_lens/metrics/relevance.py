"""Whether a completion keeps to the subject of its prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from actadd_lens.generation.completions import Completion
from actadd_lens.metrics.loading import load_error, require

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Relevance:
    """Cosine between the sentence embeddings of a prompt and its completion, in [-1, 1].

    The measure of relevance in Turner et al. (2308.10248, table of the detoxification
    experiment). Texts are embedded in batches and truncated to the model's length. NaN where the
    prompt or the completion is empty. The model is loaded at the first call, also at one without
    completions, and kept.

    Raises:
        MissingExtraError: sentence-transformers is not installed (the extra ``relevance``).
        ModelLoadError: The model cannot be loaded.

    >>> completion = al.Completion("The bride", " kissed the groom.", (), (), 0, 0)
    >>> Relevance()([completion])  # doctest: +SKIP
    [0.67...]
    """

    model: str | Path = DEFAULT_MODEL
    """A directory of sentence-transformers, or a name on the hub."""
    name: str = "relevance"

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        """One cosine a completion."""
        encoder = _load_encoder(str(self.model))
        pairs = [(completion.prompt, completion.text) for completion in completions]
        texts = sorted({text for pair in pairs for text in pair if text.strip()})
        if not texts:
            return [float("nan")] * len(pairs)
        row = {text: index for index, text in enumerate(texts)}
        unit = _embed(encoder, texts)
        return [
            float(unit[row[prompt]] @ unit[row[text]])
            if prompt in row and text in row
            else float("nan")
            for prompt, text in pairs
        ]


def _embed(encoder: Any, texts: list[str]) -> Float[Tensor, "text width"]:
    """Embeddings of norm 1."""
    with torch.no_grad():
        embeddings: Tensor = encoder.encode(
            texts, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
        )
    return embeddings.float().cpu().clone()


@lru_cache(maxsize=4)
def _load_encoder(name: str) -> Any:
    library = require("sentence_transformers", "relevance", "Relevance")
    options = {"trust_remote_code": False, "local_files_only": Path(name).is_dir()}
    try:
        with torch.random.fork_rng(devices=[]):  # missing weights would be drawn from it
            return library.SentenceTransformer(name, **options)
    except Exception as error:  # whatever is wrong inside, the caller asked for a model
        raise load_error("a sentence-embedding model", name, error) from error
