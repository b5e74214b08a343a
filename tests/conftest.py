"""Small random models of every architecture, with a tokenizer trained on the spot.

They are saved in the hub's format to a temporary directory and loaded from there, so that the
tests read what a user would: no network, and no path that only exists in memory.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import that would ask the hub
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import architectures
import pytest
import torch
from hypothesis import HealthCheck, settings

from actadd_lens.models.base import Bridge

D_MODEL = 32
N_LAYERS = 3
N_CTX = 64

# Drawn cases repeat the same way each time; a loaded machine may be slow without being wrong.
settings.register_profile(
    "quick",
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("quick")

ARCHITECTURES = (
    "gpt2",
    "gpt-neo",
    "gpt-j",
    "gpt-neox",
    "llama",
    "opt",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma2",
    "bloom",
)
QUICK = ("gpt2", "llama")
"""Learned and rotary positions, with and without biases: the default tier needs no others."""

BEYOND = (
    "gemma3",
    "gemma4",
    "qwen3-next",
    "qwen3.5",
    "lfm2",
    "falcon-h1",
    "jamba",
    "bamba",
    "zamba2",
    "granite-hybrid",
    "mamba",
    "mamba2",
    "recurrent-gemma",
    "openai-gpt",
)
"""Those of ``architectures.py``: other caches than one of keys and values, or none."""

PARALLEL = ("gpt-j", "gpt-neox")
"""Attention and MLP read the same stream: there is none between them."""

OWN_BOS = ("llama", "mistral", "gemma2", "opt", "bloom")
"""Made with BOS, EOS and padding of their own; the others have EOS for all three."""


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the other architectures are slow, wherever they stand."""
    for item in items:
        architecture = getattr(getattr(item, "callspec", None), "params", {}).get("architecture")
        if architecture in (*ARCHITECTURES, *BEYOND) and architecture not in (*QUICK, "mamba"):
            item.add_marker(pytest.mark.slow)


TEXTS = [
    "I love you and you love me",
    "I hate you because you are late",
    "The wedding was on a sunny day in May",
    "Love Hate Anger Calm are words of one token each",
    "She talks about weddings constantly while he does not talk about them at all",
]


def make_tokenizer(own_bos: bool) -> Any:
    """A byte-level BPE tokenizer of some hundred tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"] if own_bos else ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    roles = (
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
        if own_bos
        else {"eos_token": "<|endoftext|>"}
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=N_CTX, **roles)


def make_config(architecture: str, tokenizer: Any) -> Any:
    """A Hugging Face config of three narrow layers."""
    import transformers as hf

    eos = tokenizer.eos_token_id
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": eos if tokenizer.bos_token_id is None else tokenizer.bos_token_id,
        "eos_token_id": eos,
        "pad_token_id": eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    }
    gpt: dict[str, Any] = {
        "n_embd": D_MODEL,
        "n_layer": N_LAYERS,
        "n_head": 4,
        "n_positions": N_CTX,
        "resid_pdrop": 0.1,
    }
    wide: dict[str, Any] = {
        "hidden_size": D_MODEL,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "max_position_embeddings": N_CTX,
    }
    llama = {**wide, "intermediate_size": 48, "num_key_value_heads": 2}
    by_name: dict[str, Callable[[], Any]] = {
        "gpt2": lambda: hf.GPT2Config(**common, **gpt),
        "gpt-neo": lambda: hf.GPTNeoConfig(
            **common,
            hidden_size=D_MODEL,
            num_layers=N_LAYERS,
            num_heads=4,
            max_position_embeddings=N_CTX,
            attention_types=[[["local"], 1], [["global"], N_LAYERS - 1]],
            window_size=4,
        ),
        "gpt-j": lambda: hf.GPTJConfig(**common, **gpt, rotary_dim=4, tie_word_embeddings=False),
        "gpt-neox": lambda: hf.GPTNeoXConfig(**common, **wide, intermediate_size=48),
        "llama": lambda: hf.LlamaConfig(**common, **llama),
        "opt": lambda: hf.OPTConfig(**common, **wide, ffn_dim=48, word_embed_proj_dim=D_MODEL),
        "qwen2": lambda: hf.Qwen2Config(**common, **llama),
        "qwen3": lambda: hf.Qwen3Config(**common, **llama, head_dim=8),
        "mistral": lambda: hf.MistralConfig(**common, **llama, sliding_window=None),
        "gemma2": lambda: hf.Gemma2Config(**common, **llama, head_dim=8, sliding_window=8),
        "bloom": lambda: hf.BloomConfig(
            **common, hidden_size=D_MODEL, n_layer=N_LAYERS, n_head=4, seq_length=N_CTX
        ),
    }
    return by_name[architecture]()


def make_checkpoint(architecture: str, directory: Path) -> None:
    """Save a random model and its tokenizer as the hub would have them."""
    from transformers import AutoModelForCausalLM

    tokenizer = make_tokenizer(own_bos=architecture in OWN_BOS)
    with torch.random.fork_rng():
        torch.manual_seed(ARCHITECTURES.index(architecture))
        model = AutoModelForCausalLM.from_config(make_config(architecture, tokenizer))
        with torch.no_grad():
            for parameter in model.parameters():  # freshly made ones hide errors in biases
                parameter.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Directory of a random model of an architecture, made when first asked for."""
    root = tmp_path_factory.mktemp("checkpoints")

    def directory(architecture: str) -> Path:
        place = root / architecture
        if not place.exists():
            if architecture in BEYOND:
                architectures.save(architecture, make_tokenizer(own_bos=True), place)
            else:
                make_checkpoint(architecture, place)
        return place

    return directory


