"""Masters stay fp32, the model computes with their current copies, and gets the masters back at the end."""

from __future__ import annotations

import pytest
import torch

from picollm.model.llama import Model
from picollm.train import calibrate
from picollm.train.precision import Weights
from picollm.train.sharding import idle_batch


@pytest.mark.parametrize(("fp32", "bf16", "taken"), [(3.0, 2.0, "bf16"), (2.1, 2.0, "fp32"), (2, 3, "fp32")])
def test_the_faster_precision_is_the_measured_one(
    model: Model, monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float, taken: str
) -> None:
    seconds = {"fp32": fp32, "bf16": bf16}
    monkeypatch.setattr(calibrate, "_cost", lambda model, batch, precision: seconds[precision])
    assert calibrate.faster_precision(model, idle_batch()) == taken


def test_in_fp32_masters_are_the_parameters_themselves(model: Model) -> None:
    weights = Weights(model, "fp32")
    assert not weights.separate
    assert all(weights.masters[name] is parameter for name, parameter in model.named_parameters())


def test_in_bf16_the_model_computes_with_copies_of_the_masters(model: Model) -> None:
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    weights = Weights(model, "bf16")
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert weights.masters[name].equal(before[name])
    with torch.no_grad():
        for master in weights.masters.values():
            master.add_(0.25)
    weights.publish()
    for name, parameter in model.named_parameters():
        assert parameter.equal((before[name] + 0.25).bfloat16())


def test_full_precision_is_a_view_for_a_while_and_then_for_good(model: Model) -> None:
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    weights = Weights(model, "bf16")
    with weights.in_full():
        assert all(parameter.equal(before[name]) for name, parameter in model.named_parameters())
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    weights.restore()
    assert all(parameter.equal(before[name]) for name, parameter in model.named_parameters())


def test_gradients_of_micro_batches_add_up_in_fp32(model: Model) -> None:
    weights = Weights(model, "bf16")
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1 / 256)
        model.model.norm.weight.grad = torch.full_like(model.model.norm.weight, 1.0)
        weights.collect()
        assert all(parameter.grad is None for parameter in model.parameters())
    assert weights.masters["model.norm.weight"].grad.eq(2.0).all()
    assert weights.masters["model.embed_tokens.weight"].grad.eq(2 / 256).all()
