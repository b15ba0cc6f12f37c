"""Cross-entropy of the language model head, summed, with never more than a chunk of logits alive.

S supervised positions, C positions of one chunk, E width, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from picollm.model.kernels import cross_entropy_

CHUNK_ELEMENTS = 1 << 21  # 8 MiB of fp32 logits stay in the last-level cache of a CPU
LEAST_ROWS = 512  # below this, adding up the weight's gradient costs more than the logits


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are computed on the way forward, while a chunk of logits is in the cache.

    The buffers are reused from chunk to chunk: fresh memory costs page faults.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_SE: Tensor, weight_VE: Tensor, targets_S: Tensor, rows: int, scale: float
    ) -> Tensor:
        logits_CV = hidden_SE.new_empty(rows, len(weight_VE))
        d_hidden_SE = torch.empty_like(hidden_SE)
        d_weight_VE: Tensor | None = None
        loss = hidden_SE.new_zeros((), dtype=torch.float32)
        parts = (torch.split(tensor, rows) for tensor in (hidden_SE, targets_S, d_hidden_SE))
        for hidden_CE, targets_C, d_hidden_CE in zip(*parts, strict=True):
            logits = logits_CV[: len(targets_C)]
            torch.mm(hidden_CE, weight_VE.T, out=logits)
            loss += cross_entropy_(logits, targets_C, scale)
            torch.mm(logits, weight_VE, out=d_hidden_CE)
            if not ctx.needs_input_grad[1]:  # an adapter beside a frozen head
                continue
            d_chunk_VE = logits.T @ hidden_CE
            d_weight_VE = d_chunk_VE if d_weight_VE is None else d_weight_VE.add_(d_chunk_VE)
        ctx.save_for_backward(d_hidden_SE, d_weight_VE)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden_SE, d_weight_VE = ctx.saved_tensors
        if grads[0] != 1:  # a pass over the largest matrix
            d_hidden_SE = d_hidden_SE * grads[0]
            d_weight_VE = None if d_weight_VE is None else d_weight_VE * grads[0]
        return d_hidden_SE, d_weight_VE, None, None, None


def summed_cross_entropy(
    hidden_SE: Tensor, weight_VE: Tensor, targets_S: Tensor, scale: float = 1.0
) -> Tensor:
    """Return ``scale`` times the sum over S of -log softmax(hidden @ weight.T)[target], a scalar in fp32.

    Every target must be a real one: positions without a target are left out before the model's last step.
    """
    num_chunks = math.ceil(len(targets_S) / max(LEAST_ROWS, CHUNK_ELEMENTS // len(weight_VE)))
    rows = math.ceil(len(targets_S) / max(1, num_chunks))
    if torch.is_grad_enabled():
        loss: Tensor = _LinearCrossEntropy.apply(hidden_SE, weight_VE, targets_S, rows, scale)  # type: ignore[no-untyped-call]
        return loss
    total = hidden_SE.new_zeros((), dtype=torch.float32)
    for hidden_CE, targets_C in zip(torch.split(hidden_SE, rows), torch.split(targets_S, rows), strict=True):
        total += torch.nn.functional.cross_entropy(
            (hidden_CE @ weight_VE.T).float(), targets_C, reduction="sum"
        )
    return total * scale
