"""Batches: the shift, and the stream as a function of (seed, epoch, number)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picollm.errors import InputError
from picollm.train.batches import NO_TARGET, Batches, join
from picollm.train.examples import Examples


def test_the_shift_never_crosses_a_border(examples: Examples) -> None:
    batch = join(examples, np.array([4, 0, 7]))
    ids, targets, positions = batch.ids.tolist(), batch.targets.tolist(), batch.positions.tolist()
    for index in (4, 0, 7):
        tokens, mask = examples.ids(index).tolist(), examples.mask(index).tolist()
        size = len(tokens) - 1
        assert ids[:size] == tokens[:-1]
        assert targets[:size] == [t if m else NO_TARGET for t, m in zip(tokens[1:], mask[1:], strict=True)]
        assert positions[:size] == list(range(size))
        ids, targets, positions = ids[size:], targets[size:], positions[size:]
    assert not ids
    assert batch.num_targets == int((batch.targets != NO_TARGET).sum()) > 0


def test_every_epoch_holds_each_example_once_in_another_order(examples: Examples) -> None:
    batches = Batches(examples, 64, seed=1)
    epochs = []
    for epoch in range(3):
        numbers = range(batches.num_batches(epoch), batches.num_batches(epoch + 1))
        assert {batches.epoch(number) for number in numbers} == {epoch}
        epochs.append([int(member) for number in numbers for member in batches.members(number)])
        assert sorted(epochs[-1]) == list(range(len(examples)))
    assert epochs[0] != epochs[1] != epochs[2]


@settings(deadline=None)
@given(st.permutations(range(40)))
def test_a_batch_depends_on_its_number_alone(order: list[int]) -> None:
    examples = _examples()
    straight, jumping = Batches(examples, 64, seed=5), Batches(examples, 64, seed=5)
    expected = [straight.members(number).tolist() for number in range(40)]
    for number in order:
        assert jumping.members(number).tolist() == expected[number]
        assert jumping.num_targets(number) == straight[number].num_targets > 0


def test_an_epoch_can_be_a_chosen_mixture(examples: Examples) -> None:
    chosen = [np.array([1, 1, 2]), np.array([3])]
    batches = Batches(examples, 256, seed=0, members_of_epoch=lambda epoch: chosen[epoch % 2])
    assert sorted(batches.members(0).tolist()) == [1, 1, 2]
    assert batches.members(1).tolist() == [3]
    assert batches.digest != Batches(examples, 256, seed=0).digest


def test_the_digest_names_data_budget_and_seed(examples: Examples) -> None:
    digests = {Batches(examples, budget, seed).digest for budget, seed in ((64, 0), (65, 0), (64, 1))}
    assert len(digests) == 3


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(InputError, match="nothing to train on"):
        Batches(Examples(), 64)


def test_a_budget_of_nothing_is_an_error(examples: Examples) -> None:
    with pytest.raises(InputError, match="a batch of 0 tokens"):
        Batches(examples, 0)


def _examples() -> Examples:
    examples = Examples()
    for length in range(5, 45):
        examples.append(_Rendered(list(range(length)), [1] * length))
    return examples


class _Rendered:
    def __init__(self, ids: list[int], loss_mask: list[int]) -> None:
        self.ids, self.loss_mask = ids, loss_mask
