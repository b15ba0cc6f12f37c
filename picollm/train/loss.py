"""Cross-entropy of the language model head, summed, with never more than a chunk of logits alive.

S supervised positions, C positions of one chunk, E width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 21  # logits alive at once; 8 MiB in fp32 stays in the last-level cache of a CPU


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are computed on the way forward, while a chunk of logits is in the cache."""

    @staticmethod
    def forward(ctx: Any, hidden_SE: Tensor, weight_VE: Tensor, targets_S: Tensor, rows: int) -> Tensor:
        d_hidden_SE = torch.empty_like(hidden_SE)
        d_weight_VE: Tensor | None = None
        loss = hidden_SE.new_zeros((), dtype=torch.float32)
        for hidden_CE, targets_C, d_hidden_CE in zip(
            torch.split(hidden_SE, rows),
            torch.split(targets_S, rows),
            torch.split(d_hidden_SE, rows),
            strict=True,
        ):
            logits_CV = hidden_CE @ weight_VE.T
            log_p_CV = torch.log_softmax(logits_CV, -1, dtype=torch.float32)
            at_target = targets_C.unsqueeze(-1)
            loss -= log_p_CV.gather(-1, at_target).sum()
            p_CV = log_p_CV.exp_()
            p_CV.scatter_add_(-1, at_target, p_CV.new_full((1, 1), -1.0).expand(len(targets_C), 1))
            d_logits_CV = p_CV.to(hidden_SE.dtype)
            torch.mm(d_logits_CV, weight_VE, out=d_hidden_CE)
            d_chunk_VE = d_logits_CV.T @ hidden_CE
            d_weight_VE = d_chunk_VE if d_weight_VE is None else d_weight_VE.add_(d_chunk_VE)
        ctx.save_for_backward(d_hidden_SE, d_weight_VE)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_hidden_SE, d_weight_VE = ctx.saved_tensors
        return d_hidden_SE.mul_(grads[0]), d_weight_VE.mul_(grads[0]), None, None


def summed_cross_entropy(hidden_SE: Tensor, weight_VE: Tensor, targets_S: Tensor) -> Tensor:
    """Return the sum over S of -log softmax(hidden @ weight.T)[target], a scalar in fp32.

    Every target must be a real one: positions without a target are left out before the model's last step.
    """
    rows = max(1, CHUNK_ELEMENTS // weight_VE.shape[0])
    if not torch.is_grad_enabled():
        total = hidden_SE.new_zeros((), dtype=torch.float32)
        for hidden_CE, targets_C in zip(
            torch.split(hidden_SE, rows), torch.split(targets_S, rows), strict=True
        ):
            total += torch.nn.functional.cross_entropy(
                (hidden_CE @ weight_VE.T).float(), targets_C, reduction="sum"
            )
        return total
    loss: Tensor = _LinearCrossEntropy.apply(hidden_SE, weight_VE, targets_S, rows)  # type: ignore[no-untyped-call]
    return loss
