"""What llama.cpp calls a model's numbers and tensors, and which models it cannot run as they are.

llama.cpp pairs neighboring channels in Llama's rotation where Hugging Face pairs channel ``i`` with ``i +
D/2``; so the rows of Llama's query and key matrices change places. For Qwen it rotates as Hugging Face does.

Shapes: H heads, D head width, R rows of a matrix (H times D).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from picollm.errors import InputError
from picollm.model.config import ModelConfig
from picollm.model.llama import Model

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_PARTS = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def check_runnable(config: ModelConfig) -> None:
    """Raise InputError where llama.cpp has no place for something that ``config`` needs."""
    kind, rope = config.model_type, config.rope
    q_width = config.num_attention_heads * config.head_dim
    if kind == "qwen3" and config.output_bias:
        reason = "attention biases in a qwen3 model"
    elif kind == "qwen2" and q_width != config.hidden_size:
        reason = f"a qwen2 model whose heads are {q_width} wide and its stream {config.hidden_size}"
    elif rope.type == "llama3" and ARCHITECTURES[kind] != "llama":
        reason = f"RoPE scaling 'llama3' in a {kind} model"
    elif rope.type == "yarn" and not rope.parameters.get("truncate", True):
        reason = "YaRN without truncation"
    elif rope.type == "yarn" and _betas(config) != (32, 1):
        # Its loader reads the keys of both numbers for other architectures only.
        reason = "YaRN with beta_fast {:g} and beta_slow {:g} (it has 32 and 1)".format(*_betas(config))
    else:
        return
    raise InputError(f"llama.cpp cannot run {reason}; a GGUF file would give other logits. Use transformers.")


def context_length(config: ModelConfig) -> tuple[int, str | None]:
    """Return the longest text that llama.cpp computes exactly, and why that is shorter than the model's."""
    longest = config.max_position_embeddings
    if config.windowed_layers and config.sliding_window and config.sliding_window < longest:
        length = config.sliding_window
        return length, f"llama.cpp has no sliding window here: the context is the window, {length} tokens"
    if config.rope.type == "dynamic":
        return longest, f"llama.cpp does not stretch RoPE dynamically: exact up to {longest} tokens"
    return longest, None


def settings(config: ModelConfig) -> dict[str, int | float | str]:
    """Return the numbers of a model under llama.cpp's keys, which follow the architecture's name."""
    found: dict[str, int | float | str] = {
        "block_count": config.num_hidden_layers,
        "context_length": context_length(config)[0],
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope.theta,
        "vocab_size": config.vocab_size,
    }
    return found | _rope_scaling(config)


def _rope_scaling(config: ModelConfig) -> dict[str, int | float | str]:
    rope = config.rope
    if rope.type == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope.parameters["factor"])}
    if rope.type != "yarn":
        return {}
    factor = float(rope.parameters["factor"])
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": int(rope.parameters["original_max_position_embeddings"]),
        # llama.cpp multiplies YaRN's own temperature by this.
        "rope.scaling.attn_factor": rope.magnitude / (1.0 + 0.1 * math.log(factor)),
    }


def _betas(config: ModelConfig) -> tuple[float, float]:
    """Return between how many full turns in the trained context YaRN mixes both kinds of frequencies."""
    parameters = config.rope.parameters
    return parameters.get("beta_fast") or 32, parameters.get("beta_slow") or 1


def tensors(model: Model) -> Iterator[tuple[str, Tensor]]:
    """Yield each weight under llama.cpp's name and in its order of rows, on the CPU."""
    config = model.config
    interleaves = ARCHITECTURES[config.model_type] == "llama"
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu()
        if interleaves and ".q_proj." in name:
            tensor = interleaved(tensor, config.num_attention_heads)
        elif interleaves and ".k_proj." in name:
            tensor = interleaved(tensor, config.num_key_value_heads)
        yield tensor_name(name), tensor
    if config.rope.type == "llama3":
        scaled = config.rope.frequencies(config.head_dim, torch.device("cpu"))
        plain = type(config.rope)(config.rope.theta).frequencies(config.head_dim, torch.device("cpu"))
        yield "rope_freqs.weight", plain / scaled


def tensor_name(name: str) -> str:
    """Return llama.cpp's name of a weight.

    >>> tensor_name("model.layers.3.self_attn.q_proj.bias")
    'blk.3.attn_q.bias'
    """
    *_, part, suffix = name.split(".")
    layer = re.match(r"model\.layers\.(\d+)\.", name)
    return f"blk.{layer[1]}.{_PARTS[part]}.{suffix}" if layer else f"{_PARTS[part]}.{suffix}"


def interleaved(tensor: Tensor, heads: int) -> Tensor:
    """Return ``[R, E]`` or ``[R]`` with the rows of each head in the order ``0, D/2, 1, D/2+1, ...``."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
