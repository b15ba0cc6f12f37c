"""Keys and values of running requests, in a fixed number of slots.

A forward pass is one flat stream of tokens, cut into ``Segment``s: each continues the text that its slot
holds.

::

    stream     a | b | c | d d d d d | e e e          decode tokens first, then prompts (or pieces of them)
    slot       0   1   2   3           4
    start      9   4   7   0           6              what the slot held before: d is new, e goes on
                          -> d sees d, causally; e sees the 6 cached tokens and itself, causally

Decode segments (one token each) are answered together, by one attention call over slots ``0 .. R-1``; prefill
segments one by one, each over exactly its own text, so that no padding is computed and packed prompts never
see each other.

Heads come before tokens in memory, ``[slots, K, C, D]``: what one head reads lies in one piece, and a
decode step over many long texts is 1.7 times as fast as with tokens before heads.

Shapes: T tokens, R rows of the decode batch, H heads, K kv heads, D head width, L cached length, C capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from picollm.model.config import ModelConfig


class Segment(NamedTuple):
    """``length`` tokens of the stream that follow the first ``start`` tokens of ``slot``."""

    slot: int
    start: int
    length: int


class KVCache:
    """The keys and values of ``num_slots`` texts; capacity grows by doubling as ``reserve`` asks for it."""

    def __init__(
        self,
        config: ModelConfig,
        num_slots: int,
        capacity: int = 256,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.num_slots = num_slots
        shape = (num_slots, config.num_key_value_heads, capacity, config.head_dim)
        # Zeros, not empty: a masked key still meets a probability of 0, and 0 times NaN is NaN.
        self.layers = [
            (torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
            for _ in range(config.num_hidden_layers)
        ]

    @property
    def capacity(self) -> int:
        """Return how many tokens each slot holds at present."""
        return self.layers[0][0].shape[2]

    def reserve(self, length: int) -> None:
        """Make room for ``length`` tokens in each slot; what they hold stays."""
        old = self.capacity
        if length <= old:
            return
        new = max(length, 2 * old)
        for index, (keys, values) in enumerate(self.layers):
            self.layers[index] = (_grown(keys, new), _grown(values, new))

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of one slot to another."""
        for keys, values in self.layers:
            keys[target, :, :length] = keys[source, :, :length]
            values[target, :, :length] = values[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first ``length`` tokens of two slots."""
        pair, reverse = [one, other], [other, one]
        for keys, values in self.layers:
            keys[pair, :, :length] = keys[reverse, :, :length]
            values[pair, :, :length] = values[reverse, :, :length]

    def view(self, decode: Sequence[Segment], prefill: Sequence[Segment]) -> CacheView:
        """Return what the model calls during one forward pass over a stream of ``decode``, then ``prefill``.

        Decode segments have one token each and distinct slots. Prefill segments may share a slot: each then
        overwrites what the one before it wrote after ``start``.
        """
        return CacheView(self, decode, prefill)


def _grown(x: Tensor, capacity: int) -> Tensor:
    """Return ``x[slots, K, C, D]`` with room for ``capacity`` tokens."""
    grown = x.new_zeros((*x.shape[:2], capacity, x.shape[3]))
    grown[:, :, : x.shape[2]] = x
    return grown


class CacheView:
    """One forward pass's reading and writing of a ``KVCache``."""

    def __init__(self, cache: KVCache, decode: Sequence[Segment], prefill: Sequence[Segment]) -> None:
        self.cache = cache
        self.decode, self.prefill = decode, prefill
        device = cache.layers[0][0].device
        slots = [s.slot for s in self.decode]
        lengths = [s.start + 1 for s in self.decode]
        self.num_rows = max(slots, default=-1) + 1
        self.longest = max(lengths, default=0)
        self.is_dense = slots == list(range(self.num_rows))
        self.is_even = self.is_dense and len(set(lengths)) <= 1
        self.slot_R = torch.tensor(slots, device=device)
        self.length_R = torch.tensor(lengths, device=device)
        self._row_RK: Tensor | None = None
        self._masks: dict[tuple[int, int | None], Tensor | None] = {}

    def attend(self, layer_index: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float) -> Tensor:
        """Store the new keys and values; return attention over each segment's whole text, ``[T, H, D]``."""
        keys, values = self.cache.layers[layer_index]
        window = self.cache.config.window(layer_index)
        outputs = []
        at = len(self.decode)
        if at:
            outputs.append(self._decode(keys, values, q_THD[:at], k_TKD[:at], v_TKD[:at], scale, window))
        for index, (slot, start, length) in enumerate(self.prefill):
            # Written and read one after the other: that is what lets segments share a slot.
            new, end = slice(at, at + length), start + length
            keys[slot, :, start:end] = k_TKD[new].transpose(0, 1)
            values[slot, :, start:end] = v_TKD[new].transpose(0, 1)
            mask = self._prefill_mask(index, window)
            out = F.scaled_dot_product_attention(
                q_THD[new].transpose(0, 1)[None],
                keys[slot, None, :, :end],
                values[slot, None, :, :end],
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
                enable_gqa=q_THD.shape[1] != k_TKD.shape[1],
            )
            outputs.append(out[0].transpose(0, 1))
            at += length
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _decode(
        self, keys: Tensor, values: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None
    ) -> Tensor:
        """Return attention of one new token per row, ``[R, H, D]``."""
        rows, longest = self.num_rows, self.longest
        if self.is_even:
            keys[:rows, :, longest - 1], values[:rows, :, longest - 1] = k, v
        else:
            for cached, new in ((keys, k), (values, v)):
                cached.view(-1, new.shape[-1]).index_copy_(0, self._rows(keys), new.flatten(0, 1))
        if not self.is_dense:
            # Slots in the middle of a longer segment answer too, a query of zeros; nobody reads the answer.
            q = q.new_zeros((rows, *q.shape[1:])).index_copy_(0, self.slot_R, q)
        # The G query heads of one kv head are G queries over the same keys: nothing is repeated in memory.
        out = F.scaled_dot_product_attention(
            q.reshape(rows, keys.shape[1], -1, q.shape[-1]),
            keys[:rows, :, :longest],
            values[:rows, :, :longest],
            attn_mask=self._decode_mask(q.dtype, window),
            scale=scale,
        ).flatten(1, 2)
        return out if self.is_dense else out[self.slot_R]

    def _rows(self, keys: Tensor) -> Tensor:
        """Return where each new token's heads go, as rows of ``keys.view(-1, D)``, ``[R * K]``."""
        if self._row_RK is None:
            num_heads, capacity = keys.shape[1:3]
            head_K = torch.arange(num_heads, device=keys.device)
            row_RK = (self.slot_R[:, None] * num_heads + head_K) * capacity + self.length_R[:, None] - 1
            self._row_RK = row_RK.flatten()
        return self._row_RK

    def _decode_mask(self, dtype: torch.dtype, window: int | None) -> Tensor | None:
        """Return 0 for keys a row sees, -inf for others, ``[R, 1, 1, L]``; None when all see everything."""
        narrow = window if window is not None and window < self.longest else None
        if self.is_even and narrow is None:
            return None
        if (-1, narrow) not in self._masks:
            key = torch.arange(self.longest, device=self.length_R.device)
            length = self.length_R
            if not self.is_dense:
                length = length.new_ones(self.num_rows).index_copy_(0, self.slot_R, length)
            hidden = key >= length[:, None]
            if narrow is not None:
                hidden |= key < length[:, None] - narrow
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(
                hidden, -torch.inf
            )
            self._masks[-1, narrow] = mask[:, None, None]
        return self._masks[-1, narrow]

    def _prefill_mask(self, index: int, window: int | None) -> Tensor | None:
        """Return which keys each new token sees, bool ``[length, end]``; None for causal from the start."""
        _, start, length = self.prefill[index]
        end = start + length
        narrow = window if window is not None and window < end else None
        if start == 0 and narrow is None:
            return None
        if (index, narrow) not in self._masks:
            device = self.length_R.device
            query = torch.arange(start, end, device=device)[:, None]
            key = torch.arange(end, device=device)
            mask = key <= query
            if narrow is not None:
                mask &= key > query - narrow
            self._masks[index, narrow] = mask
        return self._masks[index, narrow]
