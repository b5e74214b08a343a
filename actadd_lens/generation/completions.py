"""Generating text with and without steering.

An ActAdd vector changes the stream of the prompt only (Algorithm 1): one steered pass fills the
key-value cache, which all samples of the prompt share, and what follows is ordinary decoding. It
runs on the plain Hugging Face model that shares the bridge's weights (``models/plain.py``), unless
hooks must fire at every token.

What holds for a completion: it is a function of the model, its prompt, the steering, the sampling
options, and its key (seed, prompt index, sample index). Batch size and neighbours enter it only as
rounding errors of the logits, which decide between tokens that are within such an error of a tie.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, overload

from actadd_lens import display
from actadd_lens.display import bar
from actadd_lens.errors import PromptError, require_count
from actadd_lens.frames import DataFrame
from actadd_lens.generation.decoding import Request, complete, written
from actadd_lens.generation.sampling import Sampling
from actadd_lens.models import hook_points
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.tokens import Prompts, as_prompts
from actadd_lens.steering.checks import as_interventions, check_fit
from actadd_lens.steering.interventions import Intervention, Steering
from actadd_lens.steering.numerics import not_finite
from actadd_lens.vectors.provenance import described, source, source_of

_SHOWN = 8
"""Completions in a repr."""
_DISPLAYED = 30
"""Completions in a notebook."""


@dataclass(frozen=True)
class Completion:
    """What a model wrote after one prompt."""

    prompt: str
    """What was continued: a text as given, that of token ids, or a chat's last user message."""
    text: str
    """The raw text of the completion alone, nothing stripped but a token that ended it, or the text
    from a stop string on."""
    tokens: tuple[int, ...] = field(repr=False)
    """Generated token ids; the last one is that which ended the completion, if one did."""
    logprobs: tuple[float, ...] = field(repr=False)
    """Log-probability (nats) of each token under the distribution of the model, steered if it was:
    at temperature 1, before penalty, top-k and top-p, whatever the token was drawn with."""
    prompt_index: int
    """Index of the prompt among those given."""
    sample_index: int
    """Index of the completion among those of its prompt."""


