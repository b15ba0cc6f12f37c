"""The learning rate over a run, as a multiple of its peak."""

from __future__ import annotations

import math

from picollm.train.config import TrainConfig


def learning_rate_factor(config: TrainConfig, step: int, num_steps: int) -> float:
    """Return what to multiply the peak learning rate with at ``step`` (from 0) of ``num_steps``.

    >>> config = TrainConfig(num_steps=10, warmup_steps=2, schedule="linear")
    >>> [round(learning_rate_factor(config, step, 10), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 0.88, 0.75, 0.62, 0.5, 0.38, 0.25, 0.12]
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "cosine":
        left = 0.5 + 0.5 * math.cos(math.pi * done)
    elif config.schedule == "linear":
        left = 1.0 - done
    else:
        left = min(1.0, (1.0 - done) / max(config.decay_fraction, 1e-9))
    return config.final_fraction + (1.0 - config.final_fraction) * left
