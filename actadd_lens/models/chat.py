"""Chats: messages in a model's own template, and where each message is among the tokens."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actadd_lens.errors import PromptError
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.hook_points import check_model
from actadd_lens.models.tokens import Prompt, Span, check_context, covering


@dataclass(frozen=True)
class ChatPrompt(Prompt):
    """A chat as the model reads it, up to where its reply begins; ``chat`` makes it."""

    messages: tuple[tuple[str, str], ...] = ()
    """Role and content of each message, as given."""

    @property
    def label(self) -> str:
        """The last user message."""
        said = [content for role, content in self.messages if role == "user"]
        return said[-1] if said else self.text


def chat(
    model: Bridge, messages: str | Sequence[Mapping[str, Any]], *, system: str | None = None
) -> ChatPrompt:
    """A prompt in the model's own chat template, with the template's beginning of a reply.

    Args:
        model: Any TransformerBridge whose tokenizer has a chat template.
        messages: What the user says; or messages with "role" and "content", in order.
        system: A system message in front of them.

    Returns:
        A prompt for every function that takes prompts. ``text`` is the rendered template and
        ``tokens`` are its token ids: BOS is there once if the template writes it, else not.
        ``spans`` has a ``(role, start, stop)`` for each message that the template renders: the
        positions of its words, ``stop`` not included. A system message that the template adds by
        itself is not among them.

    Raises:
        PromptError: A model without a chat template, or one that does not take these messages, such
            as a system message; no messages, or something else than messages.

    >>> model = load_model("testbed")
    >>> model.tokenizer.chat_template = (
    ...     "{% for m in messages %}{{ m.role }}: {{ m.content }}. {% endfor %}"
    ...     "{% if add_generation_prompt %}assistant:{% endif %}"
    ... )
    >>> prompt = chat(model, "I hate you")
    >>> prompt.text
    'user: I hate you. assistant:'
    >>> [(role, model.tokenizer.decode(prompt[a:b]).strip()) for role, a, b in prompt.spans]
    [('user', 'I hate you')]
    """
    check_model(model)
    turns = _turns(messages, system)
    name, tokenizer = BridgeModel(model).name, model.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        raise PromptError(
            f"{name} has no chat template, so it was hardly trained on chats: give the prompt as a "
            "text, or set model.tokenizer.chat_template"
        )
    contents = [str(turn["content"]) for turn in turns]
    marks = [f"<mark{i}of{len(turns)}>" for i in range(len(turns))]
    while any(mark in content for mark in marks for content in contents):
        marks = [f"<{mark}>" for mark in marks]
    text = _rendered(name, tokenizer, turns)
    marked = [{**turn, "content": mark} for turn, mark in zip(turns, marks, strict=True)]
    places = _places(text, _rendered(name, tokenizer, marked), marks, contents)
    if turns[0]["role"] == "system" and 0 not in places:
        raise PromptError(
            f"the chat template of {name} leaves a system message out: put what it says into the "
            "first user message"
        )
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=bool(tokenizer.is_fast)
    )
    tokens = tuple(encoded["input_ids"])
    check_context(model, len(tokens), "the chat")
    offsets = encoded.get("offset_mapping") or Prompt(text, tokens, (), tokenizer)._offsets
    spans = [Span(str(turns[i]["role"]), *covering(offsets, *place)) for i, place in places.items()]
    said = tuple((str(turn["role"]), str(turn["content"])) for turn in turns)
    return ChatPrompt(text, tokens, tuple(spans), tokenizer, said)


def _turns(messages: Any, system: str | None) -> list[dict[str, Any]]:
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence) or not messages:
        raise PromptError(
            f"messages are {messages!r}: give what the user says, or a list of messages, e.g. "
            "[{'role': 'user', 'content': 'Hello'}]"
        )
    turns = [] if system is None else [{"role": "system", "content": system}]
    for index, message in enumerate(messages):
        fields = message if isinstance(message, Mapping) else {}
        if not all(isinstance(fields.get(key), str) for key in ("role", "content")):
            raise PromptError(
                f"message {index} is {message!r}: give a mapping with the texts 'role' and "
                "'content'"
            )
        turns.append(dict(message))
    if not any(turn["content"].strip() for turn in turns):
        raise PromptError("every message of the chat is empty: give one a text")
    if sum(turn["role"] == "system" for turn in turns) > 1 and system is not None:
        raise PromptError("there is a system message among the messages, and system=: give one")
    return turns


def _rendered(name: str, tokenizer: Any, turns: Sequence[Mapping[str, Any]]) -> str:
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        remedy = "give messages of other roles, or in another order"
        if turns[0]["role"] == "system":
            remedy = "if it has no system role, put what the system message says into the first "
            remedy += "user message"
        raise PromptError(
            f"the chat template of {name} does not take the roles "
            f"{', '.join(str(turn['role']) for turn in turns)}: {error}: {remedy}"
        ) from error
    return text


def _places(
    text: str, marked: str, marks: Sequence[str], contents: Sequence[str]
) -> dict[int, tuple[int, int]]:
    """Where the words of each message are in the rendered text, by index of the message.

    ``marked`` is the same chat with a mark in place of each content: what lies between the marks is
    the template's own. A template may strip a content, or leave it out.
    """
    parts = re.split("|".join(map(re.escape, marks)), marked)
    order = [marks.index(mark) for mark in re.findall("|".join(map(re.escape, marks)), marked)]
    pattern = re.escape(parts[0])
    for i, after in zip(order, parts[1:], strict=True):
        content = contents[i]
        forms = dict.fromkeys([content, content.strip(), content.lstrip(), content.rstrip()])
        pattern += f"({'|'.join(map(re.escape, forms))}){re.escape(after)}"
    found, places = re.fullmatch(pattern, text), dict[int, tuple[int, int]]()
    at = 0
    for group, i in enumerate(order, start=1):
        words = contents[i].strip()
        # Where the template writes other things around these contents, they follow in order.
        start = found.start(group) if found else text.find(words, at)
        start = text.find(words, start) if start >= 0 else start
        if start >= 0:
            at = start + len(words)
            places.setdefault(i, (start, at))
    return dict(sorted(places.items()))
