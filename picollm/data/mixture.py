"""What SFT is made of, and in which order it is seen.

A mixture is the list of ``[[mixture]]`` tables in a recipe's TOML file, one per source, each saying why it is
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from picollm.errors import InputError


@dataclass(frozen=True)
class Source:
    """One part of a mixture."""

    task: str
    """The task that turns rows into conversations: smoltalk, identity, mmlu, gsm8k, spelling, ..."""
    location: str | None = None
    """A file, a directory below --data-root, or ``hub:org/name@revision``; left out, the task's own place."""
    split: str = "train"
    """Which rows: train, validation or test."""
    weight: float = 1.0
    """How often each row is seen in one epoch: 2.0 twice, 0.5 every second row (another half each epoch)."""
    limit: int | None = None
    """At most this many rows of the source."""
    why: str = ""
    """What this part is there for, in words."""

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 100:
            raise InputError(
                f"mixture source {self.task!r} has weight {self.weight}; expected epochs: above 0, up to 100."
            )
        if self.limit is not None and self.limit < 1:
            raise InputError(f"mixture source {self.task!r} has limit {self.limit}; expected at least 1 row.")


def plan(num_rows: Sequence[int], weights: Sequence[float], seed: int, epoch: int) -> np.ndarray:
    """Return the order of one epoch as ``[N, 2]`` pairs (source, row), a pure function of (seed, epoch).

    A source of weight ``w`` contributes each of its rows ``floor(w)`` times, and a share ``w - floor(w)`` of
    them once more. Which those are rotates from epoch to epoch: weight 0.5 sees everything in two epochs.
    """
    parts = []
    for source, (count, weight) in enumerate(zip(num_rows, weights, strict=True)):
        whole = int(weight)
        part = round((weight - whole) * count)
        once = np.random.default_rng([seed, source]).permutation(count)
        extra = np.take(once, np.arange(epoch * part, (epoch + 1) * part), mode="wrap") if part else once[:0]
        rows = np.concatenate([np.tile(np.arange(count), whole), extra])
        parts.append(np.stack([np.full(len(rows), source), rows], axis=1))
    pairs = np.concatenate(parts) if parts else np.empty((0, 2), dtype=np.int64)
    return pairs[np.random.default_rng([seed, epoch, len(pairs)]).permutation(len(pairs))].astype(np.int64)
