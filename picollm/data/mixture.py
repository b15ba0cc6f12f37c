"""What SFT is made of, and in which order it is seen.

A mixture is the list of ``[[mixture]]`` tables in a recipe's TOML file, one per source, each saying why it is
there. With ``[[stage]]`` tables the epochs of a run differ: a curriculum, in which later stages may replay
rows of earlier ones. Everything about the order is a pure function of (seed, epoch).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from picollm.errors import InputError

MAX_EPOCHS = 100.0


@dataclass(frozen=True)
class Source:
    """One part of a mixture."""

    task: str
    """The task that turns rows into conversations: smoltalk, identity, mmlu, gsm8k, spelling, ..."""
    location: str | None = None
    """A file, a directory below --data-root, or ``hub:org/name@revision``; left out, the task's own place."""
    split: str = "train"
    """Which rows: only those of ``train`` are there to learn from."""
    weight: float = 1.0
    """How often each row is seen in one epoch: 2.0 twice, 0.5 every second row (another half each epoch)."""
    share: float | None = None
    """In place of ``weight``: the part of an epoch, by rows or by supervised tokens (``sft.shares``)."""
    limit: int | None = None
    """At most this many rows of the source."""
    filter: dict[str, Any] = field(default_factory=dict)
    """Only rows whose columns have these values: ``{ source = ["everyday-conversations", "magpie"] }``."""
    sha256: str | None = None
    """What the data must be, as ``picollm mixture show`` prints it; other data are refused."""
    why: str = ""
    """What this part is there for, in words."""
    name: str | None = None
    """What stages and reports call it; left out, the task's name."""

    def __post_init__(self) -> None:
        if not 0 < self.weight <= MAX_EPOCHS:
            raise InputError(
                f"mixture source {self.label!r} has weight {self.weight}; "
                "expected epochs: above 0, up to 100."
            )
        if self.share is not None and not (0 < self.share <= 1 and self.weight == 1.0):
            raise InputError(
                f"mixture source {self.label!r} has share {self.share} and weight {self.weight}; "
                "expected a share above 0, up to 1, and then no weight."
            )
        if self.split in ("validation", "test"):
            raise InputError(
                f"mixture source {self.label!r} is to learn from the {self.split} split, which is there to "
                'judge by. Leave split out, or say split = "train".'
            )
        if self.limit is not None and self.limit < 1:
            raise InputError(
                f"mixture source {self.label!r} has limit {self.limit}; expected at least 1 row."
            )

    @property
    def label(self) -> str:
        """What the source is called."""
        return self.name or self.task


