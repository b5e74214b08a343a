"""A random model of GPT-2 small's size, with a tokenizer made on the spot."""

from pathlib import Path
from typing import Any

import torch

_TEXT = "I love you and hate waiting for the train while weddings go on all day "


def make_gpt2_small(directory: Path) -> None:
    """Save 12 layers, d_model 768 and 50257 tokens of random weights as the hub would have them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0)).save_pretrained(directory)
    _make_tokenizer().save_pretrained(directory)


def _make_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def prompt_of(model: Any, n_tokens: int) -> str:
    """A text of exactly ``n_tokens`` tokens, BOS included."""
    text = _TEXT * n_tokens
    while len(model.to_tokens(text, prepend_bos=True)[0]) > n_tokens:
        text = text[:-1]
    return text
