"""Text to tokens and back: BOS, padding, the end of a completion.

BOS is always asked for by name. Left to itself, TransformerBridge leaves it out for two dozen
architectures, and then row 0 of a contrast would no longer be the zero of the paper.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from actadd_lens.errors import PromptError
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel, check_model

_ANCHOR = "a"
"""Text of a token that others are decoded behind."""


def as_texts(prompts: str | Sequence[str]) -> list[str]:
    """Prompts as a list; a single string counts as one prompt.

    Raises:
        PromptError: Neither a string nor a sequence.
    """
    if isinstance(prompts, str):
        return [prompts]
    try:
        return list(prompts)
    except TypeError as error:
        raise PromptError(f"prompts are {prompts!r}: give a text, or a list of texts") from error


def tokenize(model: Bridge, prompts: str | Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt, BOS first, not padded.

    Args:
        model: Any TransformerBridge with a tokenizer.
        prompts: Texts; a single string counts as one prompt.

    Raises:
        PromptError: No prompt, an empty one, or one beyond the context, with its index.

    >>> model = load_model("testbed")
    >>> [row[0] == model.tokenizer.bos_token_id for row in tokenize(model, ["Love", "I hate"])]
    [True, True]
    """
    check_model(model)
    texts = as_texts(prompts)
    if not texts:
        raise PromptError("the list of prompts is empty: give at least one")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise PromptError(f"prompt {index} is a {type(text).__name__}: give texts, not tokens")
        if not text:
            raise PromptError(f"prompt {index} is empty: give it a text")
    rows = [encode(model, text) for text in texts]
    for index, row in enumerate(rows):
        check_context(model, len(row), f"prompt {index}")
    return rows


def encode(model: Bridge, text: str) -> list[int]:
    """Token ids of one text with exactly one BOS in front, or EOS where a tokenizer has no BOS.

    A text that begins with BOS, spelt out, gets no second one.
    """
    check_model(model)
    bos = model.tokenizer.bos_token
    spelt_out = text.startswith(bos)
    ids = model.to_tokens(text, prepend_bos=not spelt_out, truncate=False)[0].tolist()
    first = [model.tokenizer.bos_token_id]
    return ids if ids[:1] == first else first + ids


def token_texts(model: Bridge, tokens: Iterable[int]) -> list[str]:
    """Text of each token, with the space that it begins with.

    Some tokenizers drop the space in front of a text's first word, which would make "Love" and
    " Love" the same. So each is decoded behind another token, whose text is cut off.

    >>> model = load_model("testbed")
    >>> token_texts(model, encode(model, "I love"))[0] == model.tokenizer.bos_token
    True
    """
    decode = model.tokenizer.decode
    anchor = model.tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"][-1:]
    head = str(decode(anchor))
    texts = []
    for token in tokens:
        behind = str(decode([*anchor, token]))
        known = bool(head) and behind.startswith(head)
        texts.append(behind[len(head) :] if known else str(decode([token])))
    return texts


def check_context(model: Bridge, n_tokens: int, what: str) -> None:
    """Raise ``PromptError`` if ``n_tokens`` are more than the model reads."""
    own = BridgeModel(model)
    if n_tokens > own.n_ctx:
        raise PromptError(
            f"{what} has {n_tokens} tokens, {own.name} reads at most {own.n_ctx}: shorten it"
        )


def pad_id(model: Bridge, pad: str | int) -> int:
    """Token id of what a prompt is padded with.

    Raises:
        PromptError: A string of several tokens or none, or an id outside the vocabulary.
    """
    if isinstance(pad, int):
        if not 0 <= pad < model.cfg.d_vocab:
            raise PromptError(
                f"pad token {pad} is out of range: the vocabulary has {model.cfg.d_vocab} tokens"
            )
        return pad
    return single_token(model, pad, "pad")


def single_token(model: Bridge, text: str, what: str = "text") -> int:
    """Id of the one token that spells a text.

    Raises:
        PromptError: It is several tokens, or none.
    """
    ids, behind = model.tokenizer([text, f" {text}"], add_special_tokens=False)["input_ids"]
    if len(ids) == 1:
        return int(ids[0])
    pieces = model.tokenizer.convert_ids_to_tokens(ids)
    spaced = f"{' ' + text!r} is one; " if len(behind) == 1 else ""
    raise PromptError(
        f"{what} {text!r} is {len(ids)} tokens {pieces} of {BridgeModel(model).name}, not one: "
        f"{spaced}choose another string, or give a token id"
    )


def pad_right(
    rows: Sequence[Sequence[int]], pad: int
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Ragged rows of token ids as one batch, and its mask of real tokens, padding on the right.

    >>> pad_right([[5, 6], [7]], pad=0)[0].tolist()
    [[5, 6], [7, 0]]
    """
    width = max(map(len, rows))
    tokens = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return tokens, mask


def pad_left(
    rows: Sequence[Sequence[int]], pad: int
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """As ``pad_right``, padding on the left, so that the last column is each row's last token.

    >>> pad_left([[5, 6], [7]], pad=0)[0].tolist()
    [[5, 6], [0, 7]]
    """
    tokens, mask = pad_right([row[::-1] for row in rows], pad)
    return tokens.flip(1), mask.flip(1)


def right_padded(
    model: Bridge, rows: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Tokens and mask as ``pad_right`` makes them, on the model's device."""
    return _placed(model, pad_right(rows, model.tokenizer.pad_token_id))


def left_padded(
    model: Bridge, rows: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Tokens and mask as ``pad_left`` makes them, on the model's device."""
    return _placed(model, pad_left(rows, model.tokenizer.pad_token_id))


def _placed(model: Bridge, padded: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    device = BridgeModel(model).device
    return padded[0].to(device), padded[1].to(device)


def text_of_tokens(model: Bridge, tokens: Sequence[int]) -> str:
    """The text that token ids spell."""
    text: str = model.tokenizer.decode(list(tokens))
    return text


def end_token(model: Bridge) -> int | None:
    """The token that ends a completion."""
    token: int | None = model.tokenizer.eos_token_id
    return token


def completion_text(model: Bridge, prompt: Sequence[int], tokens: Sequence[int]) -> str:
    """Raw text of tokens in the place where they are, after a prompt.

    Some tokenizers drop the space in front of a text's first word, so prompt and completion are
    decoded together and the prompt's part is cut off.
    """

    def decode(ids: Sequence[int]) -> str:
        text: str = model.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return text

    head, whole = decode(prompt), decode([*prompt, *tokens])
    return whole[len(head) :] if whole.startswith(head) else decode(tokens)
