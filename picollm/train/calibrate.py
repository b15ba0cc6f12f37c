"""What this machine is good at, measured in a second or two at the start of a run."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch

from picollm.train.batches import Batch
from picollm.train.precision import Precision, Weights
from picollm.train.step import accumulate

LEAST_GAIN = 1.1


def faster_precision(model: Any, batch: Batch) -> Precision:
    """Return the precision in which ``batch`` goes forward and backward faster; fp32 unless bf16 gains 10 %.

    The model itself is not touched. CPU time is compared, which other programs on the machine disturb less.
    """
    return "bf16" if _cost(model, batch, "fp32") > LEAST_GAIN * _cost(model, batch, "bf16") else "fp32"


def _cost(model: Any, batch: Batch, precision: Precision) -> float:
    device = next(model.parameters()).device
    trial = copy.deepcopy(model)
    weights = Weights(trial, precision)
    batch = batch.to(device)
    best = float("inf")
    for _ in range(3):
        start = _clock(device)
        accumulate(trial, weights, [batch], batch.num_targets)
        best = min(best, _clock(device) - start)
    return best


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()
