"""Causal attention inside documents: packed texts never see each other.

``positions`` is all it takes: a document starts where a position is 0.

::

    positions   0 1 2 3 | 0 1 | 0 1 2          the work: three triangles, never a T x T mask
    lengths     4         2     3

Shapes: T tokens, S selected tokens, H heads, K kv heads, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from picollm.errors import InputError
from picollm.model import tiles

TILED_LENGTH = 100  # documents longer than this, on average, go in tiles


@dataclass(frozen=True)
class Documents:
    """Where the documents of one flat stream begin, and how many of the selected tokens each holds."""

    positions: Tensor
    lengths: list[int]
    select: Tensor | None = None
    selected: list[int] | None = None
    _tiles: dict[tuple[int, int | None], list[tiles.Tile]] = field(default_factory=dict)

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

    def attend(self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float, window: int | None) -> Tensor:
        """Return what each query reads from its own document up to itself, ``[T, H, D]``.

        With ``window``, only from the last ``window`` tokens, itself included. When only the selected tokens
        ask (``q`` is ``[S, H, D]``), the result is ``[S, H, D]``.
        """
        if q_THD.dtype == torch.bfloat16 and q_THD.device.type == "cpu" and q_THD.requires_grad:
            if len(k_TKD) > TILED_LENGTH * len(self.lengths):
                return tiles.attend(q_THD, k_TKD, v_TKD, self._cut(len(q_THD), window), scale)
            # The backward pass of torch's CPU kernel takes twice as long in bf16 as in fp32, casts included.
            return self.attend(q_THD.float(), k_TKD.float(), v_TKD.float(), scale, window).bfloat16()
        asked = self.lengths if len(q_THD) == len(k_TKD) else self.selected
        assert asked is not None and sum(asked) == len(q_THD)
        gqa = q_THD.shape[1] != k_TKD.shape[1]
        outputs = []
        cut = ((q_THD, asked), (k_TKD, self.lengths), (v_TKD, self.lengths))
        pieces = zip(*(torch.split(tensor, lengths) for tensor, lengths in cut), strict=True)
        seen = torch.split(self._positions_asked(q_THD, k_TKD), asked)
        for (q, k, v), at in zip(pieces, seen, strict=True):
            if not len(q):
                continue
            mask = None
            if len(q) != len(k) or (window is not None and window < len(k)):
                mask = _mask(at, len(k), window)
            q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
            out = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
                enable_gqa=gqa,
            )
            outputs.append(out[0].transpose(0, 1))
        return torch.cat(outputs)

    def _cut(self, num_asking: int, window: int | None) -> list[tiles.Tile]:
        if (num_asking, window) not in self._tiles:
            asking = torch.arange(num_asking)
            if self.select is not None and num_asking != len(self.positions):
                asking = self.select
            self._tiles[num_asking, window] = tiles.cut(self.positions, asking, window)
        return self._tiles[num_asking, window]

    def _positions_asked(self, q_THD: Tensor, k_TKD: Tensor) -> Tensor:
        if self.select is None or len(q_THD) == len(k_TKD):
            return self.positions
        return self.positions[self.select]


def _mask(position_S: Tensor, length: int, window: int | None) -> Tensor:
    """Return which keys of one document each query sees, bool ``[S, length]``."""
    key = torch.arange(length, device=position_S.device)
    visible = key <= position_S[:, None]
    if window is not None:
        visible &= key > position_S[:, None] - window
    return visible
