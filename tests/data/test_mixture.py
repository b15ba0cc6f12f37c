"""The order of a mixture is a pure function of (seed, epoch), and its weights mean what they say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picollm.data.mixture import (
    CurriculumStage,
    Source,
    check_epochs,
    check_mixture,
    epochs_of,
    plan,
    plan_curriculum,
    stage_of,
)
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


@pytest.mark.parametrize("split", ["validation", "test"])
def test_rows_to_judge_by_are_not_learned_from(split: str) -> None:
    with pytest.raises(InputError, match=f"is to learn from the {split} split, which is there to judge by"):
        Source("mmlu", split=split)


def test_a_limit_is_at_least_one_row() -> None:
    assert Source("gsm8k", limit=1).split == "train"
    with pytest.raises(InputError, match="has limit 0"):
        Source("gsm8k", limit=0)


def source(task: str, **changes: object) -> Source:
    return Source(task, **changes)  # type: ignore[arg-type]


def test_a_share_is_made_up_to_what_the_weights_give() -> None:
    sources = [source("smoltalk", weight=2.0), source("identity", share=0.1), source("mmlu", share=0.3)]
    amounts = [300, 10, 1000]
    epochs = epochs_of(sources, amounts)
    seen = [epoch * amount for epoch, amount in zip(epochs, amounts, strict=True)]
    assert epochs[0] == 2.0 and np.allclose(np.array(seen) / sum(seen), [0.6, 0.1, 0.3])


def test_where_everything_is_a_share_nothing_is_repeated() -> None:
    sources = [source("smoltalk", share=0.5), source("identity", share=0.25), source("mmlu", share=0.25)]
    epochs = epochs_of(sources, [1000, 100, 900])
    assert np.allclose(epochs, [0.2, 1.0, 1 / 9])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": 0.0}, "share 0.0 and weight 1.0"),
        ({"share": 1.5}, "share 1.5"),
        ({"share": 0.5, "weight": 2.0}, "then no weight"),
    ],
)
def test_a_share_is_a_part_of_one_and_stands_alone(changes: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        source("gsm8k", **changes)


def test_a_share_out_of_reach_is_named() -> None:
    with pytest.raises(InputError, match="'identity' would be seen 900 times an epoch"):
        epochs_of([source("smoltalk"), source("identity", share=0.9)], [1000, 10])


MIXTURE = [source("smoltalk"), source("gsm8k", weight=0.5), source("jsonl", name="mine", weight=2.0)]
STAGES = [
    CurriculumStage("manners", ("smoltalk",), epochs=2),
    CurriculumStage("skills", ("gsm8k", "mine"), replay=0.25),
]


@pytest.mark.parametrize(
    ("sources", "stages", "said"),
    [
        ([source("gsm8k"), source("gsm8k")], [], "two mixture sources are called 'gsm8k'"),
        ([source("gsm8k", share=0.7), source("mmlu", share=0.7)], [], "add up to 1.4"),
        ([source("gsm8k", share=0.7), source("mmlu", share=0.2)], [], "add up to 0.9; expected 1"),
        ([source("gsm8k", share=1.0), source("mmlu")], [], "or less beside sources with weights"),
        (MIXTURE, [CurriculumStage("a", ("chat",))], "names 'chat'; the mixture has smoltalk, gsm8k, mine"),
        (MIXTURE, [CurriculumStage("a", ("gsm8k",), replay=0.1)], "stage 'a' is the first"),
    ],
)  # fmt: skip
def test_a_mixture_that_cannot_be_is_named(sources: list, stages: list, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_mixture(sources, stages)
    check_mixture(MIXTURE, STAGES)


def test_stages_are_whole_epochs_with_something_in_them() -> None:
    with pytest.raises(InputError, match="stage 'a' has 0 epochs"):
        CurriculumStage("a", ("gsm8k",), epochs=0)
    with pytest.raises(InputError, match="of 0 sources"):
        CurriculumStage("a", ())
    with pytest.raises(InputError, match="replay 1"):
        CurriculumStage("a", ("gsm8k",), replay=1.0)


def test_a_curriculum_goes_stage_by_stage_and_replays_what_was() -> None:
    rows, weights = [90, 40, 20], [1.0, 0.5, 2.0]
    assert [stage_of(STAGES, epoch) for epoch in range(5)] == [0, 0, 1, 1, 1]
    orders = [plan_curriculum(MIXTURE, STAGES, rows, weights, 5, epoch) for epoch in range(4)]
    assert [Counter(order[:, 0].tolist()) for order in orders[:3]] == [
        {0: 90},
        {0: 90},
        {0: 20, 1: 20, 2: 40},
    ]
    assert not np.array_equal(orders[0], orders[1])
    again = plan_curriculum(MIXTURE, STAGES, rows, weights, 5, 2)
    assert np.array_equal(orders[2], again)
    replayed = [set(order[order[:, 0] == 0, 1].tolist()) for order in orders[2:]]
    assert all(len(each) == 20 for each in replayed) and replayed[0] != replayed[1]
    assert np.array_equal(plan_curriculum(MIXTURE, [], rows, weights, 5, 2), plan(rows, weights, 5, 2))


def test_a_source_of_which_an_epoch_would_have_no_row_is_refused() -> None:
    sources = [Source("smoltalk"), Source("identity", weight=0.016)]
    check_epochs(sources, [1.0, 0.017], [1, 59])
    with pytest.raises(InputError, match=r"'identity' .* 0\.016 times .* of 59 rows, .* weight 0\.017 or"):
        check_epochs(sources, [1.0, 0.016], [1, 59])
    assert len(plan([59], [0.017], 1, 0)) == 1
