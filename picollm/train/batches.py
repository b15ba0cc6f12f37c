"""Batches: the endless, seeded stream of packed examples, addressed by number.

T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from picollm.errors import InputError
from picollm.train.examples import Examples, Int64s
from picollm.train.packing import Packs, divide, pack

NO_TARGET = -100


@dataclass(frozen=True)
class Batch:
    """One flat stream of whole examples, already shifted: ``targets[t]`` is the token after ``ids[t]``.

    ::

        ids        7 3 9 | 7 8 | 7 5 2 6        the last token of an example is only ever a target
        targets    - 9 4 | 8 8 | 5 2 6 6        - is -100: not supervised
        positions  0 1 2 | 0 1 | 0 1 2 3        0 starts an example

    All three are int64 of shape [T].
    """

    ids: Tensor
    targets: Tensor
    positions: Tensor
    num_targets: int

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on ``device``."""
        if torch.device(device).type == "cpu":
            return self
        ids, targets, positions = (t.to(device) for t in (self.ids, self.targets, self.positions))
        return Batch(ids, targets, positions, self.num_targets)


def join(examples: Examples, members: Int64s) -> Batch:
    """Return the batch of the examples ``members``, one after the other. The shift happens here, once."""
    ids = [examples.ids(int(i)) for i in members]
    total = sum(len(i) - 1 for i in ids)
    out_ids, out_targets, out_positions = (np.empty(total, np.int64) for _ in range(3))
    start = 0
    for index, tokens in zip(members.tolist(), ids, strict=True):
        end = start + len(tokens) - 1
        out_ids[start:end] = tokens[:-1]
        out_targets[start:end] = np.where(examples.mask(index)[1:], tokens[1:], NO_TARGET)
        out_positions[start:end] = np.arange(end - start)
        start = end
    flat = [torch.from_numpy(array) for array in (out_ids, out_targets, out_positions)]
    return Batch(flat[0], flat[1], flat[2], examples.num_targets_of(members))


class Batches:
    """Batch number ``i`` of an endless stream: epoch after epoch, each example exactly once per epoch.

    What batch ``i`` holds is a pure function of the examples, ``max_tokens``, ``seed`` and ``i``. The number
    of the next batch is therefore the whole state of the loader. A mixture with weights hands in
    ``members_of_epoch``: which examples an epoch is made of, some of them perhaps twice. ``turns`` are the
    epochs with which a curriculum turns to other sources: losses before and after do not compare.
    """

    def __init__(
        self,
        examples: Examples,
        max_tokens: int,
        seed: int = 0,
        members_of_epoch: Callable[[int], Int64s] | None = None,
        turns: Collection[int] = (),
    ) -> None:
        if max_tokens < 1:
            raise InputError(f"a batch of {max_tokens} tokens holds nothing; the least is 1.")
        if not len(examples):
            raise InputError(
                "there is nothing to train on: no example has a supervised token "
                f"({examples.num_without_targets} were left out for that). Check the mixture and its weights."
            )
        self.examples, self.max_tokens, self.seed = examples, max_tokens, seed
        self._costs = examples.costs
        self._members_of_epoch, self._turns = members_of_epoch, turns
        self._ends = [0]  # _ends[e] is the number of batches before epoch e
        self._cached: tuple[int, Packs] | None = None
        self._packs(0)

    def _packs(self, epoch: int) -> Packs:
        if self._cached is None or self._cached[0] != epoch:
            rng = np.random.default_rng([self.seed, epoch])
            if self._members_of_epoch is None:
                packs = pack(self._costs, self.max_tokens, rng)
            else:
                chosen = self._members_of_epoch(epoch)
                packs = pack(self._costs[chosen], self.max_tokens, rng)
                packs = Packs(chosen[packs.members], packs.bounds)
            self._cached = (epoch, packs)
            if epoch == len(self._ends) - 1:
                self._ends.append(self._ends[-1] + len(packs))
        return self._cached[1]

    def num_batches(self, epochs: float) -> int:
        """Return how many batches ``epochs`` passes over the examples take."""
        whole = int(epochs)
        while len(self._ends) <= whole + 1:
            self._packs(len(self._ends) - 1)
        return self._ends[whole] + round((epochs - whole) * (self._ends[whole + 1] - self._ends[whole]))

    def epoch(self, index: int) -> int:
        """Return the epoch that batch number ``index`` belongs to, counted from 0."""
        while self._ends[-1] <= index:
            self._packs(len(self._ends) - 1)
        return int(np.searchsorted(self._ends, index, side="right")) - 1

    def turn_in(self, numbers: range) -> bool:
        """Return whether the batches ``numbers`` reach an epoch with which a curriculum turns."""
        before = self.epoch(numbers[0] - 1) if numbers[0] else 0
        return any(epoch in self._turns for epoch in range(before + 1, self.epoch(numbers[-1]) + 1))

    def members(self, index: int) -> Int64s:
        """Return the numbers of the examples in batch number ``index``."""
        epoch = self.epoch(index)
        return self._packs(epoch)[index - self._ends[epoch]]

    def num_targets(self, index: int) -> int:
        """Return how many supervised tokens batch number ``index`` holds, without building it."""
        return self.examples.num_targets_of(self.members(index))

    def __getitem__(self, index: int) -> Batch:
        return join(self.examples, self.members(index))

    def share(self, numbers: range, rank: int, num_processes: int) -> list[Batch]:
        """Return what process ``rank`` computes of the batches ``numbers``; nothing of it may be left.

        Whole batches go round when there are enough for all; otherwise each is divided between conversations.
        """
        if len(numbers) % num_processes == 0:
            return [self[number] for number in numbers[rank::num_processes]]
        shares = []
        for members in map(self.members, numbers):
            own = divide(self._costs[members].tolist(), num_processes)[rank]
            shares += [join(self.examples, members[own])] if own else []
        return shares

    @property
    def fill(self) -> float:
        """The share of the token budget that the first epoch uses: 1.0 is perfect packing."""
        used = int(self._costs[self._packs(0).members].sum())
        return used / (self._ends[1] * self.max_tokens)

    @property
    def digest(self) -> str:
        """The SHA-256 over everything that decides a batch."""
        total = hashlib.sha256(f"{self.examples.digest} {self.max_tokens} {self.seed}".encode())
        packs = self._packs(0)  # covers the mixture's choice, and the way of packing
        total.update(np.ascontiguousarray(packs.members).data)
        total.update(np.ascontiguousarray(packs.bounds).data)
        return total.hexdigest()
