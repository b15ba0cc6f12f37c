"""The model's forward pass in few, large operations: what writing one token at a time needs.

At one token per step a layer's arithmetic is tiny, and time goes to reading weights and to starting
operations. So projections that read the same input become one matrix, norms and rotations take queries and
keys together, and each product is done the way that reads weights fastest for its number of rows. The model's
own parameters become views of the fused matrices, so that nothing is held twice but the small models' packed
copies. Those are taken once: a model that is trained further needs a new engine.

Shapes: T tokens, S selected tokens, N outputs, E width, H heads, K kv heads, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picollm.model.llama import AttentionCache, Block, Model

# A packed copy doubles a model's memory, so only small ones get it.
MAX_PACKED_PARAMETERS = 200_000_000
# oneDNN's own weight layout, for as few or more rows: below, plain products are faster (measured on Zen 4).
_MIN_PACKED_ROWS = 3
_has_onednn = hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


class _Joined:
    """Linear layers of the same input, stacked to one matrix ``[N, E]``."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        self.weight = _joined(weights)
        present = [bias for bias in biases if bias is not None]
        self.bias = _joined(present) if present else None
        self.packed: list[Tensor] = []

    def _takes_packed(self, x_TE: Tensor) -> bool:
        return bool(self.packed) and len(x_TE) >= _MIN_PACKED_ROWS

    def _unpacked(self, x_TE: Tensor) -> Tensor:
        if not self.packed:
            return F.linear(x_TE, self.weight, self.bias)
        # Weights times two columns are read at twice the speed of one row times weights.
        if len(x_TE) == 1:
            out_TN = torch.mm(self.weight, torch.cat([x_TE, x_TE]).t())[:, 0][None]
        else:
            out_TN = torch.mm(self.weight, x_TE.t()).t().contiguous()
        return out_TN if self.bias is None else out_TN + self.bias


class Projection(_Joined):
    """Linear layers of the same input, whose outputs stand side by side."""

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None], pack: bool) -> None:
        super().__init__(weights, biases)
        if pack:
            self.packed = [_packed(self.weight)]

    @classmethod
    def of(cls, *linears: nn.Linear, pack: bool) -> Projection:
        """Return the projection that computes ``linears`` side by side."""
        return cls([x.weight for x in linears], [x.bias for x in linears], pack)

    def __call__(self, x_TE: Tensor, added_TN: Tensor | None = None) -> Tensor:
        """Return the outputs, plus ``added_TN``: ``[T, N]``."""
        if self._takes_packed(x_TE):
            return _multiply(x_TE, self.packed[0], self.bias, "none" if added_TN is None else "add", added_TN)
        out_TN = self._unpacked(x_TE)
        return out_TN if added_TN is None else added_TN + out_TN


class GatedProjection(_Joined):
    """SwiGLU's first half: ``silu(gate) * up``."""

    def __init__(self, gate: nn.Linear, up: nn.Linear, pack: bool) -> None:
        super().__init__([gate.weight, up.weight], [gate.bias, up.bias])
        if pack:
            # Apart, because oneDNN applies the gate while it writes the products.
            self.packed = [_packed(gate.weight), _packed(up.weight)]

    def __call__(self, x_TE: Tensor) -> Tensor:
        """Return the gated outputs, ``[T, N / 2]``."""
        if not self._takes_packed(x_TE):
            gate_TN, up_TN = self._unpacked(x_TE).chunk(2, -1)
            return F.silu(gate_TN).mul_(up_TN)
        gate_bias, up_bias = (None, None) if self.bias is None else self.bias.chunk(2)
        gate_TN = _multiply(x_TE, self.packed[0], gate_bias, "swish")
        return _multiply(x_TE, self.packed[1], up_bias, "mul", gate_TN)


def _packed(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 16)
    return packed


def _multiply(
    x_TE: Tensor, packed: Tensor, bias: Tensor | None, then: str = "none", other: Tensor | None = None
) -> Tensor:
    """Return ``x @ weight.T + bias``, activated or joined with ``other`` as ``then`` says."""
    out: Tensor
    if other is None:
        out = torch.ops.mkldnn._linear_pointwise(x_TE, packed, bias, then, [], "")
    else:
        out = torch.ops.mkldnn._linear_pointwise.binary(x_TE, other, packed, bias, then)
    return out


def _joined(parameters: Sequence[Tensor]) -> Tensor:
    """Return the parameters stacked along their first axis, and make each a view of the stack."""
    first = parameters[0].detach()
    if len(parameters) == 1:
        return first
    ends = accumulate(p.numel() for p in parameters)
    starts = [first.storage_offset() + end - p.numel() for p, end in zip(parameters, ends, strict=True)]
    if all(
        p.is_contiguous()
        and p.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        and p.storage_offset() == start
        for p, start in zip(parameters, starts, strict=True)
    ):  # another engine of the same model has joined them
        return first.as_strided((sum(map(len, parameters)), *first.shape[1:]), first.stride())
    stack = torch.cat([p.detach() for p in parameters])
    for parameter, rows in zip(parameters, torch.split(stack, [len(p) for p in parameters]), strict=True):
        parameter.data = rows
    return stack


