"""MMLU in its published schema."""

from __future__ import annotations

from pathlib import Path

from picollm.tasks.registry import load_task


def test_all_published_rows_are_questions(shared_data: Path) -> None:
    task = load_task("mmlu", "test", data_root=shared_data)
    assert len(task) == 6835
    assert {task.group(index) for index in range(0, len(task), 10)} >= {"abstract_algebra", "econometrics"}
    for index in range(0, len(task), 50):
        row = task.rows[index]
        assert task.answer_letter(index) == "ABCD"[row["answer"]]
        assert all(f"- {choice}=>" in task[index].messages[0].text for choice in row["choices"])


def test_training_rows_are_the_auxiliary_ones_and_validation_its_own(shared_data: Path) -> None:
    train, validation = (load_task("mmlu", split, data_root=shared_data) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (8315, 1531)
    assert train.group(0) is None and validation.group(0) == "abstract_algebra"
