"""Causal attention of one flat stream in tiles of queries, with its gradient: bf16 training on a CPU.

A tile is 128 queries that follow each other, and all keys that one of them sees; one mask says which query
sees which key, so that a tile may cross the border between two documents::

              keys  lo ....... hi           The products of a tile are plain matrix products, which bf16 makes
    128 queries   [ 0 0 0 x x x x ]         twice as fast; torch's own kernel multiplies blocks in fp32 or, on
                  [ 0 0 0 0 0 x x ]         AMD's processors, in bf16 without the instruction for it.
                  [ x x x x 0 0 x ]

Sizes are rounded up, so that a few kernels serve every stream. Backward computes the weights again instead of
keeping them: what is kept is queries, keys and values.

Shapes: T tokens, S asking tokens, N tiles, R rows of a tile, H heads, K kv heads, G = H / K, D head width,
L keys that a tile sees.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS = 128
STEP = 64


class Tile(NamedTuple):
    """The keys ``lo`` to ``hi`` that ``ROWS`` queries see, and what their scores are raised by: 0 or -inf."""

    lo: int
    hi: int
    mask_RL: Tensor


def cut(positions_T: Tensor, asking_S: Tensor, window: int | None) -> list[Tile]:
    """Return the tiles of the queries at the indices ``asking_S`` of a stream, in order."""
    first_S = asking_S - positions_T[asking_S]
    if window is not None:
        first_S = torch.maximum(first_S, asking_S - window + 1)
    tiles = []
    for last, first in zip(torch.split(asking_S, ROWS), torch.split(first_S, ROWS), strict=True):
        lo, hi = int(first[0]) // STEP * STEP, -(-(int(last[-1]) + 1) // STEP) * STEP
        keys = torch.arange(lo, hi)
        mask_RL = torch.zeros(ROWS, hi - lo, dtype=torch.bfloat16)
        hidden = (keys < first[:, None]) | (keys > last[:, None])
        mask_RL[: len(last)].masked_fill_(hidden, -torch.inf)
        tiles.append(Tile(lo, hi, mask_RL))
    return tiles


def attend(q_SHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, tiles: list[Tile], scale: float) -> Tensor:
    """Return what each query reads, ``[S, H, D]``, in the dtype of the queries."""
    out_SHD: Tensor = _Tiled.apply(q_SHD * scale, k_TKD, v_TKD, tiles)  # type: ignore[no-untyped-call]
    return out_SHD


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_SHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, tiles: list[Tile]) -> Tensor:
        q, k, v = _by_tile(q_SHD, k_TKD.shape[1]), _by_head(k_TKD), _by_head(v_TKD)
        ctx.save_for_backward(q, k, v)
        ctx.tiles, ctx.num_tokens, ctx.num_asking = tiles, len(k_TKD), len(q_SHD)
        out, room = torch.empty_like(q), _room(q, tiles)
        for tile, q_tile, out_tile in zip(tiles, q, out, strict=True):
            weights = _weights(q_tile, k[:, tile.lo : tile.hi], tile, room)
            torch.bmm(weights, v[:, tile.lo : tile.hi], out=out_tile)
        return _by_token(out, len(q_SHD))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        g, dq = _by_tile(grads[0], len(k)), torch.empty_like(q)
        dk, dv = (torch.zeros_like(x, dtype=torch.float32) for x in (k, v))
        room, room_too = _room(q, ctx.tiles), _room(q, ctx.tiles)
        for tile, q_tile, g_tile, dq_tile in zip(ctx.tiles, q, g, dq, strict=True):
            seen = slice(tile.lo, tile.hi)
            weights = _weights(q_tile, k[:, seen], tile, room)
            dv[:, seen] += torch.bmm(weights.mT, g_tile)
            scores = room_too[: weights.numel()].view_as(weights)
            torch.bmm(g_tile, v[:, seen].mT, out=scores)
            torch.ops.aten._softmax_backward_data.out(scores, weights, -1, scores.dtype, grad_input=scores)
            dk[:, seen] += torch.bmm(scores.mT, q_tile)
            torch.bmm(scores, k[:, seen], out=dq_tile)
        dk, dv = (x[:, : ctx.num_tokens].transpose(0, 1).to(q.dtype) for x in (dk, dv))
        return _by_token(dq, ctx.num_asking), dk, dv, None


def _weights(q_tile: Tensor, k: Tensor, tile: Tile, room: Tensor) -> Tensor:
    """Return the attention weights of a tile, ``[K, G * R, L]``, written into ``room``."""
    num_heads, rows, num_keys = len(q_tile), q_tile.shape[1], k.shape[1]
    scores = room[: num_heads * rows * num_keys].view(num_heads, rows, num_keys)
    torch.bmm(q_tile, k.mT, out=scores)
    scores.view(-1, ROWS, num_keys).add_(tile.mask_RL)
    return torch.softmax(scores, -1, out=scores)


def _room(q: Tensor, tiles: list[Tile]) -> Tensor:
    """Return memory for the scores of any one tile: fresh memory for each would cost page faults."""
    return q.new_empty(q[0, ..., 0].numel() * max(tile.hi - tile.lo for tile in tiles))


def _by_tile(x_SHD: Tensor, num_kv_heads: int) -> Tensor:
    """Return ``[N, K, G * R, D]``: the queries of a tile that read from the same kv head lie together."""
    num_tiles = -(-len(x_SHD) // ROWS)
    padded = F.pad(x_SHD, (0, 0, 0, 0, 0, num_tiles * ROWS - len(x_SHD)))
    split = padded.view(num_tiles, ROWS, num_kv_heads, -1, x_SHD.shape[-1])
    return split.permute(0, 2, 3, 1, 4).flatten(2, 3).contiguous()


def _by_token(x: Tensor, num_tokens: int) -> Tensor:
    """Return ``[S, H, D]`` of what ``_by_tile`` made."""
    num_tiles, num_kv_heads, _, width = x.shape
    split = x.view(num_tiles, num_kv_heads, -1, ROWS, width).permute(0, 3, 1, 2, 4)
    return split.reshape(num_tiles * ROWS, -1, width)[:num_tokens]


def _by_head(x_TKD: Tensor) -> Tensor:
    """Return ``[K, T, D]``, with zeros up to a multiple of the step."""
    return F.pad(x_TKD, (0, 0, 0, 0, 0, -len(x_TKD) % STEP)).transpose(0, 1).contiguous()
