"""The transformer: one flat stream of tokens in, hidden states or logits out.

Llama, Mistral, Qwen2 and Qwen3 differ in four switches (biases, QK-norm, sliding windows, RoPE scaling), so
one ``Model`` runs them all. Parameter names are Hugging Face's; a state dict needs no translation.

Shapes: T tokens, S selected tokens, E width, H heads, K kv heads, D head width, F inner width, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picollm.model.attention import Documents
from picollm.model.config import ModelConfig
from picollm.model.kernels import fork_rms_norm, gate, linear, rms_norm, rotate


class AttentionCache(Protocol):
    """What the model asks of a cache of keys and values: store the new ones, and attend over all."""

    def attend(self, layer_index: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float) -> Tensor:
        """Return attention of new queries over cached and new keys of their own request, ``[T, H, D]``."""


class Linear(nn.Linear):
    """A matrix that is born without numbers: ``Model.initialize`` or a checkpoint brings them.

    torch's own start imports its compiler, which takes seconds of every command.
    """

    def reset_parameters(self) -> None:
        """Do nothing."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ weight.T + bias``."""
        return linear(x, self.weight, self.bias)


class Embedding(nn.Embedding):
    """A table that is born without numbers, for the same reason."""

    def reset_parameters(self) -> None:
        """Do nothing."""


class RMSNorm(nn.Module):
    """Normalization by the root mean square, in float32 whatever the dtype of the stream."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with root mean square 1 over its last axis, times the weight."""
        return rms_norm(x, self.weight, self.eps)

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``x`` for the stream that goes on, and ``x`` normalized."""
        return fork_rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    """Multi-head attention with rotary positions, grouped keys and values, and optional QK-norm."""

    def __init__(self, config: ModelConfig, layer_index: int) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.layer_index = layer_index
        self.window = config.window(layer_index)
        self.scale = config.head_dim**-0.5
        width, q, kv = (
            config.hidden_size,
            config.num_attention_heads * config.head_dim,
            config.num_key_value_heads * config.head_dim,
        )
        self.q_proj = Linear(width, q, bias=config.attention_bias)
        self.k_proj = Linear(width, kv, bias=config.attention_bias)
        self.v_proj = Linear(width, kv, bias=config.attention_bias)
        self.o_proj = Linear(q, width, bias=config.output_bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else None

    def forward(
        self,
        x_TE: Tensor,
        cos_sin: tuple[Tensor, Tensor],
        documents: Documents | None,
        cache: AttentionCache | None,
        select: Tensor | None,
    ) -> Tensor:
        """Return the attention output of every token, or of the selected ones only."""
        asking = x_TE if select is None else x_TE[select]
        q = self.q_proj(asking).unflatten(-1, (-1, self.head_dim))
        k = self.k_proj(x_TE).unflatten(-1, (-1, self.head_dim))
        v = self.v_proj(x_TE).unflatten(-1, (-1, self.head_dim))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q = rotate(q, cos_sin if select is None else (cos_sin[0][select], cos_sin[1][select]))
        k = rotate(k, cos_sin)
        if cache is not None:
            out = cache.attend(self.layer_index, q, k, v, self.scale)
        else:
            assert documents is not None
            out = documents.attend(q, k, v, self.scale, self.window)
        projected: Tensor = self.o_proj(out.flatten(1))
        return projected


class MLP(nn.Module):
    """SwiGLU: a gated feed-forward layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(width, inner, bias=bias)
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's contribution to the stream, the shape of ``x``."""
        out: Tensor = self.down_proj(gate(self.gate_proj(x), self.up_proj(x)))
        return out


class Block(nn.Module):
    """One layer: attention, then the feed-forward layer, each added to the stream."""

    def __init__(self, config: ModelConfig, layer_index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer_index)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self,
        x_TE: Tensor,
        cos_sin: tuple[Tensor, Tensor],
        documents: Documents | None,
        cache: AttentionCache | None,
        select: Tensor | None = None,
    ) -> Tensor:
        """Return the stream after this layer, ``[T, E]``, or ``[S, E]`` when only some tokens are wanted."""
        # A cache needs every query beside its key; otherwise the unwanted ones are never computed.
        early = select if cache is None else None
        x_TE, normed = self.input_layernorm.fork(x_TE)
        attended = self.self_attn(normed, cos_sin, documents, cache, early)
        if select is not None:
            x_TE = x_TE[select]
            attended = attended if early is not None else attended[select]
        x_SE, normed = self.post_attention_layernorm.fork(x_TE + attended)
        out: Tensor = x_SE + self.mlp(normed)
        return out


class Backbone(nn.Module):
    """Everything but the output head, under the name that Hugging Face gives it: ``model``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Model(nn.Module):
    """A decoder-only language model over a flat stream of packed documents.

    ``model(ids, positions)`` gives float32 logits for each token; ``select`` (increasing indices) computes
    them for those tokens only, and the last layer's queries, output projection and MLP too. A cache given as
    ``cache`` replaces attention inside documents: the model hands it queries, keys and values and knows no
    more of it.
    """

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):
            self.model = Backbone(config)
            self.lm_head = (
                None
                if config.tie_word_embeddings
                else Linear(config.hidden_size, config.vocab_size, bias=False)
            )
        if torch.get_default_device().type != "meta":
            self.to_empty(device=torch.get_default_device())
            self.initialize(seed)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Fill all weights for training from scratch, as a function of ``seed`` alone.

        Matrices are normal with variance 1/fan-in, so that every layer keeps the scale of its input; the two
        projections that write to the stream start at zero, so that each block starts as the identity
        and depth does not change the first steps. Embeddings are normal with 0.02: tied to the head, they
        make first logits small and the first loss that of a uniform guess. Norms are 1, biases 0.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "bias")):
                parameter.zero_()
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            else:
                fan_in = parameter.shape[1]
                std = 0.02 if "embed" in name or "lm_head" in name else 1 / math.sqrt(fan_in)
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))

    @property
    def lm_head_weight(self) -> Tensor:
        """Return the output head ``[V, E]``: the embedding itself when the two are tied."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor,
        select: Tensor | None = None,
        cache: AttentionCache | None = None,
    ) -> Tensor:
        """Return the normalized last hidden states, ``[T, E]``, or ``[S, E]`` for the selected tokens."""
        documents = Documents.of(positions, select) if cache is None else None
        config = self.config
        cos_sin = config.rope.cos_sin(positions, config.head_dim, config.max_position_embeddings)
        x = self.model.embed_tokens(ids)
        last = config.num_hidden_layers - 1
        for index, layer in enumerate(self.model.layers):
            x = layer(x, cos_sin, documents, cache, select if index == last else None)
        out: Tensor = self.model.norm(x)
        return out

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        select: Tensor | None = None,
        cache: AttentionCache | None = None,
    ) -> Tensor:
        """Return float32 logits, ``[T, V]``, or ``[S, V]`` for the selected tokens."""
        return F.linear(self.hidden(ids, positions, select, cache), self.lm_head_weight).float()
