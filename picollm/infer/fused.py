"""The model's forward pass in few, large operations: what writing one token at a time needs.

At one token per step a layer's arithmetic is tiny, and time goes to reading weights and to starting
operations. So projections that read the same input become one matrix, norms and rotations take queries and
keys together, and each product is done the way that reads weights fastest for its number of rows. The model's
own parameters become views of the fused matrices, so that nothing is held twice but the small models' packed
copies. Those are taken once: a model that is trained further needs a new engine.

Shapes: T tokens, S selected tokens, N outputs, E width, H heads, K kv heads, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picollm.model import native
from picollm.model.cache import CacheView
from picollm.model.kernels import rotate
from picollm.model.llama import Block, Model

# A packed copy doubles a model's memory, so only small ones get it.
MAX_PACKED_PARAMETERS = 200_000_000
# From how many rows on oneDNN's product with its own weight layout is the faster one; below, a kernel of ours
# reads the weights as they are. With AVX-512 it keeps sixteen sums in registers, otherwise four.
_MIN_PACKED_ROWS = 17 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 3
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

    def _unpacked(self, x_TE: Tensor, added_TN: Tensor | None = None) -> Tensor:
        if len(x_TE) < _MIN_PACKED_ROWS and native.takes(x_TE, self.weight):
            outputs = len(self.weight)
            out_TN = x_TE.new_empty(len(x_TE), outputs)
            sizes = (*x_TE.shape, outputs)
            native.call("product", x_TE.dtype, x_TE, self.weight, self.bias, added_TN, *sizes, out_TN)
            return out_TN
        out_TN = F.linear(x_TE, self.weight, self.bias)
        return out_TN if added_TN is None else added_TN + out_TN


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
        return self._unpacked(x_TE, added_TN)


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
            both = self._unpacked(x_TE)
            gate_TN, up_TN = both.chunk(2, -1)
            if not native.takes(both):
                return F.silu(gate_TN).mul_(up_TN)
            out_TN, (rows, width) = both.new_empty(gate_TN.shape), gate_TN.shape
            native.call("gate", both.dtype, gate_TN, up_TN, rows, width, 2 * width, out_TN)
            return out_TN
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


class FusedLayer:
    """One block's weights, joined."""

    def __init__(self, block: Block, pack: bool) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.qkv = Projection.of(attention.q_proj, attention.k_proj, attention.v_proj, pack=pack)
        self.out = Projection.of(attention.o_proj, pack=pack)
        self.gate_up = GatedProjection(mlp.gate_proj, mlp.up_proj, pack)
        self.down = Projection.of(mlp.down_proj, pack=pack)
        self.input_norm, self.mlp_norm = block.input_layernorm, block.post_attention_layernorm
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        self.scale, self.window = attention.scale, attention.window

    def tensors(self) -> list[Tensor | None]:
        """Return the layer's weights in the order in which ``native_kernels.h`` lists them."""
        norms = (None if norm is None else norm.weight for norm in (self.q_norm, self.k_norm))
        return [
            self.input_norm.weight, self.qkv.weight, self.qkv.bias, *norms, self.out.weight, self.out.bias,
            self.mlp_norm.weight, self.gate_up.weight, self.gate_up.bias, self.down.weight, self.down.bias,
        ]  # fmt: skip


