"""The chunked loss equals torch's cross-entropy, in value and in both gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import picollm.train.loss
from picollm.train.loss import summed_cross_entropy


def _plain(hidden_SE: Tensor, weight_VE: Tensor, targets_S: Tensor) -> Tensor:
    logits_SV = (hidden_SE @ weight_VE.T).float()
    return torch.nn.functional.cross_entropy(logits_SV, targets_S, reduction="sum")


def _gradients(loss_of, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = loss_of(hidden, weight, targets)
    (loss / 7).backward()
    return loss.detach(), hidden.grad, weight.grad


def test_a_frozen_head_gets_no_gradient_and_no_product() -> None:
    hidden = torch.randn(40, 8, requires_grad=True)
    weight, targets = torch.randn(16, 8), torch.arange(40) % 16
    with FlopCounterMode(display=False) as counter:
        summed_cross_entropy(hidden, weight, targets).backward()
    assert counter.get_total_flops() == 2 * 2 * 40 * 8 * 16
    frozen = hidden.grad.clone()
    hidden.grad = None
    summed_cross_entropy(hidden, weight.requires_grad_(), targets).backward()
    assert hidden.grad.equal(frozen) and weight.grad is not None


@pytest.mark.parametrize("num_targets", [1, 3, 64, 101])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_equal_torch(monkeypatch, num_targets: int, precision: torch.dtype) -> None:
    monkeypatch.setattr(picollm.train.loss, "CHUNK_ELEMENTS", 16 * 50)
    monkeypatch.setattr(picollm.train.loss, "LEAST_ROWS", 1)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_targets, 24, generator=generator).to(precision)
    weight = torch.randn(50, 24, generator=generator).to(precision)
    targets = torch.randint(50, (num_targets,), generator=generator)
    ours = _gradients(summed_cross_entropy, hidden, weight, targets)
    truth = _gradients(_plain, hidden.double(), weight.double(), targets)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if precision == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    for our, true in zip(ours, truth, strict=True):
        torch.testing.assert_close(our.double(), true.double(), **tolerance)
    with torch.no_grad():
        torch.testing.assert_close(
            summed_cross_entropy(hidden, weight, targets), ours[0], rtol=1e-5, atol=1e-5
        )


def test_certain_and_hopeless_predictions_stay_finite() -> None:
    hidden, weight = torch.tensor([[1000.0], [-1000.0]]), torch.tensor([[1.0], [-1.0]])
    loss, d_hidden, d_weight = _gradients(summed_cross_entropy, hidden, weight, torch.tensor([0, 0]))
    assert loss == 2000.0
    assert torch.isfinite(d_hidden).all()
    assert torch.isfinite(d_weight).all()