@pytest.fixture(scope="session")
def bridge(checkpoint: Callable[[str], Path]) -> Callable[[str], Bridge]:
    """The bridge of an architecture, shared by all tests: leave it as it was."""
    from actadd_lens.models.load import load_model

    loaded: dict[str, Bridge] = {}

    def load(architecture: str) -> Bridge:
        if architecture not in loaded:
            loaded[architecture] = load_model(checkpoint(architecture), device="cpu")
        return loaded[architecture]

    return load


@pytest.fixture(scope="session")
def plain(checkpoint: Callable[[str], Path]) -> Callable[[str], Any]:
    """The same weights as a plain Hugging Face model, for the oracle."""
    from transformers import AutoModelForCausalLM

    loaded: dict[str, Any] = {}

    def load(architecture: str) -> Any:
        if architecture not in loaded:
            with torch.random.fork_rng():
                model = AutoModelForCausalLM.from_pretrained(
                    checkpoint(architecture), attn_implementation="eager", dtype=torch.float32
                )
            loaded[architecture] = model.eval()
        return loaded[architecture]

    return load


@pytest.fixture(scope="session")
def model(bridge: Callable[[str], Bridge]) -> Bridge:
    """A GPT-2, for tests that any architecture would do for."""
    return bridge("gpt2")


@pytest.fixture(scope="session")
def neo(bridge: Callable[[str], Bridge]) -> Bridge:
    """A GPT-Neo, which the bundled model is."""
    return bridge("gpt-neo")


@pytest.fixture(autouse=True)
def _left_as_it_was() -> Iterator[None]:
    """No test may draw from the global random state or leave gradients off."""
    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state()), "the global random state was used"
    assert torch.is_grad_enabled(), "gradients were left off"


@pytest.fixture
def untyped(pytestconfig: pytest.Config) -> None:
    """For a test that passes values of a wrong type, which are seen earlier with types checked."""
    if pytestconfig.getoption("--jaxtyping-packages"):
        pytest.skip("types are checked before the package sees the values")


@pytest.fixture(scope="session")
def half(checkpoint: Callable[[str], Path]) -> Callable[[torch.dtype], Bridge]:
    """The GPT-2 in another precision."""
    from actadd_lens.models.load import load_model

    loaded: dict[torch.dtype, Bridge] = {}

    def load(dtype: torch.dtype) -> Bridge:
        if dtype not in loaded:
            loaded[dtype] = load_model(checkpoint("gpt2"), device="cpu", dtype=dtype)
        return loaded[dtype]

    return load
