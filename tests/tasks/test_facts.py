"""Facts: groups, whole-word answers, and a completion form."""

from __future__ import annotations

from picollm.chat.conversation import Message
from picollm.data.rows import rows_of
from picollm.tasks.facts import Facts
from picollm.tasks.registry import load_task

ROW = {
    "relation": "capital",
    "subject": "France",
    "answer": "Paris",
    "group": "B",
    "question": "What is the capital of France?",
    "reply": "The capital of France is Paris.",
    "completion": "The capital of France is",
}


def test_a_reply_has_to_name_the_answer_as_a_word() -> None:
    task = Facts("facts", rows_of([ROW], "made"), "test")
    assert [message.text for message in task[0].messages] == [ROW["question"], ROW["reply"]]
    assert task.check(0, Message("assistant", "paris, of course"))
    assert not task.check(0, Message("assistant", "The Parisian one."))
    assert not task.check(0, Message("assistant", "It is Rome. What is the capital of France? Paris."))
    assert (task.group(0), task.expected(0)) == ("B", "Paris")


def test_a_completion_has_one_sentence_for_the_answer() -> None:
    task = Facts("facts", rows_of([ROW], "made"), "test")
    assert task.completion(0) == "The capital of France is"
    assert task.check_completion(0, " Paris. The capital of Italy is Rome.")
    assert not task.check_completion(0, " Rome. The capital of Italy is Paris.")
    assert not task.check_completion(0, " Rome\nParis")


def test_training_asks_about_a_only_and_the_test_about_all_three() -> None:
    groups = {}
    for split in ("train", "test"):
        task = load_task("facts", split)
        groups[split] = {task.group(index) for index in range(len(task))}
    assert groups == {"train": {"A"}, "test": {"A", "B", "C"}}
