"""Causal attention inside documents: packed texts never see each other.

``positions`` is all it takes: a document starts where a position is 0.

::

    positions   0 1 2 3 | 0 1 | 0 1 2          the work: three triangles, never a T x T mask
    lengths     4         2     3

Shapes: T tokens, S selected tokens, H heads, K kv heads, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from picollm.errors import InputError
from picollm.model import native
from picollm.model.varlen import Varlen


@dataclass(frozen=True)
class Documents:
    """Where the documents of one flat stream end, and which of its tokens ask.

    ``select[S]`` are the increasing indices of the tokens whose hidden states are wanted, None for all;
    ``selected_ends[N]`` is how many of them come before the end of each of the N documents. ``varlen``
    answers all documents in one call, where that can be done.
    """

    positions: Tensor
    ends: Tensor
    select: Tensor | None = None
    selected_ends: Tensor | None = None
    varlen: Varlen | None = None

    @classmethod
    def of(cls, positions: Tensor, select: Tensor | None) -> Documents:
        """Return the documents of ``positions[T]``; ``select[S]`` are increasing indices of wanted tokens.

        Raises:
            InputError: the stream does not begin with position 0.
        """
        starts = (positions == 0).nonzero().flatten()
        if not len(starts) or starts[0] != 0:
            raise InputError(
                "positions begin inside a document; without a cache the first position must be 0."
            )
        ends = torch.cat([starts[1:], starts.new_tensor([len(positions)])])
        selected_ends = None if select is None else torch.searchsorted(select, ends)
        return cls(positions, ends, select, selected_ends, Varlen.of(ends))

    def attend(self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float, window: int | None) -> Tensor:
        """Return what each query reads from its own document up to itself, ``[T, H, D]``.

        With ``window``, only from the last ``window`` tokens, itself included. When only the selected tokens
        ask (``q`` is ``[S, H, D]``), the result is ``[S, H, D]``.
        """
        select = None if len(q_THD) == len(k_TKD) else self.select
        if self.varlen is not None and self.varlen.takes(q_THD):
            if select is None:
                return self.varlen.attend(q_THD, k_TKD, v_TKD, scale, window)
            # All must ask: those that were not selected ask with zeros.
            asking = q_THD.new_zeros(len(k_TKD), *q_THD.shape[1:]).index_copy(0, select, q_THD)
            return self.varlen.attend(asking, k_TKD, v_TKD, scale, window)[select]
        at, ends = self.positions, self.ends
        if select is not None and self.selected_ends is not None:
            at, ends = self.positions[select], self.selected_ends
        if native.is_plain(q_THD) and native.takes(q_THD, k_TKD, v_TKD):
            out: Tensor = _Native.apply(q_THD, k_TKD, v_TKD, at, ends, self.ends, scale, window or 0)  # type: ignore[no-untyped-call]
            return out
        asked, lengths = (torch.diff(x, prepend=x.new_zeros(1)).tolist() for x in (ends, self.ends))
        cut = ((q_THD, asked), (k_TKD, lengths), (v_TKD, lengths), (at, asked))
        pieces = zip(*(torch.split(x, sizes) for x, sizes in cut), strict=True)
        return torch.cat([_attend(*tensors, scale=scale, window=window) for tensors in pieces])


def _attend(q: Tensor, k: Tensor, v: Tensor, at: Tensor, *, scale: float, window: int | None) -> Tensor:
    """Return what the queries ``[S, H, D]`` at the places ``at[S]`` of one document read."""
    mask = None
    if len(q) != len(k) or (window is not None and window < len(k)):
        key = torch.arange(len(k), device=at.device)
        mask = key <= at[:, None]
        if window is not None:
            mask &= key > at[:, None] - window
    gqa = q.shape[1] != k.shape[1]
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=gqa
    )
    return out[0].transpose(0, 1)


class _Native(torch.autograd.Function):
    """All documents in one call. Backward needs queries, keys, values, outputs and a number per head."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
        at, query_ends, key_ends, scale, window = rest
        out, log_sum = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)
        ctx.plan = at, query_ends, key_ends, len(key_ends), window, scale, q.shape[1], k.shape[1], q.shape[2]
        native.call("attention", q.dtype, q, k, v, *ctx.plan, *[None] * 4, 0, out, log_sum)
        ctx.save_for_backward(out, log_sum, q, k, v)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors
        new = [torch.empty_like(x) for x in kept[2:]]
        native.call("attention_backward", grads[0].dtype, grads[0].contiguous(), *kept, *ctx.plan, *new)
        return (*new, None, None, None, None, None)
