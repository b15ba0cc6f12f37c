"""SmolTalk-style rows: any number of turns, extra columns left behind."""

from __future__ import annotations

from pathlib import Path

from picollm.data.rows import load_rows, rows_of
from picollm.tasks.registry import load_task
from picollm.tasks.smoltalk import SmolTalk


def test_only_role_and_content_of_a_message_count() -> None:
    messages = [
        {"role": "system", "content": "Be brief.", "name": None},
        {"role": "user", "content": "Hi", "id": 3},
        {"role": "assistant", "content": "Hello."},
    ]
    task = SmolTalk("smoltalk", rows_of([{"messages": messages, "source": "x"}], "made"), "train")
    assert [(m.role, m.text) for m in task[0].messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello."),
    ]
    assert task.scoring is None


def test_published_conversations_in_place_of_smoltalk(shared_data: Path) -> None:
    train, validation, test = (
        load_task("smoltalk", split, data_root=shared_data) for split in ("train", "validation", "test")
    )
    assert len(train) + len(validation) == 48_012 and len(test) == 2774
    everything = load_rows(shared_data / "chat" / "mix", split="train")
    assert [train.rows[48], validation.rows[0], train.rows[49]] == list(everything[48:51])
    assert all(conversation.messages[-1].role == "assistant" for conversation in validation)
