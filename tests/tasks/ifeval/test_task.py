"""IFEval as a task: all instructions of a prompt at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from picollm.chat.conversation import Message
from picollm.data.rows import rows_of
from picollm.errors import DataError, InputError
from picollm.tasks.ifeval.instruction import KINDS
from picollm.tasks.ifeval.task import Ifeval
from picollm.tasks.registry import load_task

ROW = {
    "key": 1,
    "prompt": "Write two words without a comma.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"relation": "less than", "num_words": 3}],
}


def task(**changes: Any) -> Ifeval:
    return Ifeval("ifeval", rows_of([{**ROW, **changes}], "made"), "test")


def test_a_reply_is_right_when_it_follows_every_instruction() -> None:
    made = task()
    assert [message.role for message in made[0].messages] == ["user"]
    assert made.prompt(0).messages[0].text == ROW["prompt"]
    assert made.check(0, Message("assistant", "Two words"))
    assert not made.check(0, Message("assistant", "Two, words"))
    assert not made.check(0, Message("assistant", ""))
    assert made.followed(0, "One, two, three") == [False, False]
    assert made.followed(0, "Here, you asked for:\nTwo words") == [False, False]
    assert made.followed(0, "Here, you asked for:\nTwo words", loosely=True) == [True, True]
    assert made.expected(0) == "no comma; less than 3 words"


def test_single_instructions_are_grouped_by_family() -> None:
    assert task().group(0) == "several"
    assert task(instruction_id_list=["startend:quotation"], kwargs=[{}]).group(0) == "startend"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kwargs": [{}]}, "made, row 0: 2 instructions and arguments"),
        ({"kwargs": [{}, "x"]}, "expected at least one, and an object of arguments for each"),
        ({"instruction_id_list": [], "kwargs": []}, "made, row 0: 0 instructions"),
        ({"instruction_id_list": ["a", 3]}, "made, row 0: no instruction is called 'a'"),
        (
            {"kwargs": [{}, {}]},
            "made, row 0: instruction 'length_constraints:number_words': 'relation' is None",
        ),
        ({"prompt": 3}, "made, row 0: 'prompt' is 3; expected str"),
    ],
)
def test_a_broken_row_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made = task(**changes)
        made.messages(0)
        made.check(0, Message("assistant", "x"))


def test_its_prompts_have_no_answers_to_train_on(shared_data: Path) -> None:
    with pytest.raises(InputError, match="ifeval has no train rows: its prompts have no answers"):
        load_task("ifeval", "train", data_root=shared_data)


def test_every_published_row_can_be_checked(shared_data: Path) -> None:
    made = load_task("ifeval", "test", data_root=shared_data)
    assert isinstance(made, Ifeval) and len(made) == 400
    kinds = {each.kind for index in range(len(made)) for each in made.instructions(index)}
    assert kinds == set(KINDS)
    right = sum(made.check(index, Message("assistant", "no")) for index in range(len(made)))
    assert 0 < right < 80  # those that forbid something and ask for nothing
    assert all(made.expected(index) and made.group(index) for index in range(len(made)))
