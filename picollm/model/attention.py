"""Causal attention inside documents: packed texts never see each other.

``positions`` is all it takes: a document starts where a position is 0. The stream is cut into blocks of
queries, each with the keys that its queries can see, so that a processor never computes a T x T square.

::

    positions   0 1 2 3 4 5 6 7 | 0 1 | 0 1 2        a long document is cut; short ones share a block
    block       a a a a b b b b | c c | c c c
    keys of a   0 1 2 3                              b sees a's keys too, causally; inside c
    keys of b   0 1 2 3 4 5 6 7                      a mask keeps the two documents apart

Shapes: T tokens, S selected tokens, Q queries of a block, N its keys, H heads, K kv heads, D head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from picollm.errors import InputError

# Measured on 2 cores: smaller blocks waste less above the diagonal, larger ones make fewer calls.
_BLOCK = 128
# From here on torch's own causal kernel skips enough above the diagonal, and masks would grow large.
_LONG = 1024


class Block(NamedTuple):
    """Queries and the keys they can see, as slices of the stream; ``mask`` is None for one whole document."""

    queries: slice
    keys: slice
    mask: Tensor | None


@dataclass(frozen=True)
class Documents:
    """Where the documents of one flat stream begin, and which of its tokens ask when not all do."""

    positions: Tensor
    lengths: list[int]
    select: Tensor | None = None
    selected: list[int] | None = None
    _plans: dict[Any, list[Block]] = field(default_factory=dict, repr=False)

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
        lengths = (ends - starts).tolist()
        if select is None:
            return cls(positions, lengths)
        upto = torch.searchsorted(select, ends)
        return cls(positions, lengths, select, torch.diff(upto, prepend=upto.new_zeros(1)).tolist())

    @torch.compiler.disable
    def attend(self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float, window: int | None) -> Tensor:
        """Return what each query reads from its own document up to itself, ``[T, H, D]``.

        With ``window``, only from the last ``window`` tokens, itself included. When only the selected tokens
        ask (``q`` is ``[S, H, D]``), the result is ``[S, H, D]``.
        """
        chosen = len(q_THD) != len(k_TKD)
        if q_THD.is_cuda and q_THD.dtype != torch.float32 and not chosen:
            return self._attend_varlen(q_THD, k_TKD, v_TKD, scale, window)
        key = (chosen, window, q_THD.dtype)
        if key not in self._plans:
            self._plans[key] = list(self._blocks(chosen, window, q_THD.dtype))
        if q_THD.device.type != "cpu":
            return attend_plainly(q_THD, k_TKD, v_TKD, scale, self._plans[key])
        out: Tensor = _Attend.apply(q_THD, k_TKD, v_TKD, scale, self._plans[key])  # type: ignore[no-untyped-call]
        return out

    def _attend_varlen(self, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        ends = torch.tensor([0, *self.lengths], dtype=torch.int32, device=q.device).cumsum(
            0, dtype=torch.int32
        )
        longest, left = max(self.lengths), -1 if window is None else window - 1
        out: Tensor = varlen_attn(
            q, k, v, ends, ends, longest, longest,
            scale=scale, window_size=(left, 0), enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
        return out

    def _blocks(self, chosen: bool, window: int | None, dtype: torch.dtype) -> Iterator[Block]:
        """Yield blocks that answer every query once, in order."""
        at = self.select if chosen else None
        if at is None:
            at = torch.arange(len(self.positions), device=self.positions.device)
        first = at - self.positions[at]
        if window is not None:
            first = torch.maximum(first, at - window + 1)
        asked = self.selected if chosen and self.selected is not None else self.lengths
        for begin, end, is_whole in _cut(asked, whole=window is None and not chosen):
            keys = slice(int(first[begin]), int(at[end - 1]) + 1)
            mask = None
            if not is_whole:
                key = torch.arange(keys.start, keys.stop, device=at.device)
                hidden = (key > at[begin:end, None]) | (key < first[begin:end, None])
                mask = torch.zeros(hidden.shape, dtype=dtype, device=at.device).masked_fill_(
                    hidden, -torch.inf
                )
            yield Block(slice(begin, end), keys, mask)


def _cut(lengths: list[int], whole: bool) -> Iterator[tuple[int, int, bool]]:
    """Yield begin and end of each block of queries, and whether it is one long document left whole.

    >>> [cut[:2] for cut in _cut([300, 50, 0, 60, 70], whole=True)]
    [(0, 100), (100, 200), (200, 300), (300, 410), (410, 480)]
    """
    begin = end = 0
    for length in lengths:
        if end - begin + length <= _BLOCK:
            end += length
            continue
        if end > begin:
            yield begin, end, False
        begin, end = end, end + length
        if whole and length > _LONG:
            yield begin, end, True
            begin = end
        elif length > _BLOCK:
            parts = -(-length // _BLOCK)
            edges = [begin + length * part // parts for part in range(parts + 1)]
            yield from ((low, high, False) for low, high in pairwise(edges))
            begin = end
    if end > begin:
        yield begin, end, False


class _Attend(torch.autograd.Function):
    """Attention block by block, with results and gradients written into one tensor each.

    bfloat16 blocks are multiplied out: torch's CPU kernel for them runs backward at half the speed. Their
    scores are rounded to bfloat16 then, as in any implementation without a fused kernel.
    """

    @staticmethod
    def forward(
        ctx: Any, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float, blocks: list[Block]
    ) -> Tensor:
        q, k, v = (_by_head(x, q_THD.shape[1]) for x in (q_THD, k_TKD, v_TKD))
        out_THD = torch.empty_like(q_THD)
        out = out_THD.transpose(0, 1)
        statistics = []
        for block in blocks:
            qb, kb, vb = q[:, block.queries], k[:, block.keys], v[:, block.keys]
            if _multiplied_out(qb, block):
                torch.bmm(_probabilities(qb, kb, block.mask, scale), vb, out=out[:, block.queries])
                continue
            answer, statistic = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                qb[None], kb[None], vb[None], 0.0, block.mask is None, attn_mask=block.mask, scale=scale
            )
            out[:, block.queries] = answer[0]
            statistics.append(statistic)
        ctx.save_for_backward(q, k, v, out_THD, *statistics)
        ctx.scale, ctx.blocks, ctx.num_kv_heads = scale, blocks, k_TKD.shape[1]
        return out_THD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out_THD, *statistics = ctx.saved_tensors
        out, g = out_THD.transpose(0, 1), _by_head(grads[0], q.shape[0])
        gq, gk, gv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for block in ctx.blocks:
            qb, kb, vb = q[:, block.queries], k[:, block.keys], v[:, block.keys]
            gb = g[:, block.queries]
            if _multiplied_out(qb, block):
                p = _probabilities(qb, kb, block.mask, ctx.scale)
                gv[:, block.keys].baddbmm_(p.mT, gb)
                gs = torch._softmax_backward_data(torch.bmm(gb, vb.mT), p, -1, p.dtype)
                torch.bmm(gs, kb, out=gq[:, block.queries]).mul_(ctx.scale)
                gk[:, block.keys].baddbmm_(gs.mT, qb, alpha=ctx.scale)
                continue
            parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                gb[None], qb[None], kb[None], vb[None], out[None, :, block.queries], statistics.pop(0),
                0.0, block.mask is None, attn_mask=block.mask, scale=ctx.scale,
            )  # fmt: skip
            gq[:, block.queries] = parts[0][0]
            gk[:, block.keys] += parts[1][0]
            gv[:, block.keys] += parts[2][0]
        gk, gv = (
            x.unflatten(0, (ctx.num_kv_heads, -1)).sum(1) if len(x) != ctx.num_kv_heads else x
            for x in (gk, gv)
        )
        return *(x.transpose(0, 1) for x in (gq, gk, gv)), None, None


def _multiplied_out(q: Tensor, block: Block) -> bool:
    return q.dtype == torch.bfloat16 and block.mask is not None


def _by_head(x_TKD: Tensor, num_heads: int) -> Tensor:
    """Return ``[H, T, D]``, each kv head once for every query head that reads it."""
    x_KTD = x_TKD.transpose(0, 1)
    if len(x_KTD) != num_heads:
        x_KTD = x_KTD.repeat_interleave(num_heads // len(x_KTD), dim=0)
    return x_KTD.contiguous() if x_KTD.dtype == torch.bfloat16 else x_KTD


def _probabilities(q_HQD: Tensor, k_HND: Tensor, mask_QN: Tensor | None, scale: float) -> Tensor:
    assert mask_QN is not None
    return torch.softmax(torch.baddbmm(mask_QN, q_HQD, k_HND.mT, alpha=scale), -1)


def attend_plainly(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float, blocks: list[Block]) -> Tensor:
    """Return the same by torch's public attention: for other devices, and to test the fast path against."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q_THD, k_TKD, v_TKD))
    gqa = q_THD.shape[1] != k_TKD.shape[1]
    outputs = []
    for block in blocks:
        out = F.scaled_dot_product_attention(
            q[:, :, block.queries], k[:, :, block.keys], v[:, :, block.keys],
            attn_mask=block.mask, is_causal=block.mask is None, scale=scale, enable_gqa=gqa,
        )  # fmt: skip
        outputs.append(out[0].transpose(0, 1))
    return torch.cat(outputs)
