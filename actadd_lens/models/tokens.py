"""Text to tokens and back: prompts, BOS, padding, the end of a completion.

One setting says whether BOS is put in front of a text: TransformerLens's own
``model.cfg.default_prepend_bos``, which is off for two dozen architectures and which
``load_model(..., prepend_bos=)`` sets.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from actadd_lens.errors import PromptError
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.hook_points import check_model

PromptLike: TypeAlias = Any
"""A prompt as a caller gives it: a text, token ids (a list of integers or a tensor [pos]), or what
``chat`` returns. What is none of these raises ``PromptError``."""
Prompts: TypeAlias = Any
"""One ``PromptLike``, or a list of them; a tensor [prompt, pos] has a prompt in each row."""

_ANCHOR = "a"
"""Text of a token that others are decoded behind."""
_INCOMPLETE = "\ufffd"
"""What bytes are decoded to that are only a part of a character."""
_GIVE = "give a text, token ids, or what al.chat returns"


class Span(NamedTuple):
    """The tokens of one message's words in a chat: those from ``start`` on, before ``stop``."""

    role: str
    start: int
    stop: int


@dataclass(frozen=True)
class Prompt(Sequence[int]):
    """A prompt: the sequence of its token ids, which also knows its text and its messages."""

    text: str
    """As given; of token ids, the text that they spell."""
    tokens: tuple[int, ...]
    """As the model reads them, BOS included where there is one."""
    spans: tuple[Span, ...] = ()
    """Where the words of each message are; none if the prompt is not a chat."""
    tokenizer: Any = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """What tables and frames call it."""
        return self.text

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        return self.tokens[index]

    def __len__(self) -> int:
        return len(self.tokens)

    def places(self, text: str) -> list[tuple[int, int]]:
        """The tokens that spell a text, [start, stop) for each place where they do."""
        found, at = [], self._spelt.find(text)
        while at >= 0:
            found.append(covering(self._offsets, at, at + len(text)))
            at = self._spelt.find(text, at + len(text))
        return found

    @property
    def _spelt(self) -> str:
        return str(self._decoded(len(self)))

    @cached_property
    def _offsets(self) -> list[tuple[int, int]]:
        """Where the text of each token is in the text of all.

        Decoded together with the tokens before it, since many decoders treat the first specially.
        """
        found, start = [], 0
        for n in range(1, len(self) + 1):
            whole = self._decoded(n)
            complete = len(whole.rstrip(_INCOMPLETE))
            found.append((start, complete + (complete < len(whole))))
            start = complete
        return found

    def _decoded(self, n: int) -> str:
        text: str = self.tokenizer.decode(list(self.tokens[:n]), clean_up_tokenization_spaces=False)
        return text


def covering(offsets: Sequence[tuple[int, int]], start: int, stop: int) -> tuple[int, int]:
    """The tokens [first, end) whose texts overlap the characters [start, stop).

    >>> covering([(0, 1), (1, 6), (6, 10)], 2, 7)
    (1, 3)
    """
    touched = [i for i, (a, b) in enumerate(offsets) if a < stop and b > start]
    if not touched:
        before = sum(b <= start for _, b in offsets)
        return before, before
    return touched[0], touched[-1] + 1


def is_prompt(given: object) -> bool:
    """Whether it is one prompt: a text, token ids, or what ``chat`` returns."""
    return isinstance(given, (str, Prompt)) or _is_ids(given)


def _is_ids(given: object) -> bool:
    if isinstance(given, Tensor):
        return given.ndim == 1
    if not isinstance(given, (Sequence, np.ndarray)) or isinstance(given, (str, bytes, bytearray)):
        return False
    return len(given) > 0 and all(
        isinstance(item, Integral) and not isinstance(item, bool) for item in given
    )


def as_prompts(model: Bridge, prompts: Prompts, what: str = "prompt") -> list[Prompt]:
    """Prompts as a caller gives them, read into one form.

    Args:
        model: Any TransformerBridge with a tokenizer.
        prompts: One, or several; a flat list of integers is one.
        what: What one is called in messages.

    Raises:
        PromptError: No prompt, an empty one, one beyond the context, or something else.
    """
    check_model(model)
    found = [
        as_prompt(model, item, f"{what} {index}") for index, item in enumerate(_several(prompts))
    ]
    for index, prompt in enumerate(found):
        check_context(model, len(prompt), f"{what} {index}")
    return found


def _several(prompts: Prompts) -> list[Any]:
    if is_prompt(prompts):
        return [prompts]
    kind = type(prompts).__name__
    if hasattr(prompts, "columns"):
        raise PromptError(f"prompts are a {kind}: give one of its columns, e.g. list(frame['x'])")
    if isinstance(prompts, Mapping):
        remedy = _GIVE
        if "input_ids" in prompts:
            remedy = "give its token ids, e.g. encoding['input_ids']"
        elif "role" in prompts:
            remedy = "for a message of a chat write al.chat(model, [message])"
        keys = ", ".join(map(repr, prompts))
        raise PromptError(f"prompts are a {kind} with the keys {keys}: {remedy}")
    if isinstance(prompts, (Set, bytes, bytearray)):
        raise PromptError(f"prompts are a {kind}: {_GIVE}, or a list of these")
    try:
        items = list(prompts)
    except TypeError as error:
        raise PromptError(f"prompts are {prompts!r}: {_GIVE}, or a list of these") from error
    if not items:
        raise PromptError("the list of prompts is empty: give at least one")
    return items


