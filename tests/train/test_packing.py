"""Packing: each example exactly once, never over the budget, nearly full."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picollm.errors import ContextError
from picollm.train.packing import pack


@settings(deadline=None)
@given(st.lists(st.integers(1, 64), max_size=300), st.integers(64, 200), st.integers(0, 9))
def test_every_example_is_packed_exactly_once_within_the_budget(
    costs: list[int], capacity: int, seed: int
) -> None:
    array = np.array(costs, np.int64)
    packs = pack(array, capacity, np.random.default_rng(seed))
    assert sorted(packs.members.tolist()) == list(range(len(costs)))
    for index in range(len(packs)):
        assert 0 < array[packs[index]].sum() <= capacity


def test_packing_is_a_function_of_its_seed() -> None:
    costs = np.random.default_rng(0).integers(1, 50, 500)
    one, same, other = (pack(costs, 100, np.random.default_rng(seed)).members.tolist() for seed in (1, 1, 2))
    assert one == same != other


def test_an_example_larger_than_a_batch_is_named() -> None:
    with pytest.raises(ContextError, match="example 1 takes 12 tokens, a batch holds 10"):
        pack(np.array([3, 12, 5]), 10, np.random.default_rng(0))


@pytest.mark.parametrize(("capacity", "least"), [(2048, 0.99), (512, 0.98)])
def test_batches_of_real_conversations_are_nearly_full(shared_data, capacity: int, least: float) -> None:
    table = pyarrow.parquet.read_table(shared_data / "chat" / "mix" / "train.parquet", columns=["messages"])
    texts = table.slice(0, 8000).column("messages").to_pylist()
    # Characters stand in for tokens: the shape of the distribution is what matters.
    costs = np.array([len(json.dumps(messages)) // 5 for messages in texts])
    costs = costs[(costs > 0) & (costs <= capacity)]
    packs = pack(costs, capacity, np.random.default_rng(0))
    assert costs.sum() / (len(packs) * capacity) >= least
