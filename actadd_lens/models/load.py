"""Loading a model: the bundled one, a local directory, or a name on the hub."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from actadd_lens.errors import ModelLoadError, unexpected_option
from actadd_lens.models.base import Bridge
from actadd_lens.models.bridge import BridgeModel
from actadd_lens.models.hook_points import is_bridge

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
    source: str | Path | nn.Module = "testbed",
    *,
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    prepend_bos: bool | None = None,
    **boot_options: Any,
) -> Bridge:
    """Load a model for steering: raw weights, eval mode, no compatibility mode.

    Args:
        source: "testbed" for the bundled model; a directory in the Hugging Face format, which is
            read offline; a name on the Hugging Face hub, e.g. "gpt2-xl"; or a model that is loaded
            already. A Hugging Face model is wrapped in place, so use it through the bridge from
            then on. A TransformerBridge comes back as it is.
        tokenizer: A tokenizer of transformers, for a source that has none.
        device: Where to put it. By default TransformerLens chooses, and a model that is loaded
            already stays where it is.
        dtype: Of the parameters; float32 by default, and that of a model that is loaded already.
        prepend_bos: Whether prompts begin with BOS (``cfg.default_prepend_bos``); by default as
            TransformerLens has it for this model.
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

    options = {"tokenizer": tokenizer, "device": device, "dtype": dtype, **boot_options}
    options = {name: value for name, value in options.items() if value is not None}
    known = signature(TransformerBridge.boot_transformers).parameters.keys() - {"model_name"}
    for option in sorted(boot_options.keys() - known):
        raise unexpected_option(option, known, "option")
    model: Any = source
    if is_bridge(source):
        if options:
            raise ModelLoadError(
                f"a TransformerBridge is loaded already, {', '.join(options)} cannot be applied: "
                "leave it out, or load the model anew from its name"
            )
    else:
        model = _booted(source, TransformerBridge.boot_transformers, options)
    if prepend_bos is not None:
        model.cfg.default_prepend_bos = prepend_bos
    bridge: Bridge = model
    return bridge


def _booted(source: Any, boot: Any, options: dict[str, Any]) -> Bridge:
    tried, local = str(source), False
    if isinstance(source, nn.Module):
        tried = _check_loaded(source, options)
        if "device" in options or "dtype" in options:
            source.to(device=options.get("device"), dtype=options.get("dtype"))
        first = next(p for p in source.parameters() if p.is_floating_point())
        options |= {"hf_model": source, "device": first.device, "dtype": first.dtype}
    elif not isinstance(source, (str, Path)):
        raise ModelLoadError(
            f"cannot load a {type(source).__name__}: give a name, a directory, or a loaded model"
        )
    else:
        place = TESTBED if source == "testbed" else Path(source)
        local = source == "testbed" or place.is_dir()
        if local:
            tried = str(place)
            _check_directory(place, options)
        elif tried.startswith(("/", ".", "~")) or tried.endswith("/"):
            raise ModelLoadError(
                f"no directory {source}: give one that save_pretrained wrote, or a name on the "
                "Hugging Face hub"
            )
    try:
        # transformers draws weights that it then overwrites.
        with torch.random.fork_rng(devices=[]), TemporaryDirectory() as directory:
            if "tokenizer" in options:
                options["tokenizer"] = _reloaded(options["tokenizer"], directory)
            model: Bridge = boot(tried, **options)
    except Exception as error:  # whatever is wrong inside, the caller asked for a model
        raise ModelLoadError(_explain(tried, local, error)) from error
    if source == "testbed":
        model.cfg.model_name = source  # in messages and provenance, not where it is installed
    model.cfg.dtype = BridgeModel(model).dtype
    model.eval()
    model.original_model.eval()
    return model


def _check_loaded(model: nn.Module, options: Mapping[str, Any]) -> str:
    """What a loaded Hugging Face model is called."""
    kind = type(model).__name__
    if not hasattr(model, "config"):
        raise ModelLoadError(f"cannot load a {kind}: it is not a model of transformers")
    if any(type(part).__module__.startswith("transformer_lens") for part in model.modules()):
        raise ModelLoadError(
            f"this {kind} is part of a TransformerBridge already, and the hooks of both would fire:"
            " use that bridge, or load the model anew"
        )
    if "tokenizer" not in options:
        raise ModelLoadError(
            f"a loaded {kind} has no tokenizer: al.load_model(model, tokenizer=tokenizer), e.g. "
            "with transformers.AutoTokenizer.from_pretrained(name)"
        )
    return str(getattr(model.config, "_name_or_path", "") or kind)


def _reloaded(tokenizer: Any, directory: str) -> Any:
    """The same tokenizer, read from a directory.

    TransformerLens 4.3 reads a tokenizer that has BOS anew by its ``init_kwargs["name_or_path"]``
    (``utilities/tokenize_utils.py``, ``get_tokenizer_with_bos``). One that was built in memory has
    none (``KeyError``), and of any other the caller's changes would be lost.
    """
    if tokenizer.bos_token is None:
        return tokenizer
    tokenizer.save_pretrained(directory)
    return type(tokenizer).from_pretrained(directory)


def same_model(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two provenances (see ``vectors.provenance.source``) can be of one model.

    One directory can be spelt in several ways, be moved, or hold what is on the hub. So names are
    of one model if their last parts are equal, unless both are directories here and differ. What
    one of them does not say is not compared.

    >>> same_model({"model": "openai-community/gpt2"}, {"model": "/models/gpt2/"})
    True
    """
    sizes = [x.get("n_layers") for x in (a, b)]
    names = [x.get("model") for x in (a, b)]
    if None not in sizes and sizes[0] != sizes[1]:
        return False
    if names[0] == names[1] or not all(isinstance(name, str) for name in names):
        return True
    places = [TESTBED if name == "testbed" else Path(str(name)) for name in names]
    if all(place.is_dir() for place in places):
        return places[0].samefile(places[1])
    return places[0].resolve().name == places[1].resolve().name


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


def _check_directory(place: Path, options: Mapping[str, Any]) -> None:
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
