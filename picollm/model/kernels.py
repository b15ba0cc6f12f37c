"""Operations of a layer with their gradients written out, for training on a CPU.

Autograd splits each into several passes over the stream and keeps most results for later. Written out, fewer
passes are made and only what backward needs is kept: a step of short documents in bf16 takes about a tenth
less. Elsewhere (inference, other devices, autocast, ``torch.compile``) the plain formulas run; the tests
compare with them.

Shapes: T tokens, E input width, O output width, F inner width, H heads, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CosSin = tuple[Tensor, Tensor]

_FEW_ROWS = 32
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)


def _written_out(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def linear(x_TE: Tensor, weight_OE: Tensor, bias_O: Tensor | None) -> Tensor:
    """Return ``x @ weight.T + bias``; in float32 by oneDNN, on AMD's processors a fifth faster than MKL."""
    if not _HAS_ONEDNN or x_TE.dtype != torch.float32 or len(x_TE) < _FEW_ROWS or not _written_out(x_TE):
        return F.linear(x_TE, weight_OE, bias_O)
    out_TO: Tensor = _Linear.apply(x_TE, weight_OE, bias_O)  # type: ignore[no-untyped-call]
    return out_TO


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g, needs = grads[0], ctx.needs_input_grad
        return (
            _multiply(g, weight.T) if needs[0] else None,
            g.T @ x if needs[1] else None,  # MKL is the faster one for this shape
            g.sum(0) if needs[2] else None,
        )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return ``x`` with root mean square 1 over its last axis, times ``weight``; computed in float32."""
    if not _written_out(x):
        return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)
    out: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return out


class _RMSNorm(torch.autograd.Function):
    """With n = x / rms(x), y = w n: dL/dx = (w g - n mean(w g n)) / rms(x), dL/dw is the sum of g n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        full = x.float()
        norm = torch.linalg.vector_norm(full, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return torch.mul(full, inverse).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        g, full_weight = grads[0].float(), weight.float()
        normed = x.float() * inverse
        products = g * normed
        g_weight = products.flatten(0, -2).sum(0).to(weight.dtype)
        mean = torch.matmul(products, full_weight).unsqueeze_(-1).div_(-x.shape[-1])
        g_x = torch.mul(g, full_weight, out=products).addcmul_(normed, mean).mul_(inverse)
        return g_x.to(x.dtype), g_weight, None


def gate(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    """Return ``silu(gate) * up``, the inner state of SwiGLU."""
    if not _written_out(gate_TF):
        return F.silu(gate_TF) * up_TF
    out_TF: Tensor = _Gate.apply(gate_TF, up_TF)  # type: ignore[no-untyped-call]
    return out_TF


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        # silu(gate) is the widest tensor of a layer: cheaper to compute again than to keep.
        return torch.ops.aten.silu_backward(grads[0] * up, gate), F.silu(gate).mul_(grads[0])


def rotate(x_THD: Tensor, cos_sin: CosSin) -> Tensor:
    """Return heads turned by their position's angles: channel ``i`` together with channel ``i + D/2``."""
    cos, sin = (table[:, None].to(x_THD.dtype) for table in cos_sin)
    if not _written_out(x_THD):
        left, right = x_THD.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
    out_THD: Tensor = _Rotate.apply(x_THD, cos, sin)  # type: ignore[no-untyped-call]
    return out_THD


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, -sin), None, None


def _turn(x_THD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    out_THD = torch.empty_like(x_THD, memory_format=torch.contiguous_format)
    (left, right), (out_left, out_right) = x_THD.chunk(2, dim=-1), out_THD.chunk(2, dim=-1)
    torch.mul(left, cos, out=out_left).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=out_right).addcmul_(left, sin)
    return out_THD
