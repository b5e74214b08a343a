"""Known models: their shapes, in what precision to load them, and the paper's settings.

A shape is all that is needed to say how much memory a model takes. It is counted on the model that
transformers builds from a configuration on the meta device, without a weight being read. What the
``config.json`` of each preset on the hub has is written down here.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import nn

from actadd_lens.errors import ModelLoadError
from actadd_lens.models.base import Bridge
from actadd_lens.models.load import TESTBED
from actadd_lens.models.plain import blocks_of

_COPIED = {
    "gpt_neox": "query_key_value",
    "bloom": "query_key_value",
    "falcon": "query_key_value",
    "mpt": "Wqkv",
    "codegen": "qkv_proj",
}
"""By model type, the fused weight that TransformerLens 4.3 splits into copies of q, k and v.

Those of GPT-2, GPT-BigCode and Phi-3 are split into views, which take no storage.
"""


@dataclass(frozen=True)
class Shape:
    """What a model's memory depends on, in numbers, except where bytes are said."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    """Heads of keys and values; fewer than ``n_heads`` where several share one."""
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int
    """Longest sequence, in tokens."""
    tied: bool
    """Whether the unembedding is the token embedding."""
    block_params: int
    """Parameters of all blocks."""
    embedding_params: int
    """Of the token and position embeddings, and of the unembedding where it is not tied."""
    n_params: int
    """All parameters: those of blocks and embeddings, and what lies between, as the last norm."""
    copied_params: int
    """What a bridge holds beside the parameters: split copies of fused weights, and zeros for the
    bias of an unembedding that has none."""
    buffer_bytes: int
    """Tables that are no parameters, such as causal masks; their precision is their own."""


class PaperSetting(NamedTuple):
    """A contrast pair, and where and how strongly it was added."""

    positive: str
    negative: str
    layer: int
    coefficient: float


@dataclass(frozen=True)
class Preset:
    """A model on the Hugging Face hub.

    >>> PRESETS["gpt2-xl"].paper["sentiment"]
    PaperSetting(positive='Love', negative='Hate', layer=6, coefficient=5)
    """

    name: str
    """On the hub."""
    architecture: str
    """Its ``model_type`` in transformers."""
    settings: Mapping[str, Any]
    """What its ``config.json`` has, where that is not the default of the architecture."""
    half: torch.dtype
    """The 16-bit precision to load it in: bfloat16 where it was published so, else float16."""
    gated: bool = False
    """Whether the hub asks for HF_TOKEN, of an account that accepted the licence."""
    paper: Mapping[str, PaperSetting] = field(default_factory=lambda: MappingProxyType({}))
    """By concept, settings of Turner et al. (arXiv 2308.10248); empty where it states none."""

    @cached_property
    def shape(self) -> Shape:
        """What its memory depends on, counted without weights."""
        from transformers import AutoConfig

        return _counted(AutoConfig.for_model(self.architecture, **self.settings))

    def dtype_on(self, device: str | torch.device) -> torch.dtype:
        """The precision to load it in on a device.

        That is float32 on CPUs, where half precision saves memory but is slower by far, and
        ``half`` elsewhere.

        >>> PRESETS["gpt2-xl"].dtype_on("cpu"), PRESETS["gpt2-xl"].dtype_on("cuda")
        (torch.float32, torch.float16)
        """
        return torch.float32 if torch.device(device).type == "cpu" else self.half


def shape_of(target: "Bridge | str | Path") -> Shape:
    """The shape of a model, without reading weights.

    Args:
        target: A bridge; "testbed"; a directory with a config.json, of any architecture that
            transformers knows; or the name of a preset. Names are looked up as by ``load_model``:
            a directory first.

    Raises:
        ModelLoadError: None of these, or a configuration that transformers cannot read.

    >>> shape_of("gpt2").n_params
    124439808
    """
    if not isinstance(target, str | Path):
        return _counted(target.original_model.config)
    place = TESTBED if target == "testbed" else Path(target)
    if not place.is_dir():
        if str(target) in PRESETS:
            return PRESETS[str(target)].shape
        raise ModelLoadError(
            f"the shape of {str(target)!r} is unknown: it is not a directory here and not one of "
            f"the presets {', '.join(PRESETS)}"
        )
    from transformers import AutoConfig

    if not (place / "config.json").is_file():
        raise ModelLoadError(
            f"no model in {place}: config.json is missing; give a directory that save_pretrained "
            "wrote"
        )
    try:
        return _counted(AutoConfig.from_pretrained(place, local_files_only=True))
    except Exception as error:  # foreign files, read by foreign code
        raise ModelLoadError(
            f"cannot read the shape of the model in {place}: {type(error).__name__}: {error}"
        ) from error


def _counted(config: Any) -> Shape:
    """Builds the model without storage, and counts."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    factory: Any = AutoModelForCausalLM
    with torch.device("meta"), no_init_weights():
        module = factory.from_config(config, dtype=torch.float32)
    module.tie_weights()  # which is part of the initialisation that was left out
    text = config.get_text_config()
    n_layers, d_model = int(text.num_hidden_layers), int(text.hidden_size)
    n_heads = int(text.num_attention_heads)
    blocks = blocks_of(module, n_layers)
    head = module.get_output_embeddings()
    embeddings = [part for part in module.modules() if isinstance(part, nn.Embedding)]
    fused = _COPIED.get(config.model_type)
    split = sum(p.numel() for n, p in blocks.named_parameters() if fused and f".{fused}." in n)
    d_vocab = int(head.weight.shape[0])
    return Shape(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=int(getattr(text, "num_key_value_heads", None) or n_heads),
        d_head=int(getattr(text, "head_dim", None) or d_model // n_heads),
        d_mlp=int(_first(text, "intermediate_size", "ffn_dim", "n_inner") or 4 * d_model),
        d_vocab=d_vocab,
        n_ctx=int(_first(text, "max_position_embeddings", "seq_length") or 0),
        tied=head.weight is module.get_input_embeddings().weight,
        block_params=_numbers(blocks),
        embedding_params=_numbers(*embeddings, head),
        n_params=_numbers(module),
        copied_params=split + (d_vocab if head.bias is None else 0),
        buffer_bytes=sum(buffer.numel() * buffer.itemsize for buffer in module.buffers()),
    )


def _first(config: Any, *names: str) -> int | None:
    """The first of some entries of a configuration that is there and not 0."""
    return next((value for name in names if (value := getattr(config, name, None))), None)


def _numbers(*modules: nn.Module) -> int:
    """Distinct parameters of modules."""
    return sum({id(p): p.numel() for part in modules for p in part.parameters()}.values())


def _presets() -> Iterator[Preset]:
    """Those of presets.json."""
    written = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    for name, values in json.loads(written).items():
        half = getattr(torch, values.pop("half"))
        paper = {concept: PaperSetting(*s) for concept, s in values.pop("paper").items()}
        yield Preset(name, half=half, paper=MappingProxyType(paper), **values)


PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _presets()})
"""Models of the paper and of their families, by name on the hub."""
