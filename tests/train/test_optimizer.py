"""The optimizer equals torch's own on the same gradients, and goes on exactly from its saved tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from picollm.model.llama import Model
from picollm.train.config import TrainConfig
from picollm.train.optimizer import Optimizer, is_hidden_matrix


def _fill_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter).normal_(generator=generator)


def _config(**changes: object) -> TrainConfig:
    return TrainConfig(**{"num_steps": 3, "learning_rate": 1e-2, "embedding_learning_rate": 3e-3, **changes})


def test_hidden_matrices_are_those_between_hidden_states(new_model: Callable[..., Model]) -> None:
    model = new_model(tie_word_embeddings=False)
    rest = {name for name, parameter in model.named_parameters() if not is_hidden_matrix(name, parameter)}
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= rest
    assert not any(".mlp." in name or "_proj" in name for name in rest)


def test_adamw_equals_torch_with_the_same_groups(new_model: Callable[..., Model]) -> None:
    ours, theirs = new_model(), new_model()
    config = _config(optimizer="adamw")
    optimizer = Optimizer(dict(ours.named_parameters()), config)
    hidden = {id(p): is_hidden_matrix(n, p) for n, p in theirs.named_parameters()}
    groups = [
        {"params": [p for p in theirs.parameters() if hidden[id(p)]], "lr": 1e-2, "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if not hidden[id(p)]], "lr": 3e-3, "weight_decay": 0.0},
    ]
    truth = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-10)
    peaks = [group["lr"] for group in truth.param_groups]
    for step, factor in enumerate((1.0, 0.5)):
        for model in (ours, theirs):
            _fill_gradients(model, step)
        optimizer.step(factor)
        for group, peak in zip(truth.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        truth.step()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_saved_tensors_continue_bit_for_bit(new_model: Callable[..., Model], name: str) -> None:
    config = _config(optimizer=name)
    straight, resumed = new_model(), new_model()
    optimizer = Optimizer(dict(straight.named_parameters()), config)
    for step in range(2):
        _fill_gradients(straight, step)
        optimizer.step(1.0)
    resumed.load_state_dict(straight.state_dict())
    again = Optimizer(dict(resumed.named_parameters()), config)
    again.load((key, tensor.clone()) for key, tensor in optimizer.tensors().items())
    for model, one in ((straight, optimizer), (resumed, again)):
        _fill_gradients(model, 9)
        one.step(0.7)
    assert all(a.equal(b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))
    assert any(not a.equal(b) for a, b in zip(straight.parameters(), new_model().parameters(), strict=True))


def test_gradients_are_forgotten_after_a_step(model: Model) -> None:
    optimizer = Optimizer(dict(model.named_parameters()), _config(optimizer="muon"))
    _fill_gradients(model, 0)
    optimizer.step(1.0)
    assert all(parameter.grad is None for parameter in model.parameters())
