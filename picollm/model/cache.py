"""Keys and values of running requests, in a fixed number of slots.

A forward pass is one flat stream of tokens, cut into ``Segment``s: each continues the text that its slot
holds.

::

    stream     a | b | c | d d d d d | e e e          decode tokens first, then prompts (or pieces of them)
    slot       0   1   2   3           4
    start      9   4   7   0           6              what the slot held before: d is new, e goes on
                          -> d sees d, causally; e sees the 6 cached tokens and itself, causally

Decode segments (one token each) and prefill segments go different ways: a decode token reads its slot's keys
once, the tokens of a prompt read them in blocks. On a CPU the native kernels read of each slot what it holds
and no more; elsewhere decode segments are one padded product, and prompts one attention each. No padding is
computed for prompts, and packed prompts never see each other.

Heads come before tokens in memory: keys and values are ``[slots, K, C, D]``.

Shapes: T tokens, R rows of the decode batch, H heads, K kv heads, D head width, L cached length, C capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from picollm.model import native
from picollm.model.config import ModelConfig


class Segment(NamedTuple):
    """``length`` tokens of the stream that follow the first ``start`` tokens of ``slot``."""

    slot: int
    start: int
    length: int


class KVCache:
    """The keys and values of ``num_slots`` texts; capacity grows as ``reserve`` asks for it."""

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
        zeros = partial(torch.zeros, shape, dtype=dtype, device=device)
        self.layers = [(zeros(), zeros()) for _ in range(config.num_hidden_layers)]
        self._addresses: Tensor | None = None

    @property
    def capacity(self) -> int:
        """Return how many tokens each slot holds at present."""
        return self.layers[0][0].shape[2]

    @property
    def addresses(self) -> Tensor:
        """Return where the keys and the values of each layer are."""
        if self._addresses is None:
            self._addresses = native.addresses([x for layer in self.layers for x in layer])
        return self._addresses

    def reserve(self, length: int) -> None:
        """Make room for ``length`` tokens in each slot; what they hold stays."""
        if length <= self.capacity:
            return
        more = max(length, self.capacity * 3 // 2) - self.capacity
        for index, pair in enumerate(self.layers):
            keys, values = (F.pad(x, (0, 0, 0, more)) for x in pair)
            self.layers[index] = (keys, values)
        self._addresses = None

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of one slot to another."""
        for pair in self.layers:
            for x in pair:
                x[target, :, :length] = x[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first ``length`` tokens of two slots."""
        pair, reverse = [one, other], [other, one]
        for layer in self.layers:
            for x in layer:
                x[pair, :, :length] = x[reverse, :, :length]

    def view(self, decode: Sequence[Segment], prefill: Sequence[Segment]) -> CacheView:
        """Return what the model calls during one forward pass over a stream of ``decode``, then ``prefill``.

        Decode segments have one token each and distinct slots. Prefill segments may share a slot when they
        begin at the same place of it: what the slot holds after that place is then any of them.
        """
        return CacheView(self, decode, prefill)


class CacheView:
    """One forward pass's reading and writing of a ``KVCache``."""

    def __init__(self, cache: KVCache, decode: Sequence[Segment], prefill: Sequence[Segment]) -> None:
        self.cache, self.decode, self.prefill = cache, decode, prefill
        self._device = cache.layers[0][0].device
        self._masks: dict[tuple[int, int | None], Tensor] = {}
        self._hidden: dict[int | None, Tensor] = {}
        # Of every token of the stream: the slot it goes to, and its place there.
        slots, places = [s.slot for s in decode], [s.start for s in decode]
        for slot, start, length in prefill:
            slots += [slot] * length
            places += range(start, start + length)
        self.slot_T, self.place_T = self._tensor([slots, places])
        if prefill:
            # Of every prompt: its end in the stream, its slot, and how much of the slot comes before it.
            ends, starts = list(accumulate(s.length for s in prefill)), [s.start for s in prefill]
            self._ends_P, self._slot_P, self._start_P = self._tensor(
                [ends, [s.slot for s in prefill], starts]
            )

    def _tensor(self, values: list[list[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)

    def attend(self, layer_index: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float) -> Tensor:
        """Store the new keys and values; return attention over each segment's whole text, ``[T, H, D]``."""
        keys, values = self.cache.layers[layer_index]
        window = self.cache.config.window(layer_index)
        if native.takes(keys, q_THD, k_TKD, v_TKD):
            return self._attend_natively(keys, values, q_THD, k_TKD, v_TKD, scale, window)
        keys[self.slot_T, :, self.place_T] = k_TKD
        values[self.slot_T, :, self.place_T] = v_TKD
        at = len(self.decode)
        outputs = [self._decode(keys, values, q_THD[:at], scale, window)] if at else []
        for index, (slot, start, length) in enumerate(self.prefill):
            own = slice(at, at + length)
            # From the stream, not from the slot: another segment may have written there since.
            k, v = (
                torch.cat([cached[slot, :, :start], new[own].transpose(0, 1)], 1)[None]
                for cached, new in ((keys, k_TKD), (values, v_TKD))
            )
            mask = self._prefill_mask(index, window)
            out = F.scaled_dot_product_attention(
                q_THD[own].transpose(0, 1)[None],
                k,
                v,
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
                enable_gqa=q_THD.shape[1] != k_TKD.shape[1],
            )
            outputs.append(out[0].transpose(0, 1))
            at += length
        return torch.cat(outputs)

    def _attend_natively(
        self,
        keys: Tensor,
        values: Tensor,
        q_THD: Tensor,
        k_TKD: Tensor,
        v_TKD: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        out_THD, capacity, rows = torch.empty_like(q_THD), keys.shape[2], len(self.decode)
        (tokens, heads, width), kv_heads, dtype = q_THD.shape, k_TKD.shape[1], q_THD.dtype
        places, sizes = (self.slot_T, self.place_T), (kv_heads, width, capacity)
        for new, kept in ((k_TKD, keys), (v_TKD, values)):
            native.call("keep", dtype, new, *places, tokens, *sizes, kept)
        how = window or 0, scale
        if rows:
            seen = keys, values, *places
            native.call("attend", dtype, q_THD, *seen, *how, rows, heads, *sizes, out_THD)
        if self.prefill:
            own = (x[rows:] for x in (q_THD, k_TKD, v_TKD, self.place_T))
            ends, before = (self._ends_P, self._ends_P, len(self.prefill)), (self._slot_P, self._start_P)
            cached = *before, keys, values, capacity
            shape = heads, kv_heads, width
            native.call("attention", dtype, *own, *ends, *how, *shape, *cached, out_THD[rows:], None)
        return out_THD

    def _decode(
        self, keys: Tensor, values: Tensor, q_RHD: Tensor, scale: float, window: int | None
    ) -> Tensor:
        """Return what one query per row and head reads, ``[R, H, D]``."""
        longest, rows = max(s.start for s in self.decode) + 1, len(self.decode)
        in_order = all(s.slot == row for row, s in enumerate(self.decode))  # then nothing is copied
        slots = slice(rows) if in_order else self.slot_T[:rows]
        k, v = (x[slots, :, :longest].flatten(0, 1) for x in (keys, values))
        # The G query heads of one kv head are G queries over the same keys: nothing is repeated in memory.
        scores = torch.bmm((q_RHD * scale).reshape(len(k), -1, k.shape[-1]), k.transpose(1, 2))
        hidden_R1L = self._decode_mask(longest, window)
        weights_RHL = scores.view(*q_RHD.shape[:2], longest).masked_fill(hidden_R1L, -torch.inf)
        weights_RHL = weights_RHL.softmax(-1, dtype=torch.float32).to(v.dtype)
        return torch.bmm(weights_RHL.view(len(v), -1, longest), v).view(q_RHD.shape)

    def _decode_mask(self, longest: int, window: int | None) -> Tensor:
        """Return which keys a row does not see, bool ``[R, 1, L]``."""
        if window not in self._hidden:
            length = self.place_T[: len(self.decode), None] + 1
            key = torch.arange(longest, device=self._device)
            hidden = key >= length
            if window is not None:
                hidden |= key < length - window
            self._hidden[window] = hidden[:, None]
        return self._hidden[window]

    def _prefill_mask(self, index: int, window: int | None) -> Tensor | None:
        """Return which keys each new token sees, bool ``[length, end]``; None for causal from the start."""
        _, start, length = self.prefill[index]
        end = start + length
        narrow = window if window is not None and window < end else None
        if start == 0 and narrow is None:
            return None
        if (index, narrow) not in self._masks:
            query = torch.arange(start, end, device=self._device)[:, None]
            key = torch.arange(end, device=self._device)
            mask = key <= query
            if narrow is not None:
                mask &= key > query - narrow
            self._masks[index, narrow] = mask
        return self._masks[index, narrow]
