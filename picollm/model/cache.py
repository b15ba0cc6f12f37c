"""Keys and values of running requests, in a fixed number of slots.

A forward pass is one flat stream of tokens, cut into ``Segment``s: each continues the text that its slot
holds.

::

    stream     a | b | c | d d d d d | e e e          decode tokens first, then prompts (or pieces of them)
    slot       0   1   2   3           4
    start      9   4   7   0           6              what the slot held before: d is new, e goes on
                          -> d sees d, causally; e sees the 6 cached tokens and itself, causally

Decode segments (one token each) are answered together, by one call over slots ``0 .. R-1``; prefill segments
one by one, each over exactly its own text, so that no padding is computed and packed prompts never see each
other.

Heads come before tokens in memory, values as ``[slots, K, C, D]`` and keys as ``[slots, K, D, C]``. So both
products of a decode step are sums of whole rows, each times one number: scores are rows of keys times the
query's channels, the answer is rows of values times probabilities. For that a CPU has a kernel, made for
embedding bags, that reads memory two to four times as fast as a product of matrices with so few rows.

Shapes: T tokens, R rows of the decode batch, H heads, K kv heads, D head width, L cached length, C capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from picollm.model.config import ModelConfig

# For fewer rows, products of matrices are as fast (measured on Zen 4).
_MIN_BAG_ROWS = 3


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
        heads = (num_slots, config.num_key_value_heads)
        # Zeros, not empty: a masked key still meets a probability of 0, and 0 times NaN is NaN.
        zeros = partial(torch.zeros, dtype=dtype, device=device)
        self.layers = [
            (zeros((*heads, config.head_dim, capacity)), zeros((*heads, capacity, config.head_dim)))
            for _ in range(config.num_hidden_layers)
        ]

    @property
    def capacity(self) -> int:
        """Return how many tokens each slot holds at present."""
        return self.layers[0][0].shape[-1]

    def reserve(self, length: int) -> None:
        """Make room for ``length`` tokens in each slot; what they hold stays."""
        if length <= self.capacity:
            return
        # A decode step reads all of the keys' room, so it grows by little.
        more = max(length, self.capacity * 5 // 4) - self.capacity
        for index, (keys, values) in enumerate(self.layers):
            self.layers[index] = (F.pad(keys, (0, more)), F.pad(values, (0, 0, 0, more)))

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of one slot to another."""
        for keys, values in self.layers:
            keys[target, ..., :length] = keys[source, ..., :length]
            values[target, :, :length] = values[source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first ``length`` tokens of two slots."""
        pair, reverse = [one, other], [other, one]
        for keys, values in self.layers:
            keys[pair, ..., :length] = keys[reverse, ..., :length]
            values[pair, :, :length] = values[reverse, :, :length]

    def view(self, decode: Sequence[Segment], prefill: Sequence[Segment]) -> CacheView:
        """Return what the model calls during one forward pass over a stream of ``decode``, then ``prefill``.

        Decode segments have one token each and distinct slots. Prefill segments may share a slot: each then
        overwrites what the one before it wrote after ``start``.
        """
        return CacheView(self, decode, prefill)


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
        self._bags: tuple[Tensor, Tensor] | None = None
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
            keys[slot, ..., start:end] = k_TKD[new].permute(1, 2, 0)
            values[slot, :, start:end] = v_TKD[new].transpose(0, 1)
            mask = self._prefill_mask(index, window)
            own = k_TKD[new] if start == 0 else keys[slot, ..., :end].permute(2, 0, 1).contiguous()
            out = F.scaled_dot_product_attention(
                q_THD[new].transpose(0, 1)[None],
                own.transpose(0, 1)[None],
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
        if self.is_even:
            keys[: self.num_rows, ..., self.longest - 1] = k
            values[: self.num_rows, :, self.longest - 1] = v
        else:
            keys[self.slot_R, ..., self.length_R - 1] = k
            values[self.slot_R, :, self.length_R - 1] = v
        if not self.is_dense:
            # Slots in the middle of a longer segment answer too, a query of zeros; nobody reads the answer.
            q = q.new_zeros((self.num_rows, *q.shape[1:])).index_copy_(0, self.slot_R, q)
        mask = self._decode_mask(q.dtype, window)
        in_bags = len(q) >= _MIN_BAG_ROWS and q.dtype == torch.float32 and q.device.type == "cpu"
        out = (self._read_bags if in_bags else self._read)(keys, values, q * scale, mask)
        return out if self.is_dense else out[self.slot_R]

    def _read(self, keys: Tensor, values: Tensor, q_RHD: Tensor, mask_R1L: Tensor | None) -> Tensor:
        """Return what one scaled query per row and head reads, ``[R, H, D]``: as products of matrices."""
        rows, longest = self.num_rows, self.longest
        k, v = keys[:rows, ..., :longest].flatten(0, 1), values[:rows, :, :longest].flatten(0, 1)
        # The G query heads of one kv head are G queries over the same keys: nothing is repeated in memory.
        scores_RHL = torch.bmm(q_RHD.view(len(k), -1, k.shape[1]), k).view(*q_RHD.shape[:2], longest)
        scores_RHL = scores_RHL if mask_R1L is None else scores_RHL + mask_R1L
        weights_RHL = scores_RHL.softmax(-1, dtype=torch.float32).to(v.dtype)
        return torch.bmm(weights_RHL.view(len(v), -1, longest), v).view(q_RHD.shape)

    def _read_bags(self, keys: Tensor, values: Tensor, q_RHD: Tensor, mask_R1L: Tensor | None) -> Tensor:
        """Return the same, each product as bags of weighted rows."""
        channels, tokens = self._bag_rows(keys, q_RHD.shape[1])
        scores = F.embedding_bag(
            channels, keys.view(-1, keys.shape[-1]), mode="sum", per_sample_weights=q_RHD.flatten(0, 1)
        )
        scores_RHL = scores.view(*q_RHD.shape[:2], -1)[..., : self.longest]
        weights_RHL = (scores_RHL if mask_R1L is None else scores_RHL + mask_R1L).softmax(-1)
        return F.embedding_bag(
            tokens,
            values.view(-1, values.shape[-1]),
            mode="sum",
            per_sample_weights=weights_RHL.flatten(0, 1),
        ).view(q_RHD.shape)

    def _bag_rows(self, keys: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
        """Return the rows of keys and values that each query head sums, ``[R * H, D]``, ``[R * H, L]``."""
        if self._bags is None:
            num_kv, head_dim, capacity = keys.shape[1:]
            first = torch.arange(self.num_rows * num_kv, dtype=torch.int32)
            first = first.repeat_interleave(num_heads // num_kv)[:, None]
            channels = first * head_dim + torch.arange(head_dim, dtype=torch.int32)
            self._bags = channels, first * capacity + torch.arange(self.longest, dtype=torch.int32)
        return self._bags

    def _decode_mask(self, dtype: torch.dtype, window: int | None) -> Tensor | None:
        """Return 0 for keys a row sees, -inf for others, ``[R, 1, L]``; None when all see everything."""
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
            self._masks[-1, narrow] = mask[:, None]
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
