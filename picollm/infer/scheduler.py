"""Who runs in the next step, and in which slot of the cache. Policy without tensors.

The i-th running request always sits in slot i, so that a decode step reads slots ``0 .. R-1`` as one block.
Slots behind them are idle and keep the text of a finished request, because the next turn of a chat begins
with it: a new request starts from the slot, running or idle, that shares the longest beginning with its
prompt. That one rule is prefix reuse between turns, one prefill for many samples, and few-shot examples read
once.

::

    slot       0     1     2   |  3      4
    holds      r0    r1    r2  |  text   -         r1 finishes: slots 1 and 2 change places
               r0    r2    | r1's text   text   -
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from picollm.infer.request import Request

# A prompt waits one step for a neighbor whose prefill it could share only if that saves at least this much.
MIN_SHARED = 16


class Idle(NamedTuple):
    """What an idle slot holds, and when it was put there."""

    text: list[int]
    finished_at: int


class Move(NamedTuple):
    """Copy or exchange the first ``length`` tokens of two slots before the step."""

    kind: Literal["copy", "swap"]
    source: int
    target: int
    length: int


class Work(NamedTuple):
    """The next ``length`` pending tokens of a request, which sits in ``slot``."""

    request: Request
    slot: int
    length: int


@dataclass
class Plan:
    """One step: moves between slots, then the work of one forward pass, single tokens first."""

    moves: list[Move] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)


class Scheduler:
    """First come, first served over ``num_slots`` slots, ``max_step_tokens`` prompt tokens per step."""

    def __init__(self, num_slots: int, max_step_tokens: int) -> None:
        self.num_slots = num_slots
        self.max_step_tokens = max_step_tokens
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self._idle = [Idle([], 0)] * num_slots
        self._num_finished = 0
        self._moves: list[Move] = []

    def add(self, request: Request) -> None:
        """Queue a request."""
        self.waiting.append(request)

    def remove(self, request: Request) -> None:
        """Take a request out, waiting or running; the text in its slot stays for others to start from."""
        if request in self.waiting:
            self.waiting.remove(request)
        elif request in self.running:
            slot, last = self.running.index(request), len(self.running) - 1
            self._num_finished += 1
            self._idle[slot] = Idle(request.ids[: request.num_computed], self._num_finished)
            self._swap(slot, last)
            self.running[slot] = self.running[last]
            self.running.pop()

    def schedule(self) -> Plan:
        """Return the next step: one token of every running reply, then prompts while the budget lasts."""
        budget = self.max_step_tokens
        work: list[Work] = []
        for slot, request in enumerate(self.running):
            length = min(request.num_pending, max(budget, 1))
            if request.num_pending > 1:
                budget -= length
            work.append(Work(request, slot, length))
        while self.waiting and len(self.running) < self.num_slots and budget > 0 and self._admit_next():
            request = self.running[-1]
            length = min(request.num_pending, budget)
            budget -= length
            work.append(Work(request, len(self.running) - 1, length))
        # Single tokens are answered together; sorting keeps the order among them.
        work.sort(key=lambda w: w.length > 1)
        moves, self._moves = self._moves, []
        return Plan(moves, work)

    def _admit_next(self) -> bool:
        """Move the oldest waiting request to the first idle slot; False if it had better wait one step."""
        request, slot = self.waiting[0], len(self.running)
        shared = [self._num_shared(request, self._text(i)) for i in range(self.num_slots)]
        best = max(range(self.num_slots), key=lambda i: (shared[i], -i))
        soon = max((self._num_shared(request, r.ids) for r in self.running), default=0)
        if soon >= shared[best] + MIN_SHARED:
            return False
        self.waiting.popleft()
        oldest = min(range(slot, self.num_slots), key=lambda i: self._idle[i].finished_at)
        # A chat that goes on takes its own slot; a mere common beginning is copied, and the other chat can go
        # on too.
        goes_on = best >= slot and 2 * shared[best] >= len(self._idle[best].text)
        target = best if goes_on else oldest
        if best == target:
            self._swap(best, slot)
        else:
            self._swap(oldest, slot)
            source = oldest if best == slot else best
            self._moves.append(Move("copy", source, slot, shared[best]))
        request.num_computed = request.num_cached = shared[best]
        self.running.append(request)
        return True

    def _swap(self, one: int, other: int) -> None:
        length = max(len(self._text(one)), len(self._text(other)))
        if one != other and length:
            self._moves.append(Move("swap", one, other, length))
        self._idle[one], self._idle[other] = self._idle[other], self._idle[one]

    def _text(self, slot: int) -> Sequence[int]:
        """Return the tokens whose keys and values ``slot`` holds."""
        if slot < len(self.running):
            request = self.running[slot]
            return request.ids[: request.num_computed]
        return self._idle[slot].text

    @staticmethod
    def _num_shared(request: Request, text: Sequence[int]) -> int:
        """Return how many leading tokens ``text`` and the prompt share; the last prompt token never counts.

        That token must be computed in any case: its logits are where the reply begins.
        """
        return num_shared(request.prompt_ids[:-1], text)


def num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the longest common beginning, by bisection over slices."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
