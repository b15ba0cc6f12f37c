"""Scores equal those of each prompt alone, and shared beginnings are computed once."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from picollm.errors import InputError
from picollm.infer.score import MIN_SAVED, score
from picollm.model.llama import Model


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Model]) -> Model:
    return make_model()


def alone(model: Model, prompt: list[int], candidates: list[int]) -> list[float]:
    return model(torch.tensor(prompt), torch.arange(len(prompt)))[-1].log_softmax(-1)[candidates].tolist()


def count_tokens(model: Model, prompts: list[list[int]]) -> int:
    """Return how many tokens ``score`` gave to the model."""
    seen = []
    hook = model.model.embed_tokens.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel()))
    try:
        score(model, prompts, [0])
    finally:
        hook.remove()
    return sum(seen)


@pytest.mark.parametrize("seed", range(6))
def test_scores_equal_each_prompt_alone(model: Model, seed: int) -> None:
    """Prompts with nested and repeated beginnings, prompts that begin others, and single tokens."""
    rng = random.Random(seed)
    draw = lambda n: [rng.randrange(300) for _ in range(n)]  # noqa: E731
    roots = [draw(rng.choice([0, 3, 60])) for _ in range(3)]
    stems = [root + draw(rng.choice([0, 40])) for root in roots for _ in range(3)]
    prompts = [rng.choice(stems) + draw(rng.randint(1, 9)) for _ in range(40)] + [stems[0] + [1]] * 2 + [[7]]
    candidates = [draw(rng.randint(1, 5)) for _ in prompts]
    for prompt, some, found in zip(prompts, candidates, score(model, prompts, candidates), strict=True):
        assert found == pytest.approx(alone(model, prompt, some), abs=1e-4)


def test_one_list_of_candidates_serves_all_prompts(model: Model) -> None:
    prompts = [[1, 2, 3], [4, 5]]
    assert score(model, prompts, [8, 9]) == score(model, prompts, [[8, 9], [8, 9]])


def test_a_shared_beginning_is_read_once(model: Model) -> None:
    few_shot, rng = [[k] * 80 for k in (5, 6)], random.Random(0)
    prompts = [[1, *few_shot[i % 2], rng.randrange(300), rng.randrange(300)] for i in range(40)]
    rng.shuffle(prompts)
    assert count_tokens(model, prompts) <= 1 + 2 * 80 + 40 * 2 + 2


def test_nothing_is_read_twice_or_padded_when_nothing_is_shared(model: Model) -> None:
    rng = random.Random(0)
    prompts = [[rng.randrange(300) for _ in range(rng.randint(1, 30))] for _ in range(20)]
    assert count_tokens(model, prompts) == sum(map(len, prompts))


def test_sharing_that_saves_too_little_costs_no_pass_of_its_own(model: Model) -> None:
    few = MIN_SAVED // 20
    prompts = [[*[1] * few, i] for i in range(10)]
    assert count_tokens(model, prompts) == sum(map(len, prompts))


def test_prompts_that_grow_token_by_token(model: Model) -> None:
    text = [i % 300 for i in range(250)]
    prompts = [text[:n] for n in range(1, 251)]
    whole = model(torch.tensor(text), torch.arange(250)).log_softmax(-1)[:, 7]
    assert [row[0] for row in score(model, prompts, [7])] == pytest.approx(whole.tolist(), abs=1e-4)


def test_bad_candidates_are_named(model: Model) -> None:
    with pytest.raises(InputError, match="candidate id 999 is not in the vocabulary"):
        score(model, [[1]], [999])
    with pytest.raises(InputError, match="1 lists of candidates for 2 prompts"):
        score(model, [[1], [2]], [[3]])
    assert score(model, [], [1]) == []