class Norm:
    """Root-mean-square normalization: ``x * weight / rms``, with ``rms`` from the vector's length.

    ``weight * sqrt(D) / hypot(|x|, sqrt(D eps))`` is that formula with one pass over ``x``.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        width = weight.shape[-1]
        self.scale = weight.detach().float() * math.sqrt(width)
        self.floor = torch.tensor(math.sqrt(width * eps), device=weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``x`` normalized over its last axis, in its own dtype."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return (x * self.scale).div_(torch.hypot(length, self.floor)).to(x.dtype)


class FusedLayer:
    """One block's weights, joined."""

    def __init__(self, block: Block, pack: bool) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.qkv = Projection.of(attention.q_proj, attention.k_proj, attention.v_proj, pack=pack)
        self.out = Projection.of(attention.o_proj, pack=pack)
        self.gate_up = GatedProjection(mlp.gate_proj, mlp.up_proj, pack)
        self.down = Projection.of(mlp.down_proj, pack=pack)
        self.input_norm = Norm(block.input_layernorm.weight, block.input_layernorm.eps)
        self.mlp_norm = Norm(block.post_attention_layernorm.weight, block.post_attention_layernorm.eps)
        self.head_norm = None
        if attention.q_norm is not None and attention.k_norm is not None:
            num_q = attention.q_proj.out_features // attention.head_dim
            num_k = attention.k_proj.out_features // attention.head_dim
            q, k = attention.q_norm.weight.detach(), attention.k_norm.weight.detach()
            self.head_norm = Norm(torch.stack([q] * num_q + [k] * num_k), attention.q_norm.eps)
        self.scale = attention.scale


class FusedModel:
    """A ``Model`` for inference: the same logits from the same weights."""

    def __init__(self, model: Model) -> None:
        weight = model.lm_head_weight
        small = model.config.num_parameters <= MAX_PACKED_PARAMETERS
        pack = _has_onednn and small and weight.device.type == "cpu" and weight.dtype == torch.float32
        self.config = model.config
        self.embedding = model.model.embed_tokens.weight
        self.layers = [FusedLayer(cast(Block, block), pack) for block in model.model.layers]
        self.norm = Norm(model.model.norm.weight, model.model.norm.eps)
        self.head = Projection([weight], [None], pack)

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the weights' dtype."""
        return self.embedding.dtype

    @torch.inference_mode()
    def __call__(
        self, ids: Tensor, positions: Tensor, select: Tensor | None, cache: AttentionCache
    ) -> Tensor:
        """Return float32 logits of the selected tokens (all without ``select``), ``[S, V]``."""
        config = self.config
        cos, sin = config.rope.cos_sin(positions, config.head_dim, config.max_position_embeddings)
        x = F.embedding(ids, self.embedding)
        cos_sin = (
            torch.cat([cos, cos], -1)[:, None].to(x.dtype),
            torch.cat([-sin, sin], -1)[:, None].to(x.dtype),
        )
        for index, layer in enumerate(self.layers):
            attended = self._attend(index, layer, layer.input_norm(x), cos_sin, cache)
            if select is not None and index == len(self.layers) - 1:
                x, attended = x[select], attended[select]
            x = layer.out(attended, x)
            x = layer.down(layer.gate_up(layer.mlp_norm(x)), x)
        return self.head(self.norm(x)).float()

    def _attend(
        self,
        index: int,
        layer: FusedLayer,
        x_TE: Tensor,
        cos_sin: tuple[Tensor, Tensor],
        cache: AttentionCache,
    ) -> Tensor:
        """Return what each token's heads read, side by side: ``[T, H * D]``."""
        num_q, num_k = self.config.num_attention_heads, self.config.num_key_value_heads
        heads = layer.qkv(x_TE).view(len(x_TE), num_q + 2 * num_k, self.config.head_dim)
        turned = heads[:, : num_q + num_k]
        if layer.head_norm is not None:
            turned = layer.head_norm(turned)
        # Half-split rotation: [l, r] * cos + [r, l] * [-sin, sin].
        swapped = turned.roll(self.config.head_dim // 2, -1)
        turned = torch.addcmul(turned * cos_sin[0], swapped, cos_sin[1])
        out = cache.attend(
            index, turned[:, :num_q], turned[:, num_q:], heads[:, num_q + num_k :], layer.scale
        )
        return out.flatten(1)
