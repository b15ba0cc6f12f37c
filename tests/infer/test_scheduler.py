"""Slots stay dense, contents are what the scheduler believes, and every token is computed exactly once."""

from __future__ import annotations

import random

import pytest

from picollm.infer.params import SamplingParams
from picollm.infer.request import PlainDecoder, Request
from picollm.infer.scheduler import Plan, Scheduler, num_shared
from picollm.tokenizer import Tokenizer


class Slots:
    """What real slots would hold after a plan: lists of tokens instead of keys and values."""

    def __init__(self, num_slots: int) -> None:
        self.held: list[list[int]] = [[] for _ in range(num_slots)]

    def run(self, plan: Plan) -> None:
        for kind, source, target, length in plan.moves:
            one, other = self.held[source], self.held[target]
            self.held[target] = one[:length] + other[length:]
            if kind == "swap":
                self.held[source] = other[:length] + one[length:]
        for request, slot, length in plan.work:
            start = request.num_computed
            assert self.held[slot][:start] == request.ids[:start], (
                "the slot does not hold the request's beginning"
            )
            self.held[slot] = request.ids[: start + length]
            request.num_computed += length


def new_request(tokenizer: Tokenizer, prompt: list[int], max_tokens: int = 4) -> Request:
    params = SamplingParams(temperature=0, max_tokens=max_tokens)
    return Request(prompt, params, PlainDecoder(tokenizer))


@pytest.mark.parametrize("seed", range(30))
def test_any_traffic_reads_every_token_once_and_finds_its_own_text(tokenizer: Tokenizer, seed: int) -> None:
    rng = random.Random(seed)
    num_slots, budget = rng.randint(1, 5), rng.choice([1, 3, 7, 30])
    scheduler, slots = Scheduler(num_slots, budget), Slots(num_slots)
    beginnings = [[rng.randrange(9) for _ in range(rng.choice([0, 5, 40]))] for _ in range(3)]
    requests = [
        new_request(
            tokenizer,
            [*rng.choice(beginnings), *rng.choices(range(9), k=rng.randint(1, 12))],
            rng.randint(1, 6),
        )
        for _ in range(25)
    ]
    arriving = list(requests)
    while arriving or scheduler.running or scheduler.waiting:
        for _ in range(rng.randint(0, 3)):
            if arriving:
                scheduler.add(arriving.pop())
        plan = scheduler.schedule()
        assert [w.length > 1 for w in plan.work] == sorted(w.length > 1 for w in plan.work)
        assert sorted(w.slot for w in plan.work) == list(range(len(scheduler.running)))
        slots.run(plan)
        for request, _, _ in plan.work:
            if not request.num_pending:
                request.append(rng.randrange(9), None, 10**6)
                if request.finish_reason or rng.random() < 0.1:
                    scheduler.remove(request)
        if scheduler.waiting and rng.random() < 0.1:
            scheduler.remove(rng.choice(list(scheduler.waiting)))


def run_to_the_end(scheduler: Scheduler) -> int:
    """Return how many prompt and reply tokens were computed until nothing is left."""
    computed = 0
    while (plan := scheduler.schedule()).work:
        for request, _, length in plan.work:
            request.num_computed += length
            computed += length
            if not request.num_pending:
                request.append(0, None, 10**6)
                if request.finish_reason:
                    scheduler.remove(request)
    return computed


def test_samples_share_one_prefill(tokenizer: Tokenizer) -> None:
    scheduler = Scheduler(4, 512)
    for _ in range(4):
        scheduler.add(new_request(tokenizer, list(range(100)), max_tokens=1))
    assert run_to_the_end(scheduler) == 100 + 3


def test_the_next_turn_of_a_chat_reads_only_what_is_new(tokenizer: Tokenizer) -> None:
    scheduler = Scheduler(2, 512)
    chats = [[1, *range(100)], [2, *range(100)]]
    for chat in chats:
        scheduler.add(new_request(tokenizer, chat, max_tokens=1))
    assert run_to_the_end(scheduler) == 202
    for chat in chats:
        scheduler.add(new_request(tokenizer, [*chat, 0, 7, 8, 9], max_tokens=1))
    assert run_to_the_end(scheduler) == 2 * 4


def test_a_long_prompt_is_read_in_pieces_while_replies_go_on(tokenizer: Tokenizer) -> None:
    scheduler = Scheduler(2, 10)
    scheduler.add(new_request(tokenizer, [1, 2, 3], max_tokens=100))
    slots = Slots(2)
    for _ in range(2):
        plan = scheduler.schedule()
        slots.run(plan)
        plan.work[0].request.append(0, None, 10**6)
    long = new_request(tokenizer, list(range(50)))
    scheduler.add(long)
    lengths = []
    while long.num_pending:
        plan = scheduler.schedule()
        slots.run(plan)
        assert plan.work[0].length == 1
        plan.work[0].request.append(0, None, 10**6)
        lengths.append(plan.work[1].length)
    assert lengths == [10, 10, 10, 10, 10]


def test_num_shared_is_the_common_beginning() -> None:
    assert num_shared([1, 2, 3], [1, 2, 4]) == 2
    assert num_shared([1, 2, 3], [1, 2, 3]) == 3
    assert num_shared([], [1]) == 0
    assert num_shared([2], [1]) == 0