def as_prompt(
    model: Bridge, given: PromptLike, what: str = "the prompt", *, empty: bool = False
) -> Prompt:
    """One prompt as a caller gives it; ``empty`` allows one without a text.

    Raises:
        PromptError: An empty one, an id that is not in the vocabulary, or something else.
    """
    if isinstance(given, Prompt):
        text, ids = given.text, list(given.tokens)
        theirs, ours = given.tokenizer, model.tokenizer
        if theirs is not ours and theirs.get_vocab() != ours.get_vocab():
            raise PromptError(
                f"{what} has the tokens of another model: make it with this one, e.g. "
                "al.chat(model, messages)"
            )
    elif isinstance(given, str):
        if not given and not empty:
            raise PromptError(f"{what} is empty: give it a text")
        text, ids = given, encode(model, given)
    elif _is_ids(given):
        if isinstance(given, Tensor) and (given.is_floating_point() or given.dtype == torch.bool):
            raise PromptError(f"{what} is a tensor of {given.dtype}: token ids are integers")
        ids = [int(token) for token in given]
        text = text_of_tokens(model, ids) if _in_vocabulary(model, ids) else ""
    else:
        kind = type(given).__name__
        message = isinstance(given, Mapping) and "role" in given
        remedy = "for messages of a chat write al.chat(model, messages)" if message else _GIVE
        shape = f" {tuple(given.shape)}" if isinstance(given, Tensor) else ""
        raise PromptError(f"{what} is a {kind}{shape}: {remedy}")
    if not _in_vocabulary(model, ids):
        outside = next(i for i in ids if not 0 <= i < model.cfg.d_vocab)
        raise PromptError(
            f"{what} has token id {outside}, which is out of range: the vocabulary has "
            f"{model.cfg.d_vocab} tokens"
        )
    if not ids and not empty:
        raise PromptError(f"{what} has no tokens: give at least one")
    return given if isinstance(given, Prompt) else Prompt(text, tuple(ids), (), model.tokenizer)


def _in_vocabulary(model: Bridge, ids: Sequence[int]) -> bool:
    return all(0 <= token < model.cfg.d_vocab for token in ids)


def encode(model: Bridge, text: str) -> list[int]:
    """Token ids of one text, BOS in front if ``model.cfg.default_prepend_bos`` says so.

    A text that begins with BOS, spelt out, gets no second one. Where a tokenizer has no BOS,
    TransformerLens takes EOS for it.
    """
    check_model(model)
    bos = model.tokenizer.bos_token
    prepend = bool(model.cfg.default_prepend_bos and bos) and not text.lstrip().startswith(bos)
    ids = model.to_tokens(text, prepend_bos=prepend, truncate=False)[0]
    return [int(token) for token in ids]


def bare_tokens(model: Bridge, text: str) -> list[int]:
    """Token ids of a text that is a part of a prompt, with no special tokens around it."""
    ids: list[int] = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def n_bos(model: Bridge, tokens: Sequence[int]) -> int:
    """1 if BOS was put in front of a prompt of these tokens, else 0."""
    first = model.cfg.default_prepend_bos and [*tokens[:1]] == [model.tokenizer.bos_token_id]
    return int(bool(first))


def prefixed(model: Bridge, prefix: str, prompt: Prompt) -> Prompt:
    """A prompt with a text in front of it: after BOS, and in a chat in its last user message.

    The text and a prompt that is a text are tokenized together.
    """
    if not prompt.spans and prompt.tokens == tuple(encode(model, prompt.text)):
        return as_prompt(model, prefix + prompt.text)
    starts = [span.start for span in prompt.spans if span.role == "user"]
    at = starts[-1] if starts else n_bos(model, prompt.tokens)
    ids = [*prompt.tokens[:at], *bare_tokens(model, prefix), *prompt.tokens[at:]]
    return as_prompt(model, ids)


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
    return _placed(model, pad_right(rows, model.tokenizer.pad_token_id or 0))


def left_padded(
    model: Bridge, rows: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Tokens and mask as ``pad_left`` makes them, on the model's device."""
    return _placed(model, pad_left(rows, model.tokenizer.pad_token_id or 0))


def _placed(model: Bridge, padded: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    device = BridgeModel(model).device
    return padded[0].to(device), padded[1].to(device)


def text_of_tokens(model: Bridge, tokens: Sequence[int]) -> str:
    """The text that token ids spell."""
    text: str = model.tokenizer.decode(list(tokens))
    return text


def end_tokens(model: Bridge) -> frozenset[int]:
    """The tokens that end a completion: of the generation config, the config and the tokenizer."""
    module = BridgeModel(model).module
    told = [getattr(module, name, None) for name in ("generation_config", "config")]
    found: set[int] = set()
    for given in [*told, model.tokenizer]:
        ids = getattr(given, "eos_token_id", None)
        if ids is not None:
            found.update(np.atleast_1d(np.asarray(ids)).tolist())
    return frozenset(found)


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
