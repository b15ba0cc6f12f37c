"""What this machine is good at, measured in a second or two at the start of a run."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from picollm.model.config import ModelConfig
from picollm.model.kernels import linear
from picollm.train.batches import Batch
from picollm.train.precision import DTYPES, Precision, Weights
from picollm.train.step import accumulate

LEAST_GAIN = 1.1
ROWS = 2048
ROUNDS = 5


def clock(device: torch.device) -> float:
    """Return how many seconds ``device`` has worked for this process: a difference of two is what counts.

    On a CPU it is the CPU time of all threads: other programs on the machine disturb it less than wall time.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def faster_precision(model: Any, batch: Batch) -> Precision:
    """Return the precision in which ``batch`` goes forward and backward faster; fp32 unless bf16 gains 10 %.

    The model itself is not touched.
    """
    return "bf16" if _cost(model, batch, "fp32") > LEAST_GAIN * _cost(model, batch, "bf16") else "fp32"


def _cost(model: Any, batch: Batch, precision: Precision) -> float:
    device = next(model.parameters()).device
    trial = copy.deepcopy(model)
    weights = Weights(trial, precision)
    batch = batch.to(device)
    best = float("inf")
    for _ in range(3):
        start = clock(device)
        accumulate(trial, weights, [batch], batch.num_targets)
        best = min(best, clock(device) - start)
    return best


def matrix_rate(config: ModelConfig, precision: Precision, device: torch.device) -> float:
    """Return the operations per ``clock`` second that products of the model's own shapes reach at best.

    Of every matrix the three products of a step: its output, and the gradients of its input and of itself.
    """
    width, inner = config.hidden_size, config.intermediate_size
    seconds = flops = 0.0
    for fan_in, fan_out in ((width, width), (width, inner), (inner, width), (width, config.vocab_size)):
        ones = partial(torch.ones, device=device, dtype=DTYPES[precision])
        weight, x, grad = ones(fan_out, fan_in), ones(ROWS, fan_in), ones(ROWS, fan_out)
        for ways in (
            (partial(linear, x, weight, None), partial(nn.functional.linear, x, weight)),
            (partial(linear, grad, weight.T, None), partial(torch.mm, grad, weight)),
            (partial(torch.mm, grad.T, x),),
        ):
            seconds += min(_seconds(way, device) for way in ways for _ in range(ROUNDS))
            flops += 2.0 * ROWS * fan_in * fan_out
    return flops / seconds


def _seconds(product: Callable[[], object], device: torch.device) -> float:
    start = clock(device)
    product()
    return clock(device) - start
