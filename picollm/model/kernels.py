"""The operations between the matrices of a layer, with their gradients written out.

Autograd would split each into six to ten passes over the stream and keep most results for later. Written out,
fewer passes are made and only what backward needs is kept. On other devices, under autocast and inside
``torch.compile`` the plain formulas run instead; they are also what the tests compare with.

Shapes: T tokens, E width, F inner width, H heads, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CosSin = tuple[Tensor, Tensor]

_FEW_ROWS = 32
_has_onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _written_out(x: Tensor) -> bool:
    return (
        x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not torch.compiler.is_compiling()
    )


class Linear(nn.Linear):
    """A linear layer that multiplies by oneDNN on CPUs: in float32 a fifth faster than MKL on AMD's."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x @ weight.T + bias``."""
        if not _has_onednn or x.dtype != torch.float32 or len(x) < _FEW_ROWS or not _written_out(x):
            return F.linear(x, self.weight, self.bias)
        out: Tensor = _Linear.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return out


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


def gate(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    """Return ``silu(gate) * up``, the inner state of SwiGLU."""
    if not _written_out(gate_TF):
        return F.silu(gate_TF) * up_TF
    out: Tensor = _Gate.apply(gate_TF, up_TF)  # type: ignore[no-untyped-call]
    return out


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


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return ``x`` divided by its root mean square over the last axis, times ``weight``."""
    if not _written_out(x):
        return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)
    out: Tensor = _AddNorm.apply(x, None, weight, eps)  # type: ignore[no-untyped-call]
    return out


def add_rms_norm(x: Tensor, update: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the stream ``x + update``, and the same normalized."""
    if not _written_out(x):
        x = x + update
        return x, rms_norm(x, weight, eps)
    stream, normed = _AddNorm.apply(x, update, weight, eps)  # type: ignore[no-untyped-call]
    return stream, normed


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    """Return 1 / root mean square of the last axis, float32 ``[..., 1]``."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _norm_backward(g: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the normalized rows before the factor ``inverse``, and that of ``weight``.

    With r = 1 / rms: y = w x r, so dL/dx = r (g w - x r^2 mean(g w x)) and dL/dw = sum of g x r.
    """
    products = (g * x).flatten(0, -2)
    g_weight = inverse.flatten().to(g.dtype) @ products
    mean = (products @ weight).view(inverse.shape).float().mul_(inverse.square()).div_(-x.shape[-1])
    return torch.mul(g, weight).addcmul_(x, mean.to(x.dtype)), g_weight


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, update: Tensor | None, weight: Tensor, eps: float) -> Any:
        stream = x if update is None else x + update
        inverse = _inverse_rms(stream, eps)
        ctx.save_for_backward(stream, weight, inverse)
        ctx.added = update is not None
        normed = (stream * inverse.to(stream.dtype)).mul_(weight)
        return normed if update is None else (stream, normed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        stream, weight, inverse = ctx.saved_tensors
        through, g_weight = _norm_backward(grads[-1], stream, weight, inverse)
        inverse = inverse.to(stream.dtype)
        if not ctx.added:
            return through.mul_(inverse), None, g_weight, None
        g_stream = torch.addcmul(grads[0], through, inverse)
        return g_stream, g_stream, g_weight, None


def rotate(x_THD: Tensor, cos_sin: CosSin, norm: Tensor | None = None, eps: float = 0.0) -> Tensor:
    """Return heads turned by their position's angles: channel ``i`` together with channel ``i + D/2``.

    ``cos_sin`` are ``[T, D/2]`` each. With ``norm``, the weight of QK-norm, heads are normalized first.
    """
    if not _written_out(x_THD):
        heads = x_THD if norm is None else rms_norm(x_THD, norm, eps)
        cos, sin = (table[:, None].to(heads.dtype) for table in cos_sin)
        left, right = heads.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
    out: Tensor = _Rotate.apply(x_THD, *cos_sin, norm, eps)  # type: ignore[no-untyped-call]
    return out


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, norm: Tensor | None, eps: float) -> Tensor:
        if norm is None:
            ctx.save_for_backward(x, cos, sin, None, None)
            return _turn(x, cos, sin, cos, sin)
        inverse = _inverse_rms(x, eps)
        ctx.save_for_backward(x, cos, sin, norm, inverse)
        # The weight of the norm is folded into the tables, which are as small as one head.
        left, right = norm.float().chunk(2)
        return _turn(x, cos * left, sin * right, cos * right, sin * left).mul_(inverse.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, cos, sin, norm, inverse = ctx.saved_tensors
        g = _turn(grads[0], cos, -sin, cos, -sin)
        if norm is None:
            return g, None, None, None, None
        g_x, g_norm = _norm_backward(g, x, norm, inverse)
        return g_x.mul_(inverse.to(x.dtype)), None, None, g_norm, None


def _turn(x_THD: Tensor, cos_left: Tensor, sin_left: Tensor, cos_right: Tensor, sin_right: Tensor) -> Tensor:
    """Return ``[left * cos_left - right * sin_left, right * cos_right + left * sin_right]`` per head."""
    tables = (table[:, None].to(x_THD.dtype) for table in (cos_left, sin_left, cos_right, sin_right))
    cos_left, sin_left, cos_right, sin_right = tables
    out = torch.empty_like(x_THD, memory_format=torch.contiguous_format)
    (left, right), (out_left, out_right) = x_THD.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(left, cos_left, out=out_left).addcmul_(right, sin_left, value=-1)
    torch.mul(right, cos_right, out=out_right).addcmul_(left, sin_right)
    return out
