"""Identity: pinned conversations to train on, held-out questions to test with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from picollm.chat.conversation import Message
from picollm.data import identity
from picollm.errors import DataError, InputError
from picollm.tasks.registry import load_task


def test_training_and_validation_share_the_packages_conversations() -> None:
    train, validation = (load_task("identity", split) for split in ("train", "validation"))
    rows = identity.load()
    assert len(train) + len(validation) == len(rows)
    assert validation.rows[0] == rows[49] and rows[49] not in list(train.rows)
    with pytest.raises(InputError, match="checked on the test split"):
        train.check(0, train[0].messages[-1])


def test_test_questions_are_checked_by_the_identity_itself() -> None:
    task = load_task("identity", "test")
    assert len(task) == len(identity.test_items()) and task.group(0)
    assert task.check(0, Message("assistant", "I am picoLLM, made by Montek Singh Kundan."))
    assert not task.check(0, Message("assistant", "I am ChatGPT, made by OpenAI."))


def test_somebody_elses_identity_comes_from_a_template_or_its_conversations(tmp_path: Path) -> None:
    template = tmp_path / "mine.toml"
    text = identity.TEMPLATE.read_text(encoding="utf-8")
    template.write_text(text.replace("Montek Singh Kundan", "Ada Example"), encoding="utf-8")
    train, test = (load_task("identity", split, location=template) for split in ("train", "test"))
    assert any("Ada Example" in message.text for row in train for message in row.messages)
    assert test.check(0, Message("assistant", "I am picoLLM, made by Ada Example."))
    built = tmp_path / "mine.jsonl"
    identity.write(identity.build(template), built)
    assert load_task("identity", "train", location="mine.jsonl", data_root=tmp_path)[0] == train[0]
    with pytest.raises(InputError, match=r"the test questions are in the template \(\.toml\)"):
        load_task("identity", "test", location=built)


def test_altered_conversations_stop_the_run(tmp_path: Path) -> None:
    copy = tmp_path / identity.CONVERSATIONS.name
    shutil.copy(identity.manifest_path(identity.CONVERSATIONS), identity.manifest_path(copy))
    copy.write_bytes(identity.CONVERSATIONS.read_bytes().replace(b"picoLLM", b"picoLLN", 1))
    with pytest.raises(DataError, match=r"sha256|altered"):
        load_task("identity", "train", location=copy)
