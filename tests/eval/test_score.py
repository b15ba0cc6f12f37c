"""The statistics: Wilson's interval solves its equation, bootstrap intervals cover what they should."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picollm.eval.score import (
    Score,
    Share,
    bootstrap_interval,
    bootstrap_ratio_interval,
    chat_core,
    wilson_interval,
)

Z = 1.959963984540054


@given(st.integers(1, 5000).flatmap(lambda num: st.tuples(st.integers(0, num), st.just(num))))
def test_the_ends_of_wilsons_interval_are_1_96_standard_errors_from_the_share(
    counts: tuple[int, int],
) -> None:
    right, num = counts
    low, high = wilson_interval(right, num)
    assert 0 <= low <= right / num <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert abs(right / num - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / num), abs=1e-9)


def test_wilsons_interval_at_published_values() -> None:
    # 81 of 263 is the worked example of Newcombe, Statistics in Medicine 17 (1998), method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_the_bootstrap_interval_of_a_mean_is_near_the_normal_one_and_repeatable() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.5, 400).tolist()
    low, high = bootstrap_interval(values, seed=1)
    half = Z * np.std(values) / math.sqrt(len(values))
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.02)
    assert (low, high) == bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    assert bootstrap_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)
    assert all(map(math.isnan, bootstrap_interval([])))


def test_a_ratio_with_equal_denominators_is_a_mean() -> None:
    values = [1.0, 2.0, 5.0, 3.0]
    assert bootstrap_ratio_interval(values, [2.0] * 4) == pytest.approx(
        tuple(end / 2 for end in bootstrap_interval(values))
    )


def test_centered_scores_are_zero_at_chance_and_one_when_perfect() -> None:
    def score(right: int, chance: float) -> Score:
        return Score(right, 100, "t", "chat", chance, 1.0, {"A": Share(right, 100)})

    assert [score(25, 0.25).centered, score(100, 0.25).centered, score(40, 0.0).centered] == [0.0, 1.0, 0.4]
    assert chat_core([score(25, 0.25), score(100, 0.25)]) == 0.5
    assert score(25, 0.25).groups["A"].interval == score(25, 0.25).interval
