"""The order of a mixture is a pure function of (seed, epoch), and its weights mean what they say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picollm.data.mixture import Source, plan
from picollm.errors import InputError


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.1])), max_size=4),
    st.integers(0, 2**31),
    st.integers(0, 5),
)
def test_every_row_is_seen_as_often_as_its_weight_says(
    sources: list[tuple[int, float]], seed: int, epoch: int
) -> None:
    counts, weights = [count for count, _ in sources], [weight for _, weight in sources]
    order = plan(counts, weights, seed, epoch)
    assert np.array_equal(order, plan(counts, weights, seed, epoch))
    seen = Counter(map(tuple, order.tolist()))
    for source, (count, weight) in enumerate(sources):
        times = [seen[source, row] for row in range(count)]
        assert sum(times) == int(weight) * count + round((weight - int(weight)) * count)
        assert all(int(weight) <= each <= int(weight) + 1 for each in times)
    assert len(order) == sum(seen.values())


def test_seed_and_epoch_decide_the_order() -> None:
    orders = [plan([50, 30], [1.0, 2.0], seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({str(order) for order in orders}) == 4
    assert all(sorted(order) == sorted(orders[0]) for order in orders)


def test_half_of_the_rows_an_epoch_is_all_of_them_in_two() -> None:
    first, second = (plan([100], [0.5], 7, epoch)[:, 1].tolist() for epoch in (0, 1))
    assert len(first) == len(second) == 50
    assert sorted(first + second) == list(range(100))


def test_sources_are_mixed_and_not_one_after_the_other() -> None:
    source = plan([500, 500], [1.0, 1.0], 3, 0)[:, 0]
    assert 200 < source[:500].sum() < 300


def test_the_order_never_changes_between_versions() -> None:
    order = plan([5, 3], [1.0, 1.5], seed=11, epoch=2)
    assert order.tolist() == GOLDEN


GOLDEN = [[0, 3], [1, 2], [1, 1], [1, 0], [1, 1], [0, 1], [0, 4], [0, 2], [0, 0], [1, 2]]


@pytest.mark.parametrize("weight", [0.0, -1.0, 101.0])
def test_a_weight_is_a_sensible_number_of_epochs(weight: float) -> None:
    with pytest.raises(InputError, match=f"mixture source 'gsm8k' has weight {weight}; expected epochs"):
        Source("gsm8k", weight=weight)


def test_a_limit_is_at_least_one_row() -> None:
    assert Source("gsm8k", limit=1).split == "train"
    with pytest.raises(InputError, match="has limit 0"):
        Source("gsm8k", limit=0)