class FusedModel:
    """A ``Model`` for inference: the same logits from the same weights."""

    def __init__(self, model: Model) -> None:
        weight = model.lm_head_weight.detach()
        small = model.config.num_parameters <= MAX_PACKED_PARAMETERS
        pack = _has_onednn and small and weight.device.type == "cpu" and weight.dtype == torch.float32
        self.config = model.config
        self.embedding = model.model.embed_tokens.weight.detach()
        self.layers = [FusedLayer(cast(Block, block), pack) for block in model.model.layers]
        self.norm = model.model.norm
        self.head = Projection([weight], [None], pack)
        # Detached, so that what the addresses say stays there when a parameter gets other numbers.
        self._tensors = [x if x is None else x.detach() for layer in self.layers for x in layer.tensors()]
        self._norm = self.norm.weight.detach()
        every = (self.embedding, self._norm, weight, *(x for x in self._tensors if x is not None))
        self._is_native = native.takes(*every)
        self._weights = native.addresses(self._tensors)
        self._angles = (torch.empty(0), torch.empty(0))
        self._windows = torch.tensor([layer.window or 0 for layer in self.layers])

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the weights' dtype."""
        return self.embedding.dtype

    @torch.inference_mode()
    def __call__(self, ids: Tensor, positions: Tensor, select: Tensor | None, cache: CacheView) -> Tensor:
        """Return float32 logits of the selected tokens (all without ``select``), ``[S, V]``."""
        if self._decodes(cache, len(ids)):
            logits = self._decode(ids, cache)
            return logits if select is None else logits[select]
        cos_sin = self._cos_sin(positions, cache.cache.capacity)
        x = F.embedding(ids, self.embedding)
        for index, layer in enumerate(self.layers):
            attended = self._attend(index, layer, layer.input_norm(x), cos_sin, cache)
            if select is not None and index == len(self.layers) - 1:
                x, attended = x[select], attended[select]
            x = layer.out(attended, x)
            x = layer.down(layer.gate_up(layer.mlp_norm(x)), x)
        return self.head(self.norm(x)).float()

    def _decodes(self, cache: CacheView, num_rows: int) -> bool:
        """Return whether the pass is a step of few texts, for which there is one kernel."""
        is_step = not cache.prefill and num_rows < _MIN_PACKED_ROWS
        return is_step and self._is_native and self.config.rope.type != "dynamic"

    def _decode(self, ids_R: Tensor, cache: CacheView) -> Tensor:
        """Return the logits after the next token of each text, ``[R, V]``: all layers in one call."""
        config, capacity, rows = self.config, cache.cache.capacity, len(ids_R)
        heads, kv_heads, head = config.num_attention_heads, config.num_key_value_heads, self.head.weight
        sizes = rows, config.hidden_size, config.intermediate_size, heads, kv_heads, config.head_dim, capacity
        logits_RV = self.embedding.new_empty(rows, len(head))
        native.call(
            "decode", self.dtype, ids_R, self.embedding, self._weights, cache.cache.addresses, self._windows,
            len(self.layers), *self._angles_until(capacity), cache.slot_T, cache.place_T, config.rms_norm_eps,
            self.layers[0].scale, *sizes, self._norm, head, len(head), logits_RV,
        )  # fmt: skip
        return logits_RV.float()

    def _cos_sin(self, positions: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of ``positions``, all below ``capacity``."""
        config = self.config
        if config.rope.type == "dynamic":  # depends on the length of the text too
            return config.rope.cos_sin(positions, config.head_dim, config.max_position_embeddings)
        cos, sin = self._angles_until(capacity)
        return cos[positions], sin[positions]

    def _angles_until(self, capacity: int) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of at least the first ``capacity`` places."""
        config = self.config
        if len(self._angles[0]) < capacity:
            places = torch.arange(capacity, device=self.device)
            self._angles = config.rope.cos_sin(places, config.head_dim, config.max_position_embeddings)
        return self._angles

    def _attend(
        self,
        index: int,
        layer: FusedLayer,
        x_TE: Tensor,
        cos_sin: tuple[Tensor, Tensor],
        cache: CacheView,
    ) -> Tensor:
        """Return what each token's heads read, side by side: ``[T, H * D]``."""
        config = self.config
        num_q, num_k, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        qkv, q_norm, k_norm = layer.qkv(x_TE), layer.q_norm, layer.k_norm
        if native.takes(qkv):
            q, k, v = (qkv.new_empty(len(qkv), heads, width) for heads in (num_q, num_k, num_k))
            weights = (None if norm is None else norm.weight for norm in (q_norm, k_norm))
            sizes = len(qkv), num_q, num_k, width
            native.call("heads", qkv.dtype, qkv, *weights, config.rms_norm_eps, *cos_sin, *sizes, q, k, v)
        else:
            q, k, v = torch.split(qkv.view(len(qkv), -1, width), [num_q, num_k, num_k], 1)
            if q_norm is not None and k_norm is not None:
                q, k = q_norm(q), k_norm(k)
            q, k = rotate(q, cos_sin), rotate(k, cos_sin)
        return cache.attend(index, q, k, v, layer.scale).flatten(1)
