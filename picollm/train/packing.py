"""Which examples share a batch: whole examples, each exactly once, every batch a mixture of lengths.

Examples are taken in a random order, a window at a time; inside a window the longest is placed first, each
into the emptiest batch. No example is put back, so none can starve. Best-fit decreasing alone fills 0.2 %
better, but puts the longest conversations into one batch and the shortest into another: unlike steps.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from picollm.errors import ContextError

Int64s = npt.NDArray[np.int64]
BATCHES_PER_WINDOW = 256  # one batch in 256 may stay half empty: 99.8 % fill at best
GAP_FILLERS = 0.05  # share of the tokens, in the smallest examples, that is kept to fill gaps


@dataclass(frozen=True)
class Packs:
    """Groups of example indices: group ``i`` is ``members[bounds[i]:bounds[i + 1]]``."""

    members: Int64s
    bounds: Int64s

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> Int64s:
        return self.members[self.bounds[index] : self.bounds[index + 1]]


def spread(costs: Sequence[int], capacity: int) -> list[list[int]]:
    """Return groups of positions in ``costs``, each group costing at most ``capacity``, all of similar cost.

    Starts with as many groups as a perfect packing has and adds one where nothing has room: longest
    processing time first (Graham 1969) under a capacity. The smallest examples, which come last, fill the
    gaps: each goes where it fits best.
    """
    groups: list[list[int]] = [[] for _ in range(max(1, math.ceil(sum(costs) / capacity)))]
    rooms = [(capacity, number) for number in range(len(groups))]  # always sorted
    left = sum(costs)
    gap_fillers = left * GAP_FILLERS
    for position in np.argsort(-np.asarray(costs, np.int64), kind="stable").tolist():
        cost = costs[position]
        at = bisect_left(rooms, (cost, 0)) if left < gap_fillers else len(rooms) - 1
        if at < len(rooms) and rooms[at][0] >= cost:
            room, number = rooms.pop(at)
        else:
            room, number = capacity, len(groups)
            groups.append([])
        groups[number].append(position)
        insort(rooms, (room - cost, number))
        left -= cost
    return [group for group in groups if group]


def divide(costs: Sequence[int], num_groups: int) -> list[list[int]]:
    """Return positions in ``costs`` in ``num_groups`` groups of similar cost, some of them perhaps empty.

    >>> divide([5, 3, 3, 2], 2)
    [[0, 3], [1, 2]]
    """
    groups: list[list[int]] = [[] for _ in range(num_groups)]
    loads = [0] * num_groups
    for position in np.argsort(-np.asarray(costs, np.int64), kind="stable").tolist():
        number = loads.index(min(loads))
        groups[number].append(position)
        loads[number] += costs[position]
    return groups


def pack(costs: Int64s, capacity: int, rng: np.random.Generator) -> Packs:
    """Return every index of ``costs`` exactly once, in random groups that cost at most ``capacity`` each.

    Raises:
        ContextError: when one example alone costs more than ``capacity``.
    """
    if len(costs) and int(costs.max()) > capacity:
        worst = int(costs.argmax())
        raise ContextError(
            f"example {worst} takes {int(costs[worst])} tokens, a batch holds {capacity}. "
            f"Raise the batch to at least {int(costs[worst])} tokens, or drop or split what is longer."
        )
    order = rng.permutation(len(costs))
    window = (
        max(1024, int(BATCHES_PER_WINDOW * capacity / max(1.0, float(costs.mean())))) if len(costs) else 1
    )
    groups: list[Int64s] = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        groups += [part[group] for group in spread(costs[part].tolist(), capacity)]
    shuffled = [groups[i] for i in rng.permutation(len(groups))]
    bounds = np.cumsum([0, *map(len, shuffled)], dtype=np.int64)
    return Packs(np.concatenate(shuffled) if shuffled else np.empty(0, np.int64), bounds)
