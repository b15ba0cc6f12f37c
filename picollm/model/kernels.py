"""Operations between a layer's matrix products, each in one pass over the stream with native kernels.

Autograd splits a norm, a rotation or a gate into many passes and keeps most results for later; the kernels
of ``native`` make one pass forward and one back, and keep what backward needs. Elsewhere (no compiler at
installation, other devices, autocast, ``torch.compile``) the plain formulas run; the tests compare with them.

Shapes: T tokens, E input width, O output width, F inner width, H heads, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from picollm.model import native

CosSin = tuple[Tensor, Tensor]

_FEW_ROWS = 32
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)


def _natively(*tensors: Tensor) -> bool:
    return native.is_plain(tensors[0]) and native.takes(*tensors)


def linear(x_TE: Tensor, weight_OE: Tensor, bias_O: Tensor | None) -> Tensor:
    """Return ``x @ weight.T + bias``; in float32 by oneDNN, on AMD's processors a fifth faster than MKL."""
    if not _HAS_ONEDNN or x_TE.dtype != torch.float32 or len(x_TE) < _FEW_ROWS or not _is_training(x_TE):
        return F.linear(x_TE, weight_OE, bias_O)
    out_TO: Tensor = _Linear.apply(x_TE, weight_OE, bias_O)  # type: ignore[no-untyped-call]
    return out_TO


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def _is_training(x: Tensor) -> bool:
    return torch.is_grad_enabled() and native.is_plain(x)


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
    return fork_rms_norm(x, weight, eps)[1]


def fork_rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return ``x`` for the residual stream and ``x`` normalized; their gradients meet in one pass."""
    if not _natively(x, weight):
        return x, F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)
    if not torch.is_grad_enabled():
        return x, _normed(x, weight, eps, None)
    out: tuple[Tensor, Tensor] = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return out


def _normed(x: Tensor, weight: Tensor, eps: float, inverse: Tensor | None) -> Tensor:
    out, width = torch.empty_like(x), x.shape[-1]
    native.call("norm", x.dtype, x, weight, eps, x.numel() // width, width, out, inverse)
    return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        inverse = x.new_empty(x.numel() // x.shape[-1], dtype=torch.float32)
        ctx.save_for_backward(x, weight, inverse)
        return x.view_as(x), _normed(x, weight, eps, inverse)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        beside, grad = (None if g is None else g.contiguous() for g in grads)
        if grad is None:
            return beside, None, None
        g_x, rows, width = torch.empty_like(x), len(inverse), x.shape[-1]
        g_weight = torch.zeros(torch.get_num_threads(), width)
        native.call("norm_backward", x.dtype, grad, x, weight, inverse, beside, rows, width, g_x, g_weight)
        return g_x, g_weight.sum(0).to(weight.dtype), None


def gate(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    """Return ``silu(gate) * up``, the inner state of SwiGLU."""
    if not _natively(gate_TF, up_TF):
        return F.silu(gate_TF) * up_TF
    out_TF: Tensor = _Gate.apply(gate_TF, up_TF)  # type: ignore[no-untyped-call]
    return out_TF


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        out, (rows, width) = torch.empty_like(gate), gate.shape
        native.call("gate", gate.dtype, gate, up, rows, width, width, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        g_gate, g_up = torch.empty_like(gate), torch.empty_like(up)
        grad = grads[0].contiguous()
        native.call("gate_backward", gate.dtype, grad, gate, up, gate.numel(), g_gate, g_up)
        return g_gate, g_up


def rotate(x_THD: Tensor, cos_sin: CosSin) -> Tensor:
    """Return heads turned by their position's angles: channel ``i`` together with channel ``i + D/2``."""
    if not _natively(x_THD):
        cos, sin = (table[:, None].to(x_THD.dtype) for table in cos_sin)
        left, right = x_THD.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
    out_THD: Tensor = _Rotate.apply(x_THD, *cos_sin)  # type: ignore[no-untyped-call]
    return out_THD


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turned(grads[0].contiguous(), cos, sin, -1.0), None, None


def _turned(x_THD: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    out_THD, (tokens, heads, width) = torch.empty_like(x_THD), x_THD.shape
    native.call("rotate", x_THD.dtype, x_THD, cos, sin, sign, tokens, heads, width // 2, out_THD)
    return out_THD


def cross_entropy_(logits_SV: Tensor, targets_S: Tensor, scale: float) -> Tensor:
    """Return ``scale`` times the summed loss of the targets, float32; ``logits`` become its gradient."""
    if _natively(logits_SV):
        low, high = torch.aminmax(targets_S) if len(targets_S) else (0, 0)
        if low < 0 or high >= logits_SV.shape[1]:
            raise IndexError(f"targets from {low} to {high}; logits are for {logits_SV.shape[1]} tokens")
        loss_S = logits_SV.new_empty(len(logits_SV), dtype=torch.float32)
        native.call("cross_entropy", logits_SV.dtype, logits_SV, targets_S, *logits_SV.shape, scale, loss_S)
        return loss_S.sum() * scale
    log_p, at_target = torch.log_softmax(logits_SV.float(), -1), targets_S[:, None]
    loss = -log_p.gather(-1, at_target).sum()
    less = log_p.new_full((1, 1), -1.0).expand_as(at_target)
    logits_SV.copy_(log_p.exp_().scatter_add_(-1, at_target, less).mul_(scale))
    return loss * scale


def add_(total: Tensor, x: Tensor) -> None:
    """Add ``x`` of any dtype to the float32 tensor ``total`` of the same shape."""
    if not (_natively(x) and total.is_contiguous() and x.dtype != total.dtype):
        total += x
        return
    native.call("add", x.dtype, total, x, x.numel())
