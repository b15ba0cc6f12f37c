"""Scores equal those of each prompt alone, and shared beginnings are computed once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from picollm.errors import InputError
from picollm.infer.fused import FusedModel
from picollm.infer.score import MIN_SAVED, likelihoods, score
from picollm.model.llama import Model


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Model]) -> Model:
    return make_model()


def alone(model: Model, prompt: list[int], candidates: list[int]) -> list[float]:
    return model(torch.tensor(prompt), torch.arange(len(prompt)))[-1].log_softmax(-1)[candidates].tolist()


@pytest.fixture(scope="module")
def fused(model: Model) -> FusedModel:
    return FusedModel(model)


class Counting(FusedModel):
    """Counts the tokens it reads."""

    num_tokens = 0

    def __call__(self, ids: Tensor, *arguments: Any) -> Tensor:
        self.num_tokens += ids.numel()
        return super().__call__(ids, *arguments)


def count_tokens(model: Model, prompts: list[list[int]]) -> int:
    """Return how many tokens ``score`` gave to the model."""
    counting = Counting(model)
    score(counting, prompts, [0])
    return counting.num_tokens


@pytest.mark.parametrize("seed", range(6))
def test_scores_equal_each_prompt_alone(model: Model, fused: FusedModel, seed: int) -> None:
    """Prompts with nested and repeated beginnings, prompts that begin others, and single tokens."""
    rng = random.Random(seed)
    draw = lambda n: [rng.randrange(300) for _ in range(n)]  # noqa: E731
    roots = [draw(rng.choice([0, 3, 60])) for _ in range(3)]
    stems = [root + draw(rng.choice([0, 40])) for root in roots for _ in range(3)]
    prompts = [rng.choice(stems) + draw(rng.randint(1, 9)) for _ in range(40)] + [stems[0] + [1]] * 2 + [[7]]
    candidates = [draw(rng.randint(1, 5)) for _ in prompts]
    for prompt, some, found in zip(prompts, candidates, score(fused, prompts, candidates), strict=True):
        assert found == pytest.approx(alone(model, prompt, some), abs=1e-4)


def test_one_list_of_candidates_serves_all_prompts(fused: FusedModel) -> None:
    prompts = [[1, 2, 3], [4, 5]]
    assert score(fused, prompts, [8, 9]) == score(fused, prompts, [[8, 9], [8, 9]])


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


def test_prompts_that_grow_token_by_token(model: Model, fused: FusedModel) -> None:
    text = [i % 300 for i in range(250)]
    prompts = [text[:n] for n in range(1, 251)]
    whole = model(torch.tensor(text), torch.arange(250)).log_softmax(-1)[:, 7]
    assert [row[0] for row in score(fused, prompts, [7])] == pytest.approx(whole.tolist(), abs=1e-4)


def test_bad_candidates_are_named(fused: FusedModel) -> None:
    with pytest.raises(InputError, match="candidate id 999 is not in the vocabulary"):
        score(fused, [[1]], [999])
    with pytest.raises(InputError, match="1 lists of candidates for 2 prompts"):
        score(fused, [[1], [2]], [[3]])
    assert score(fused, [], [1]) == []


def test_likelihoods_equal_each_text_alone(model: Model, fused: FusedModel) -> None:
    """Choices after shared prompts, choices that share their beginning, and what greedy decoding writes."""
    rng = random.Random(1)
    prompts, rests = [], []
    for length in (1, 5, 120):
        prompt = [rng.randrange(300) for _ in range(length)]
        greedy: list[int] = []
        for _ in range(3):
            text = torch.tensor([*prompt, *greedy])
            greedy.append(int(model(text, torch.arange(len(text)))[-1].argmax()))
        for rest in (greedy, [*greedy, 299], [greedy[0], 7, 8], [9]):
            prompts.append(prompt)
            rests.append(rest)
    found = likelihoods(fused, prompts, rests)
    for prompt, rest, one in zip(prompts, rests, found, strict=True):
        ids = torch.tensor([*prompt, *rest])
        rows = model(ids[:-1], torch.arange(len(ids) - 1))[len(prompt) - 1 :].log_softmax(-1)
        assert one.logprob == pytest.approx(rows.gather(1, ids[len(prompt) :, None]).sum().item(), abs=1e-3)
        assert one.num_tokens == len(rest)
    assert [one.is_greedy for one in found[::4]] == [True] * 3 and not found[2].is_greedy
