"""CORE: examples in front, endings apart, answers in range; the published files are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from picollm.data.rows import rows_of
from picollm.errors import DataError, InputError
from picollm.tasks.core import CORE, PREFIX, CoreTask, Setting, load_core

CHOICE = [{"query": f"Q{i}", "choices": [f"no{i}", f"yes{i}"], "gold": 1} for i in range(5)]


def core_task(rows: list[dict[str, object]], kind: str, num_examples: int = 2) -> CoreTask:
    return CoreTask("core/mine", rows_of(rows, "mine"), Setting("mine", kind, num_examples, "\nAnswer: "))  # type: ignore[arg-type]


def test_solved_examples_stand_in_front_and_never_the_row_itself() -> None:
    task = core_task(CHOICE, "choice")
    for index in range(5):
        options = task.options(index)
        front, query = options[0].context.rsplit("\n", 2)[0], f"Q{index}\nAnswer: "
        assert [option.ending for option in options] == [f"no{index}", f"yes{index}"]
        assert options[0].context == f"{front}\n{query}" and front.count("Answer: yes") == 2
        assert f"Q{index}" not in front
        assert task.options(index, 1)[0].context == front.split("\n", 2)[2] + f"\n{query}"
        assert task.options(index, 0)[0].context == query
        assert task.answer(index) == 1


def test_the_three_kinds() -> None:
    schema = [{"context_options": ["The cat", "The mat"], "continuation": "purrs.", "gold": 0}] * 2
    assert core_task(schema, "schema", 0).options(0) == [
        ("The cat\nAnswer: ", "purrs."),
        ("The mat\nAnswer: ", "purrs."),
    ]
    text = core_task([{"context": "one two \n", "continuation": "three"}] * 2, "text", 1)
    assert text.options(0) == [("one two\nAnswer: three\none two\nAnswer: ", "three")]
    assert text.answer(0) == 0 and text.expected(0) == "three"


def test_damaged_rows_are_named() -> None:
    with pytest.raises(DataError, match="mine, row 0: 'gold' is 2; it has 2 options"):
        core_task([{**CHOICE[0], "gold": 2}], "choice", 0).answer(0)
    with pytest.raises(DataError, match="expected a list of texts"):
        core_task([{**CHOICE[0], "choices": []}], "choice", 0).options(0)
    with pytest.raises(InputError, match="pass --data-root"):
        load_core("core/copa", None)


@pytest.mark.parametrize("label", CORE)
def test_the_published_files_are_read(shared_data: Path, label: str) -> None:
    task = load_core(PREFIX + label, shared_data)
    assert len(task) > 20
    for index in (0, len(task) - 1):
        options = task.options(index)
        assert options[task.answer(index)].ending == task.expected(index)
        assert len(options) == 1 or task.setting.kind != "text"
