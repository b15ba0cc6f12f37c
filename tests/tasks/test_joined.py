"""Joined conversations are rows of other tasks, one after the other, and of the right split."""

from __future__ import annotations

from pathlib import Path

import pytest

from picollm.data.rows import rows_of
from picollm.tasks.joined import MEMBERS, joined_rows
from picollm.tasks.registry import load_task
from picollm.tasks.smoltalk import SmolTalk


def _exchanges(name: str, split: str) -> set[tuple[str, ...]]:
    task = load_task(name, split)
    return {tuple(str(m["content"]) for m in task.messages(i)) for i in range(len(task))}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_exchange_is_a_row_of_another_task_and_of_this_split(split: str) -> None:
    known = {name: _exchanges(name, split) for name in MEMBERS}
    task = load_task("joined", split, limit=40)
    for index in range(len(task)):
        messages = task.messages(index)
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert 2 <= len(messages) // 2 <= 4
        pairs = [tuple(str(m["content"]) for m in messages[i : i + 2]) for i in range(0, len(messages), 2)]
        members = [{name for name in MEMBERS if pair in known[name]} for pair in pairs]
        assert all(members)
        assert len(set.union(*members)) >= len(pairs), "no task twice in one conversation"


def test_rows_are_a_function_of_the_seed() -> None:
    one, again, other = (load_task("joined", "validation", seed=seed) for seed in (1, 1, 2))
    assert one.rows.digest == again.rows.digest != other.rows.digest
    assert len(one) == 250


def test_a_task_without_single_exchanges_is_left_out() -> None:
    def talk(*contents: str) -> dict[str, object]:
        roles = ("user", "assistant") * 4
        return {"messages": [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]}

    long = SmolTalk("long", rows_of([talk("a", "b", "c", "d")], "made"), "train")
    short = SmolTalk("short", rows_of([talk("Hi", "Hello.")], "made"), "train")
    assert all(row == talk("Hi", "Hello.") for row in joined_rows([long, short], "test", 0))
    assert joined_rows([long], "test", 0) == []


def test_published_rows_are_joined_where_they_lie(shared_data: Path) -> None:
    task = load_task("joined", "validation", data_root=shared_data, limit=20)
    assert "gsm8k" in task.rows.name
    assert all(len(task.messages(index)) >= 4 for index in range(len(task)))
