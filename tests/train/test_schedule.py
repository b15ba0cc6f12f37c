"""The learning rate rises, has the named shape, and ends where it should."""

from __future__ import annotations

import itertools

import pytest

from picollm.train.config import TrainConfig
from picollm.train.schedule import learning_rate_factor


def _curve(num_steps: int = 100, **changes: object) -> list[float]:
    config = TrainConfig(num_steps=num_steps, **changes)
    return [learning_rate_factor(config, step, num_steps) for step in range(num_steps + 1)]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "wsd"])
def test_warm_up_ends_at_the_peak(schedule: str) -> None:
    curve = _curve(schedule=schedule, warmup_steps=10)
    assert curve[:10] == [pytest.approx((step + 1) / 10) for step in range(10)]
    assert max(curve) == curve[10] == 1.0


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_decays_end_at_the_final_fraction_without_rising(schedule: str) -> None:
    curve = _curve(schedule=schedule, final_fraction=0.1)
    assert curve[-1] == pytest.approx(0.1)
    assert all(earlier >= later for earlier, later in itertools.pairwise(curve))


def test_wsd_holds_the_peak_until_the_decay() -> None:
    curve = _curve(schedule="wsd", decay_fraction=0.25)
    assert set(curve[:76]) == {1.0}
    assert curve[88] == pytest.approx(0.48)


def test_a_warm_up_longer_than_the_run_is_only_a_warm_up() -> None:
    assert _curve(num_steps=4, warmup_steps=8)[:4] == [0.125, 0.25, 0.375, 0.5]
