"""Loading a model: the bundled one, a local directory, or a name on the hub."""

import inspect
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from actadd_lens.errors import ModelLoadError
from actadd_lens.models.base import Bridge

TESTBED = Path(__file__).parents[1] / "testbed" / "checkpoint"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "*.tiktoken",
)


def load_model(
    name: str | Path = "testbed",
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    prepend_bos: bool | None = None,
    **boot_options: Any,
) -> Bridge:
    """Load a model for steering: raw weights, eval mode, no compatibility mode.

    Args:
        name: "testbed" for the bundled model; a directory in the Hugging Face format, which is
            read offline; else a name on the Hugging Face hub, e.g. "gpt2-xl".
        device: Where to put it; TransformerLens chooses by default.
        dtype: Of the parameters; float32 by default.
        prepend_bos: Whether BOS is put in front of texts: ``model.cfg.default_prepend_bos``. None
            keeps what TransformerLens has for the architecture.
        **boot_options: Passed to ``TransformerBridge.boot_transformers``.

    Returns:
        A TransformerBridge.

    Raises:
        ModelLoadError: What was tried, and what to do.
        TypeError: A boot option that TransformerLens does not have.

    >>> load_model("testbed", device="cpu").training
    False
    """
    from transformer_lens.model_bridge import TransformerBridge

    _check_options(boot_options, TransformerBridge.boot_transformers)
    place = TESTBED if name == "testbed" else Path(name)
    local = name == "testbed" or place.is_dir()
    if local:
        _check_directory(place, boot_options)
    elif str(name).startswith(("/", ".", "~")) or str(name).endswith("/"):
        raise ModelLoadError(
            f"no directory {name}: give one that save_pretrained wrote, or a name on the "
            "Hugging Face hub"
        )
    if dtype is not None:
        boot_options["dtype"] = dtype
    tried = str(place) if local else str(name)
    try:
        with torch.random.fork_rng(devices=[]):  # transformers draws weights it then overwrites
            model = TransformerBridge.boot_transformers(tried, device=device, **boot_options)
    except Exception as error:  # whatever is wrong inside, the caller asked for a model
        raise ModelLoadError(_explain(tried, local, error)) from error
    if name == "testbed":
        model.cfg.model_name = name  # in messages and provenance, not where it is installed
    if prepend_bos is not None:
        model.cfg.default_prepend_bos = bool(prepend_bos)
    model.eval()
    model.original_model.eval()
    return model


def random_model(
    like: Bridge, architecture: str, n_layers: int, width: int, seed: int, name: str
) -> Bridge:
    """A model with random weights and the tokenizer of another, to time passes with.

    Args:
        like: Whose tokenizer, context and device it gets.
        architecture: As ``transformers.AutoConfig.for_model`` names it, e.g. "gpt2".
        n_layers: Number of blocks.
        width: Of the residual stream; four attention heads share it.
        seed: Of the weights.
        name: What the model is called.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = like.tokenizer
    special = ("bos_token_id", "eos_token_id", "pad_token_id")
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        max_position_embeddings=int(like.cfg.n_ctx),
        num_hidden_layers=n_layers,
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=4 * width,
        num_attention_heads=4,
        **{name: getattr(tokenizer, name) for name in special},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # transformers has no types for it.
        plain = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return load_model(name, device=like.cfg.device, hf_model=plain, tokenizer=tokenizer)


def _check_options(options: dict[str, Any], boot: Any) -> None:
    known = [name for name in inspect.signature(boot).parameters if name != "model_name"]
    for option in options:
        if option not in known:
            close = get_close_matches(option, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise TypeError(f"load_model() got an unexpected option {option!r}: {hint}")


def _check_directory(place: Path, options: dict[str, Any]) -> None:
    if not (place / "config.json").is_file() and "hf_model" not in options:
        raise ModelLoadError(
            f"no model in {place}: config.json is missing; give a directory that "
            "save_pretrained wrote, or a name on the Hugging Face hub"
        )
    # Without them TransformerLens silently makes a tokenizer that maps all text to token 0.
    if "tokenizer" not in options and not any(
        found for pattern in TOKENIZER_FILES for found in place.glob(pattern)
    ):
        raise ModelLoadError(
            f"no tokenizer in {place}: save it there with tokenizer.save_pretrained, "
            "or pass tokenizer="
        )


def _explain(tried: str, local: bool, error: Exception) -> str:
    reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    if local:
        return f"cannot load the model in {tried}: {reason}"
    return (
        f"cannot load {tried!r} ({reason}). It is neither 'testbed' nor a directory here, so the "
        "Hugging Face hub was asked: check the spelling, the network (HF_HUB_OFFLINE must not be "
        "set unless the model is cached) and, for gated models, HF_TOKEN; or download it and give "
        "its directory"
    )
