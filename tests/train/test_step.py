"""The gradient of a step does not depend on how its conversations were cut into batches or packed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from picollm.model.llama import Model
from picollm.train.batches import NO_TARGET, Batch, Batches, join
from picollm.train.examples import Examples
from picollm.train.precision import Weights
from picollm.train.step import accumulate, summed_loss


def _gradients(model: Model, batches: list[Batch]) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    num_targets = sum(batch.num_targets for batch in batches)
    loss = accumulate(model, Weights(model, "fp32"), batches, num_targets)
    return float(loss) / num_targets, {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


def _assert_same(one: tuple[float, dict[str, Tensor]], other: tuple[float, dict[str, Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(
            gradient, other[1][name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def _one_by_one(model: Model, examples: Examples) -> tuple[float, dict[str, Tensor]]:
    """The truth: each conversation alone through the model's plain logits and torch's cross-entropy."""
    model.zero_grad(set_to_none=True)
    losses, count = [], 0
    for index in range(len(examples)):
        batch = join(examples, np.array([index]))
        logits = model(batch.ids, batch.positions)
        losses.append(
            torch.nn.functional.cross_entropy(logits, batch.targets, ignore_index=NO_TARGET, reduction="sum")
        )
        count += int((batch.targets != NO_TARGET).sum())
    loss = sum(losses) / count
    loss.backward()
    return float(loss.detach()), {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("tied", [True, False])
def test_packed_equals_each_conversation_alone(
    new_model: Callable[..., Model], examples: Examples, tied: bool
) -> None:
    model = new_model(tie_word_embeddings=tied)
    everything = join(examples, np.arange(len(examples)))
    _assert_same(_gradients(model, [everything]), _one_by_one(model, examples))


@pytest.mark.parametrize("budget", [40, 64, 150])
def test_every_packing_and_number_of_micro_batches_gives_the_same_gradient(
    model: Model, examples: Examples, budget: int
) -> None:
    packed = Batches(examples, budget, seed=budget)
    cut = [packed[number] for number in range(packed.num_batches(1))]
    assert len({batch.num_targets for batch in cut}) > 1, "unequal target counts are the point"
    _assert_same(_gradients(model, cut), _gradients(model, [join(examples, np.arange(len(examples)))]))


def test_one_of_eight_equals_four_of_two(model: Model, examples: Examples) -> None:
    eight = [np.arange(i, len(examples), 8) for i in range(8)]
    one_by_eight = [join(examples, np.concatenate(eight))]
    four_by_two = [join(examples, np.concatenate(eight[i : i + 2])) for i in range(0, 8, 2)]
    _assert_same(_gradients(model, one_by_eight), _gradients(model, four_by_two))


def test_a_neighbor_in_the_batch_changes_nothing(model: Model, examples: Examples) -> None:
    alone, together = join(examples, np.array([3])), join(examples, np.array([8, 3, 5]))
    start = int((together.positions == 0).nonzero()[1])
    with torch.no_grad():
        packed = model(together.ids, together.positions)[start : start + len(alone.ids)]
        torch.testing.assert_close(packed, model(alone.ids, alone.positions), rtol=1e-4, atol=1e-5)


def test_bf16_gradients_point_where_fp32_gradients_do(
    new_model: Callable[..., Model], examples: Examples
) -> None:
    batches = [join(examples, np.arange(i, len(examples), 3)) for i in range(3)]
    num_targets = sum(batch.num_targets for batch in batches)
    gradients = []
    for precision in ("fp32", "bf16"):
        model = new_model()
        weights = Weights(model, precision)
        accumulate(model, weights, batches, num_targets)
        assert all(master.dtype == master.grad.dtype == torch.float32 for master in weights.masters.values())
        gradients.append(torch.cat([master.grad.flatten() for master in weights.masters.values()]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999


def test_the_loss_without_gradients_is_the_same(model: Model, examples: Examples) -> None:
    batch = join(examples, np.array([1, 2]))
    with torch.no_grad():
        without = summed_loss(model, batch)
    torch.testing.assert_close(without, summed_loss(model, batch).detach(), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("num_processes", [2, 4, 7])
@pytest.mark.parametrize("numbers", [range(1), range(1, 5)], ids=["one batch", "four batches"])
def test_what_processes_share_adds_up_to_the_gradient_of_one(
    model: Model, examples: Examples, numbers: range, num_processes: int
) -> None:
    batches = Batches(examples, 100)
    whole = [batches[number] for number in numbers]
    shares = [batch for rank in range(num_processes) for batch in batches.share(numbers, rank, num_processes)]
    assert all(batch.num_targets for batch in shares)
    _assert_same(_gradients(model, whole), _gradients(model, shares))