@dataclass(frozen=True)
class CurriculumStage:
    """Epochs of a run that are made of a part of the mixture."""

    name: str
    sources: tuple[str, ...]
    """Names of mixture sources."""
    epochs: int = 1
    """How many epochs in a row."""
    replay: float = 0.0
    """The share of each epoch's rows that comes from the sources of earlier stages, as they are weighted."""
    why: str = ""
    """What this stage is there for, in words."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.sources:
            raise InputError(
                f"stage {self.name!r} has {self.epochs} epochs of {len(self.sources)} sources; "
                "expected at least one of each."
            )
        if not 0 <= self.replay < 1:
            raise InputError(f"stage {self.name!r} has replay {self.replay}; expected a share below 1.")


def check_mixture(sources: Sequence[Source], stages: Sequence[CurriculumStage]) -> None:
    """Return when the stages name sources of the mixture, each of which has a name of its own.

    Raises:
        InputError: They do not; the text names the first wrong one.
    """
    labels = [source.label for source in sources]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"two mixture sources are called {label!r}; give one of them another 'name'.")
    shares = sum(source.share or 0.0 for source in sources)
    if shares > 1 + 1e-9 or (shares > 1 - 1e-9 and any(source.share is None for source in sources)):
        raise InputError(
            f"the shares of the mixture add up to {shares:.4g}; "
            "expected 1, or less beside sources with weights."
        )
    if sources and all(source.share for source in sources) and shares < 1 - 1e-9:
        raise InputError(f"every source has a share, and they add up to {shares:.4g}; expected 1.")
    for number, stage in enumerate(stages):
        for name in stage.sources:
            if name not in labels:
                raise InputError(
                    f"stage {stage.name!r} names {name!r}; the mixture has {', '.join(labels) or 'nothing'}."
                )
        if stage.replay and not number:
            raise InputError(f"stage {stage.name!r} is the first; it has nothing to replay.")


def epochs_of(sources: Sequence[Source], amounts: Sequence[float]) -> list[float]:
    """Return how often each row of each source is seen in one epoch of the whole mixture.

    ``amounts`` are what shares are measured in: rows, or supervised tokens, of each source. Beside weights,
    shares are made up to them; where every source has a share, the epoch is the longest that repeats nothing.

    >>> epochs_of([Source("smoltalk"), Source("identity", share=0.2)], [800, 100])
    [1.0, 2.0]

    Raises:
        InputError: A share cannot be reached by seeing every row ``MAX_EPOCHS`` times.
    """
    weighted = sum(s.weight * a for s, a in zip(sources, amounts, strict=True) if s.share is None)
    shared = [(source.share, amount) for source, amount in zip(sources, amounts, strict=True) if source.share]
    if weighted:
        total = weighted / (1 - sum(share for share, _ in shared))
    else:
        total = min((amount / share for share, amount in shared), default=0.0)
    found = []
    for source, amount in zip(sources, amounts, strict=True):
        epochs = source.weight if source.share is None else source.share * total / amount
        if epochs > MAX_EPOCHS:
            raise InputError(
                f"mixture source {source.label!r} would be seen {epochs:.0f} times an epoch to reach its "
                f"share of {source.share}; give it a smaller share, or more rows."
            )
        found.append(float(epochs))
    return found


def check_epochs(sources: Sequence[Source], epochs: Sequence[float], num_rows: Sequence[int]) -> None:
    """Return when an epoch has at least one row of every source: nothing of a mixture is silently absent.

    Raises:
        InputError: It has not; the text names the smallest weight that will do.
    """
    for source, often, count in zip(sources, epochs, num_rows, strict=True):
        if often * count < 1:
            raise InputError(
                f"mixture source {source.label!r} would be seen {often:g} times an epoch: of {count} rows, "
                f"less than one. Give it weight {math.ceil(1e4 / count) / 1e4:g} or more, or leave it out."
            )


def plan(num_rows: Sequence[int], weights: Sequence[float], seed: int, epoch: int) -> npt.NDArray[np.int64]:
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


def stage_of(stages: Sequence[CurriculumStage], epoch: int) -> int:
    """Return the number of the stage that ``epoch`` belongs to; the last one goes on for ever."""
    ends = np.cumsum([stage.epochs for stage in stages])
    return min(int(np.searchsorted(ends, epoch, side="right")), len(stages) - 1)


def plan_curriculum(
    sources: Sequence[Source],
    stages: Sequence[CurriculumStage],
    num_rows: Sequence[int],
    weights: Sequence[float],
    seed: int,
    epoch: int,
) -> npt.NDArray[np.int64]:
    """Return ``plan`` of the stage of ``epoch``, with the rows it replays; without stages, of everything.

    A stage sees its sources by their weights. Of what its predecessors are made of it takes so many rows,
    at random and anew in each epoch, that they are the share ``replay`` of all.
    """
    if not stages:
        return plan(num_rows, weights, seed, epoch)
    number = stage_of(stages, epoch)
    stage = stages[number]

    def part(names: set[str]) -> npt.NDArray[np.int64]:
        own = [w if s.label in names else 0.0 for s, w in zip(sources, weights, strict=True)]
        return plan(num_rows, own, seed, epoch)

    new = part(set(stage.sources))
    old = part({name for earlier in stages[:number] for name in earlier.sources} - set(stage.sources))
    wanted = round(len(new) * stage.replay / (1 - stage.replay))
    replayed = old[np.arange(wanted) % len(old)] if len(old) else old
    pairs = np.concatenate([new, replayed])
    return pairs[np.random.default_rng([seed, epoch, number, len(pairs)]).permutation(len(pairs))]
