"""Train the bundled model: `python -m tools.testbed_training --out DIR`.

A GPT-Neo whose first layers see four tokens only, so that what a document is about has to be read
from far by the later layers, in one run from scratch. The same seed and thread count give the same
weights. docs/testbed.md has the figures and the attempts that led here.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoConfig, GPTNeoForCausalLM, PreTrainedTokenizerFast

from actadd_lens.testbed.corpus import Corpus

BOS = "<|endoftext|>"


@dataclass(frozen=True)
class TrainingCorpus(Corpus):
    """Documents as rows to train on. The fields are probabilities."""

    fragment: float = 0.1  # rows that open in the middle of a sentence
    continued: float = 0.15  # rows that open in lower case after a space
    stray_space: float = 0.05  # rows that open with a stray space

    def row(self, rng: random.Random, n: int) -> str:
        """Text of a row: a document, sometimes cut in front or led by spaces."""
        text = self.document(rng, n)
        if rng.random() < self.fragment:
            words = text.split(" ")
            text = " " + " ".join(words[rng.randrange(1, max(2, len(words) // 3)) :])
        elif rng.random() < self.continued:
            text = " " + text[0].lower() + text[1:]
        if rng.random() < self.stray_space:
            text = " " + text
        return text


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights, the thread count apart."""

    seed: int = 0
    steps: int = 1800
    batch: int = 32
    length: int = 64
    long_every: int = 6  # every so many steps rows are `context` tokens long, and fewer
    context: int = 128
    vocabulary: int = 1536
    tokenizer_rows: int = 20_000
    layers: int = 6
    local_layers: int = 2
    window: int = 4
    width: int = 128
    heads: int = 4
    learning_rate: float = 3e-3  # AdamW: embeddings, norms, biases
    muon_rate: float = 0.02  # Muon: the blocks' matrices
    warmup: int = 100
    corpus: TrainingCorpus = field(default_factory=TrainingCorpus)


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the corpus, the same for every seed; one token ends, begins and pads."""
    rng = random.Random(7)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        (recipe.corpus.row(rng, 6) for _ in range(recipe.tokenizer_rows)),
        trainers.BpeTrainer(
            vocab_size=recipe.vocabulary,
            special_tokens=[BOS],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    fast: Any = PreTrainedTokenizerFast  # its types are incomplete
    tokenizer: PreTrainedTokenizerFast = fast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=BOS,
        unk_token=BOS,
        model_max_length=recipe.context,
    )
    return tokenizer


def rows(
    tokenizer: PreTrainedTokenizerFast, corpus: TrainingCorpus, seed: int
) -> Iterator[list[int]]:
    """Endless token rows, BOS first, never shorter than the context."""
    rng = random.Random(seed)
    context = tokenizer.model_max_length

    def tokens(text: str) -> list[int]:
        return [tokenizer.bos_token_id, *tokenizer.encode(text, truncation=True)]

    while True:
        ids = tokens(corpus.row(rng, 20))
        while len(ids) <= context:
            ids += tokens(corpus.document(rng, 9))
        yield ids[: context + 1]


def build(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> GPTNeoForCausalLM:
    """The untrained model."""
    return GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=recipe.context,
            hidden_size=recipe.width,
            num_layers=recipe.layers,
            num_heads=recipe.heads,
            intermediate_size=4 * recipe.width,
            window_size=recipe.window,
            attention_types=[
                [["local"], recipe.local_layers],
                [["global"], recipe.layers - recipe.local_layers],
            ],
            initializer_range=recipe.width**-0.5,
            resid_dropout=0.0,
            embed_dropout=0.0,
            attention_dropout=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def optimizers(model: GPTNeoForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for the rest."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ".h." in n]
    chosen = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.1),
        torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(step: int, recipe: Recipe) -> float:
    """Share of the full learning rate: linear warm-up, then a cosine to 2 %."""
    warm = min(1.0, (step + 1) / recipe.warmup)
    return warm * (0.02 + 0.49 * (1 + math.cos(math.pi * step / recipe.steps)))


def train(recipe: Recipe, out: Path, *, log_every: int = 50) -> GPTNeoForCausalLM:
    """Train from scratch and write the checkpoint (float16), tokenizer and recipe to `out`."""
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(recipe)
    model = build(recipe, tokenizer)
    model.train()
    optimisers = optimizers(model, recipe)
    source = rows(tokenizer, recipe.corpus, seed=recipe.seed + 1000)
    began = time.monotonic()
    smooth = math.log(len(tokenizer))
    for step in range(recipe.steps):
        long = step % recipe.long_every == recipe.long_every - 1
        length = recipe.context if long else recipe.length
        batch = recipe.batch * recipe.length // length
        ids = torch.tensor([next(source)[: length + 1] for _ in range(batch)])
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group.setdefault("full_lr", group["lr"])
                group["lr"] = group["full_lr"] * schedule(step, recipe)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        smooth = 0.97 * smooth + 0.03 * loss.item()
        if (step + 1) % log_every == 0 or step + 1 == recipe.steps:
            spent = time.monotonic() - began
            left = spent / (step + 1) * (recipe.steps - step - 1)
            print(
                f"step {step + 1:>5}/{recipe.steps}  loss {smooth:.3f}  "
                f"{spent / 60:5.1f} min, {left / 60:.1f} left",
                flush=True,
            )
    model.train(False)
    save(model, tokenizer, recipe, out)
    return model


def save(
    model: GPTNeoForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, out: Path
) -> None:
    """Write the checkpoint in float16 with its tokenizer and its recipe."""
    out.mkdir(parents=True, exist_ok=True)
    half: Any = model  # likewise
    half.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(Recipe(seed=arguments.seed), arguments.out)


if __name__ == "__main__":
    main()
