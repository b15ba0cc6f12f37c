"""Which examples share a batch: whole examples, each exactly once, best fit first.

Examples are taken in a random order, a window at a time; inside a window the longest is placed first, each
into the fullest batch that still has room (best-fit decreasing). No example is put back, so none can starve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from picollm.errors import ContextError

Int64s = npt.NDArray[np.int64]
BATCHES_PER_WINDOW = (
    256  # one batch in 256 is left half empty: 99.8 % fill at best, and still a random mixture
)


@dataclass(frozen=True)
class Packs:
    """Groups of example indices: group ``i`` is ``members[bounds[i]:bounds[i + 1]]``."""

    members: Int64s
    bounds: Int64s

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> Int64s:
        return self.members[self.bounds[index] : self.bounds[index + 1]]


def best_fit_decreasing(costs: Sequence[int], capacity: int) -> list[list[int]]:
    """Return groups of positions in ``costs``, each group costing at most ``capacity``.

    ``open_`` is a bit set: bit ``r`` says that some group has exactly ``r`` free. The lowest set bit at or
    above a cost is the best fit, found without a search.
    """
    with_room: list[list[list[int]]] = [[] for _ in range(capacity + 1)]
    open_ = 0
    groups: list[list[int]] = []
    for position in np.argsort(-np.asarray(costs, np.int64), kind="stable").tolist():
        cost = costs[position]
        fitting = open_ >> cost
        if fitting:
            room = cost + (fitting & -fitting).bit_length() - 1
            group = with_room[room].pop()
            if not with_room[room]:
                open_ ^= 1 << room
        else:
            room = capacity
            group = []
            groups.append(group)
        group.append(position)
        with_room[room - cost].append(group)
        open_ |= 1 << (room - cost)
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
        groups += [part[group] for group in best_fit_decreasing(costs[part].tolist(), capacity)]
    shuffled = [groups[i] for i in rng.permutation(len(groups))]
    bounds = np.cumsum([0, *map(len, shuffled)], dtype=np.int64)
    return Packs(np.concatenate(shuffled) if shuffled else np.empty(0, np.int64), bounds)
