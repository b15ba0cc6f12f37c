"""The plan of a run: how steps are cut into batches, where it ends, and what makes it this run."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch

from picollm.errors import InputError
from picollm.train.batches import Batches
from picollm.train.config import TrainConfig


@dataclass(frozen=True)
class Plan:
    """Which batches each step takes: ``batches_per_step`` of them, the last step perhaps fewer."""

    batches_per_step: int
    num_batches: int

    @classmethod
    def of(cls, config: TrainConfig, batches: Batches, num_processes: int) -> Plan:
        """Return the plan of a run: the same for any number of processes, which share each step's work.

        Raises:
            InputError: when a step cannot be cut into batches, or there are more processes than examples.
        """
        if num_processes > len(batches.examples):
            raise InputError(
                f"{num_processes} processes have only {len(batches.examples)} examples to share; start "
                f"1 to {len(batches.examples)} of them."
            )
        per_step = batches_per_step(config, batches.max_tokens)
        if config.epochs is not None:
            return cls(per_step, max(1, batches.num_batches(config.epochs)))
        steps = config.num_steps or math.ceil((config.num_tokens or 1) / (per_step * batches.max_tokens))
        return cls(per_step, steps * per_step)

    @property
    def num_steps(self) -> int:
        """How many optimizer steps the run takes."""
        return math.ceil(self.num_batches / self.batches_per_step)

    def numbers(self, step: int) -> range:
        """Return the numbers of the batches of ``step``, counted from 0."""
        first = step * self.batches_per_step
        return range(first, min(first + self.batches_per_step, self.num_batches))


def batches_per_step(config: TrainConfig, batch_tokens: int) -> int:
    """Return how many batches of ``batch_tokens`` make up a step.

    Raises:
        InputError: when ``tokens_per_step`` is no multiple of a batch; names the nearest that are.
    """
    wanted = config.tokens_per_step or batch_tokens
    if wanted % batch_tokens:
        below = wanted // batch_tokens * batch_tokens
        nearest = f"{below} or {below + batch_tokens}" if below else str(batch_tokens)
        raise InputError(
            f"tokens_per_step is {wanted}; it must be a multiple of a batch's {batch_tokens} tokens. "
            f"Nearest: {nearest}."
        )
    return wanted // batch_tokens


def identity(
    model: torch.nn.Module, batches: Batches, config: TrainConfig, num_processes: int, beside: str = ""
) -> dict[str, Any]:
    """Return what must agree for a saved state to continue this run; ``beside`` stands for all else."""
    weights = hashlib.sha256()
    for name, parameter in model.named_parameters():
        weights.update(name.encode())
        weights.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return {
        **config.learning(),
        "data": batches.digest,
        "initial weights": weights.hexdigest(),
        "number of processes": num_processes,
        "other settings": beside,
    }
