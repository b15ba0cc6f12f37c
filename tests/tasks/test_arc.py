"""ARC in its published schema: letters, and in some rows digits, as labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from picollm.data.rows import rows_of
from picollm.errors import DataError
from picollm.tasks.arc import Arc
from picollm.tasks.registry import load_task

ROW = {"question": "Why?", "choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answerKey": "3"}


def test_labels_become_letters() -> None:
    task = Arc("arc_easy", rows_of([ROW], "made"), "test")
    assert (task.letters(0), task.answer_letter(0)) == (["A", "B", "C"], "C")
    assert task[0].messages[0].text.startswith("Why?\n- x=>A\n- y=>B\n- z=>C\n")


def test_a_broken_row_is_named() -> None:
    task = Arc(
        "arc_easy", rows_of([{**ROW, "answerKey": "D"}, {**ROW, "choices": {"text": ["x"]}}], "made"), "test"
    )
    with pytest.raises(DataError, match="made, row 0: 'answerKey' 'D' is none of the labels"):
        task[0]
    with pytest.raises(DataError, match=r"made, row 1: 'choices' is .* as many texts"):
        task[1]


@pytest.mark.parametrize(
    ("name", "split", "num"), [("arc_easy", "test", 1188), ("arc_challenge", "validation", 299)]
)
def test_published_rows(shared_data: Path, name: str, split: str, num: int) -> None:
    task = load_task(name, split, data_root=shared_data)
    assert len(task) == num
    for index in range(num):
        row = task.rows[index]
        place = row["choices"]["label"].index(row["answerKey"])
        assert task.answer_letter(index) == "ABCDE"[place]
