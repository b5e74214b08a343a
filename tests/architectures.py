"""Tiny random checkpoints of architectures beyond attention with a plain cache.

Recurrent and convolution states, layers that share keys and values, models without a cache or
without a mask. Each stands for all hub models of its class.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

D_MODEL = 32
N_LAYERS = 4
N_CTX = 64


def configs(tokenizer: Any) -> dict[str, Callable[[], Any]]:
    """How the configuration of each architecture is made."""
    import transformers as hf

    ids = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }
    base: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        **ids,
        "hidden_size": D_MODEL,
        "num_hidden_layers": N_LAYERS,
    }
    wide: dict[str, Any] = {
        **base,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": N_CTX,
    }
    heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    linear: dict[str, Any] = {
        **wide,
        **heads,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    }
    sliding: dict[str, Any] = {
        **wide,
        "head_dim": 8,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    }
    mamba2: dict[str, Any] = {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_n_groups": 1,
        "mamba_d_state": 8,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_chunk_size": 8,
    }
    shared = {"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8}
    return {
        "gemma3": lambda: hf.Gemma3TextConfig(**sliding),
        "gemma4": lambda: hf.Gemma4TextConfig(
            **sliding, **shared, global_head_dim=8, vocab_size_per_layer_input=len(tokenizer)
        ),
        "qwen3-next": lambda: hf.Qwen3NextConfig(
            **linear,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        ),
        "qwen3.5": lambda: hf.Qwen3_5TextConfig(**linear),
        "lfm2": lambda: hf.Lfm2Config(
            **wide, layer_types=["conv", "full_attention"] * 2, block_multiple_of=8
        ),
        "falcon-h1": lambda: hf.FalconH1Config(
            **wide, head_dim=8, **{**mamba2, "mamba_n_heads": 4}, mamba_d_ssm=32
        ),
        "jamba": lambda: hf.JambaConfig(
            **wide,
            attn_layer_period=2,
            attn_layer_offset=1,
            num_experts=2,
            num_experts_per_tok=1,
            mamba_d_state=4,
            mamba_dt_rank=4,
            use_mamba_kernels=False,
        ),
        "bamba": lambda: hf.BambaConfig(**wide, **mamba2, attn_layer_indices=[1, 3]),
        "zamba2": lambda: hf.Zamba2Config(
            **{**wide, "num_key_value_heads": 4},
            attention_head_dim=16,
            mamba_d_state=8,
            mamba_headdim=8,
            n_mamba_heads=8,
            mamba_ngroups=1,
            layers_block_type=["mamba", "hybrid"] * 2,
            num_mem_blocks=1,
            use_shared_attention_adapter=False,
            adapter_rank=4,
            chunk_size=8,
        ),
        "granite-hybrid": lambda: hf.GraniteMoeHybridConfig(
            **wide,
            **mamba2,
            layer_types=["mamba", "attention"] * 2,
            num_local_experts=0,
            shared_intermediate_size=48,
            position_embedding_type="rope",
        ),
        "mamba": lambda: hf.MambaConfig(**base, state_size=4, use_mambapy=False),
        "mamba2": lambda: hf.Mamba2Config(
            **base, state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=8
        ),
        "recurrent-gemma": lambda: hf.RecurrentGemmaConfig(
            **{**wide, "num_key_value_heads": 1},
            head_dim=8,
            lru_width=D_MODEL,
            attention_window_size=16,
            block_types=["recurrent", "recurrent", "attention"],
        ),
        "openai-gpt": lambda: hf.OpenAIGPTConfig(
            vocab_size=len(tokenizer),
            **ids,
            n_embd=D_MODEL,
            n_layer=N_LAYERS,
            n_head=4,
            n_positions=N_CTX,
        ),
    }


def save(architecture: str, tokenizer: Any, directory: Path) -> None:
    """Save a random model and its tokenizer in the hub's format."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(configs(tokenizer)[architecture]())
        with torch.no_grad():
            for parameter in model.parameters():  # freshly made ones hide errors in biases
                parameter.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