@dataclass(frozen=True, repr=False)
class Completions(Sequence[Completion]):
    """Completions of some prompts, by prompt and sample."""

    items: tuple[Completion, ...]
    """The completions, all samples of a prompt together."""
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Model, versions, steering and sampling options, enough to run again: plain JSON."""

    @overload
    def __getitem__(self, index: int) -> Completion: ...
    @overload
    def __getitem__(self, index: slice) -> "Completions": ...
    def __getitem__(self, index: int | slice) -> "Completion | Completions":
        if isinstance(index, slice):
            return Completions(self.items[index], self.provenance)
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        n_prompts = len({item.prompt_index for item in self.items})
        lines = [f"Completions(n={len(self)}, prompts={n_prompts})"]
        lines += [
            f"  [{i.prompt_index}.{i.sample_index}] {i.prompt!r} -> {i.text!r}"
            for i in self.items[:_SHOWN]
        ]
        if len(self) > _SHOWN:
            lines.append(f"  ... and {len(self) - _SHOWN} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        steering = self.provenance.get("steering", [])
        told = "; ".join(described(**vector) for vector in steering) or "not steered"
        rows = [(item.prompt, item.sample_index, item.text) for item in self.items[:_DISPLAYED]]
        left = len(self) - len(rows)
        return display.block(
            f"{len(self)} completions",
            display.muted(told),
            display.table(["prompt", "sample", "completion"], rows),
            display.muted(f"... and {left} more" if left else ""),
        )

    @property
    def frame(self) -> DataFrame:
        """One row a completion; the columns are the fields of ``Completion``."""
        import pandas as pd

        columns = list(Completion.__dataclass_fields__)
        return pd.DataFrame([[getattr(i, c) for c in columns] for i in self.items], columns=columns)


def generate(
    model: Bridge,
    prompts: Prompts,
    steering: Steering = None,
    *,
    max_new_tokens: int = 40,
    samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int | None = None,
    frequency_penalty: float = 0.0,
    seed: int = 0,
    stop_at_eos: bool = True,
    stop: str | Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Completions:
    """Continue prompts, steered or not.

    The steered and the clean run of one seed share their random numbers, completion by completion,
    so that differences between them are paired. The global random state is neither read nor
    written. The model is left as it was, also after an exception or an interrupt.

    Args:
        model: Any TransformerBridge with a tokenizer.
        prompts: What to continue: a text, token ids, a chat, or a list of these.
        steering: An intervention such as a vector, several of them, or None.
        max_new_tokens: Tokens generated at most.
        samples: Completions of each prompt.
        temperature: The logits are divided by it; 0 always takes the most likely token.
        top_p: Nucleus sampling: the smallest set of most likely tokens with this total
            probability.
        top_k: Only the k most likely tokens; with ``top_p``, it is applied first.
        frequency_penalty: Subtracted from a token's logit for each time that the completion
            already has it, also at temperature 0. This is OpenAI's definition; the prompt does
            not count.
        seed: With the index of prompt and sample, the key of a completion's random stream.
        stop_at_eos: Whether a completion ends at a token that the model's generation config, its
            config or the tokenizer names as end of sequence.
        stop: A string, or several: a completion ends where its text has one, which is cut off
            along with what follows it.
        batch_size: Completions decoded at once; by default as many as fit into 2 GiB, at most 128.
            It changes speed and memory, not results.
        progress: Whether to show a progress bar; by default when it takes more than a moment.

    Returns:
        ``samples`` completions of each prompt, in the order of the prompts.

    Raises:
        PromptError: No prompt, an empty one, or one too long for the context with its completion.
        SamplingError: An option out of its range.
        VectorError, LayerError: A vector that does not fit the model.
        PositionError: A vector that does not fit on a prompt.
        NumericsError: Logits that are not finite, such as in float16 beyond its range.

    >>> model = load_model("testbed")
    >>> vector = SteeringVector.from_pair(model, ("Love", "Hate"), layer=1)
    >>> completions = generate(model, ["I hate you"], 5 * vector, samples=2, max_new_tokens=4)
    >>> [(c.prompt, c.sample_index, len(c.tokens) <= 4) for c in completions]
    [('I hate you', 0, True), ('I hate you', 1, True)]
    """
    sampling = Sampling(
        max_new_tokens=max_new_tokens,
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        frequency_penalty=frequency_penalty,
        seed=seed,
        stop_at_eos=stop_at_eos,
        stop=stop,
    )
    if batch_size is not None:
        require_count("batch_size", batch_size)
    ids = as_prompts(model, prompts)
    texts = [prompt.label for prompt in ids]
    check_room(model, ids, max_new_tokens)
    given = as_interventions(model, steering)
    check_fit(ids, given)
    requests = [Request(tokens, given, index) for index, tokens in enumerate(ids)]
    with bar(len(ids) * samples * max_new_tokens, "token", "generating", progress) as advance:
        items = []
        with closing(completions(model, requests, texts, sampling, batch_size, advance)) as made:
            for batch in made:
                items += [completion for _, completion in batch]
                for item in items[-len(batch) :]:
                    _check_finite(model, ids[item.prompt_index], item, given)
    items.sort(key=lambda item: (item.prompt_index, item.sample_index))
    origin = {
        **source(model),
        "steering": [source_of(item) for item in given],
        "sampling": asdict(sampling),
    }
    return Completions(tuple(items), origin)


def completions(
    model: Bridge,
    requests: Sequence[Request],
    texts: Sequence[str],
    sampling: Sampling,
    batch_size: int | None = None,
    advance: Callable[[int], object] = lambda _: None,
) -> Generator[list[tuple[int, Completion]], None, None]:
    """Complete checked requests, a batch at a time: each request's index with its completions.

    Args:
        model: Put in eval mode while a batch is made.
        requests: See ``decoding.complete``.
        texts: The prompt of each request, as its completions will show it.
        sampling: How tokens are drawn.
        batch_size: As in ``generate``.
        advance: Called with the number of tokens that each step has settled.
    """
    with hook_points.eval_mode(model):
        for rows in complete(model, requests, sampling, batch_size, advance):
            yield [
                (
                    row.request,
                    Completion(
                        prompt=texts[row.request],
                        text=written(model, requests[row.request].tokens, row.tokens, sampling),
                        tokens=row.tokens,
                        logprobs=row.logprobs,
                        prompt_index=requests[row.request].prompt_index,
                        sample_index=row.sample_index,
                    ),
                )
                for row in rows
            ]


def _check_finite(
    model: Bridge, prompt: Sequence[int], item: Completion, given: Sequence[Intervention]
) -> None:
    """Raise ``NumericsError`` if a token was drawn from logits that are not finite."""
    n = next((i for i, x in enumerate(item.logprobs) if not math.isfinite(x)), None)
    if n is not None:
        where = f"after {n} tokens of a completion of prompt {item.prompt_index}"
        raise not_finite(model, prompt, item.tokens[:n], tuple(given), where)


def check_room(model: Bridge, prompts: Sequence[Sequence[int]], n_new: int) -> None:
    """Raise ``PromptError`` if a prompt and ``n_new`` tokens are more than the model reads."""
    own = BridgeModel(model)
    for index, ids in enumerate(prompts):
        if len(ids) + n_new > own.n_ctx:
            raise PromptError(
                f"prompt {index} has {len(ids)} tokens (BOS included), with {n_new} new ones that "
                f"is {len(ids) + n_new}: {own.name} reads at most {own.n_ctx}; shorten the "
                "prompt or lower max_new_tokens"
            )
