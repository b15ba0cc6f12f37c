"""Impossible settings are one line that names the value and what is legal."""

from __future__ import annotations

import pytest

from picollm.errors import InputError
from picollm.train.config import OUTPUT_FIELDS, TrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one"),
        ({"epochs": 1, "num_steps": 5}, "exactly one"),
        ({"num_steps": 0}, "num_steps is 0; it must be positive"),
        ({"epochs": -1}, "epochs is -1"),
        ({"num_steps": 1, "learning_rate": 1e5}, "learning_rate is 100000; .* Usual"),
        ({"num_steps": 1, "beta2": 1.5}, "beta2 is 1.5; it must be a share"),
        ({"epochs": float("inf")}, "epochs is inf; it must be positive"),
        ({"epochs": 1e7}, "epochs is 1e\\+07; at most 1000"),
        ({"num_steps": 1, "max_seconds": float("inf")}, "max_seconds is inf"),
        ({"num_steps": 1, "learning_rate": float("nan")}, "learning_rate is nan"),
        ({"num_steps": 1, "beta1": 1.0}, "beta1 is 1; an optimizer that never forgets"),
        ({"num_steps": 1, "weight_decay": float("inf")}, "weight_decay is inf"),
        ({"num_steps": 1, "weight_decay": -0.1}, "weight_decay is -0.1; it must be 0 or more"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        TrainConfig(**settings)
    assert "\n" not in str(error.value)


def test_what_is_written_may_change_between_two_parts_of_a_run() -> None:
    one = TrainConfig(num_steps=5).learning()
    assert TrainConfig(num_steps=5, save_every=1, log_every=3, keep_states=9).learning() == one
    assert TrainConfig(num_steps=5, learning_rate=2e-3).learning() != one
    assert not OUTPUT_FIELDS & one.keys()
