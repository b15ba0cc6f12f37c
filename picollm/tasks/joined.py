"""Conversations that ask for several things, one after the other: exchanges of different tasks joined."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from picollm.tasks.task import Task

MEMBERS = ("smoltalk", "identity", "mmlu", "gsm8k", "spelling", "spelling_bee")
NUM_TRAIN, NUM_HELD_OUT = 2500, 250
_EXCHANGE = ["user", "assistant"]


def joined_rows(tasks: Sequence[Task], split: str, seed: int) -> list[dict[str, Any]]:
    """Return conversations of two to four exchanges, each a row of another one of ``tasks``.

    Only rows that are one exchange are taken: a system message speaks about a whole conversation. A task
    without such rows is left out.
    """
    rng = Random(f"joined {split} {seed}")
    having = [task for task in tasks if _exchange(task, rng)]
    count = NUM_TRAIN if split == "train" else NUM_HELD_OUT
    return [{"messages": _conversation(having, rng)} for _ in range(count if having else 0)]


def _conversation(tasks: Sequence[Task], rng: Random) -> list[dict[str, Any]]:
    members = rng.sample(tasks, min(len(tasks), rng.randint(2, 4)))
    return [message for task in members for message in _exchange(task, rng)]


def _exchange(task: Task, rng: Random) -> list[dict[str, Any]]:
    """Return the messages of a row that is one exchange; none when a hundred rows were not."""
    for _ in range(100):
        messages = task.messages(rng.randrange(len(task)))
        if [message["role"] for message in messages] == _EXCHANGE:
            return messages
    return []
