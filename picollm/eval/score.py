"""A score with its uncertainty, and the small statistics behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Interval = tuple[float, float]

_Z_95 = 1.959963984540054


def wilson_interval(num_right: int, num: int) -> Interval:
    """Return the 95% interval of a share of ``num_right`` in ``num`` trials.

    Wilson's score interval (1927): unlike ``p +- 2 sigma`` it stays inside [0, 1] and keeps a width at 0%
    and 100%, which is where small tasks live. ``num == 0`` knows nothing: (0, 1).
    """
    if num == 0:
        return (0.0, 1.0)
    share, z2 = num_right / num, _Z_95**2
    center = (share + z2 / (2 * num)) / (1 + z2 / num)
    half = _Z_95 / (1 + z2 / num) * math.sqrt(share * (1 - share) / num + z2 / (4 * num**2))
    low = 0.0 if num_right == 0 else max(0.0, center - half)
    high = 1.0 if num_right == num else min(1.0, center + half)
    return (low, high)


def bootstrap_interval(values: Sequence[float], *, seed: int = 0, num_resamples: int = 2000) -> Interval:
    """Return the 95% percentile-bootstrap interval of the mean of ``values`` (Efron 1979).

    For paired differences pass one difference per item: resampling items keeps every pair together.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        return (math.nan, math.nan)
    rng = np.random.default_rng(seed)
    means = sample[rng.integers(0, sample.size, size=(num_resamples, sample.size))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return (float(low), float(high))


def bootstrap_ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int = 0, num_resamples: int = 2000
) -> Interval:
    """Return the 95% bootstrap interval of ``sum(numerators) / sum(denominators)`` over resampled items.

    A loss per token is such a ratio: the items drawn are conversations, not tokens, because the tokens of one
    conversation are not independent.
    """
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if above.size == 0 or below.sum() == 0:
        return (math.nan, math.nan)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, above.size, size=(num_resamples, above.size))
    below_sums = below[drawn].sum(axis=1)
    known = below_sums > 0
    low, high = np.percentile(above[drawn].sum(axis=1)[known] / below_sums[known], [2.5, 97.5])
    return (float(low), float(high))


@dataclass(frozen=True)
class Share:
    """The share of right answers, of all items or of one group (a subject, a kind of fact).

    ``value`` is that share, ``interval`` its 95% Wilson interval; both follow from the counts.
    """

    num_right: int
    num: int
    value: float = field(init=False)
    interval: Interval = field(init=False)

    def __post_init__(self) -> None:
        # A frozen dataclass completes itself through object.__setattr__; as fields, the two reach JSON.
        object.__setattr__(self, "value", self.num_right / self.num if self.num else 0.0)
        object.__setattr__(self, "interval", wilson_interval(self.num_right, self.num))


@dataclass(frozen=True)
class Failure:
    """One item that was answered wrongly, as a person can read it."""

    index: int
    group: str | None
    prompt: str
    reply: str
    expected: str


@dataclass(frozen=True)
class Score(Share):
    """How well one checkpoint did on one task in one form.

    ``form`` is "chat" (the question inside the chat format) or "completion" (a base model's own form).
    ``stop_rate`` is the share of replies that ended by themselves and ``role_leaks`` the number that contain
    a role marker or speak for another role; both are None where nothing was generated. ``num_too_long``
    questions did not fit into the context and count as wrong; ``num_shortened`` were asked with fewer solved
    examples in front than published.
    """

    task: str
    form: str
    chance: float
    seconds: float
    groups: dict[str, Share]
    stop_rate: float | None = None
    role_leaks: int | None = None
    num_too_long: int = 0
    num_shortened: int = 0
    failures: tuple[Failure, ...] = ()

    @property
    def centered(self) -> float:
        """``value`` rescaled so that chance is 0 and perfect is 1; below 0 is worse than guessing."""
        return (self.value - self.chance) / (1.0 - self.chance) if self.chance < 1.0 else 0.0


def chat_core(scores: Sequence[Score]) -> float:
    """Return the mean of the centered scores: one number for a suite, 0 at chance and 1 when perfect."""
    return sum(score.centered for score in scores) / len(scores) if scores else 0.0
