"""One optimizer step's gradient: the exact mean over every supervised token of the step, however it was cut.

T tokens, S supervised positions, E width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from picollm.train.batches import NO_TARGET, Batch
from picollm.train.loss import summed_cross_entropy
from picollm.train.precision import Weights
from picollm.train.sharding import ShardedWeights


def summed_loss(model: Any, batch: Batch, scale: float = 1.0) -> Tensor:
    """Return ``scale`` times the loss of a batch summed over its targets.

    Positions without a target never reach the head.
    """
    select_S, targets_S = None, batch.targets
    if batch.num_targets < len(batch.ids):
        select_S = (batch.targets != NO_TARGET).nonzero().squeeze(-1)
        targets_S = batch.targets[select_S]
    hidden_SE = model.hidden(batch.ids, batch.positions, select_S)
    return summed_cross_entropy(hidden_SE, model.lm_head_weight, targets_S, scale)


def accumulate(
    model: Any, weights: Weights | ShardedWeights, batches: Iterable[Batch], num_targets: int
) -> Tensor:
    """Return the summed loss of ``batches``; add the gradient of that sum / ``num_targets`` to the masters.

    ``num_targets`` counts the supervised tokens of the whole step on every process, so that gradients of
    micro-batches and of processes simply add up.
    """
    total = torch.zeros((), dtype=torch.float32, device=next(iter(weights.masters.values())).device)
    for batch in batches:
        loss = summed_loss(model, batch.to(total.device), 1 / num_targets)
        if not batch.num_targets:  # computed only because other processes wait for it
            loss = loss * 0.0
        loss.backward()  # type: ignore[no-untyped-call]
        weights.collect()
        total += loss.detach()
    return total * num_targets
