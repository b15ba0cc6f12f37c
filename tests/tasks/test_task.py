"""What every task promises, checked on every task the package can make by itself."""

from __future__ import annotations

import itertools

import pytest

from picollm.chat.conversation import Message
from picollm.data.rows import rows_of
from picollm.errors import DataError
from picollm.tasks.registry import TASKS, load_task
from picollm.tasks.smoltalk import SmolTalk
from picollm.tasks.task import Task, first_sentence, last_number, mentions

OFFLINE = ("smoltalk", "identity", "mmlu", "gsm8k", "spelling", "spelling_bee", "facts")


@pytest.fixture(
    scope="module", params=itertools.product(OFFLINE, ("train", "validation", "test")), ids="-".join
)
def task(request: pytest.FixtureRequest) -> Task:
    return load_task(*request.param, limit=200)


def test_a_prompt_is_the_conversation_up_to_its_last_question(task: Task) -> None:
    for index in range(0, len(task), 7):
        conversation, prompt = task[index], task.prompt(index)
        assert conversation.messages[: len(prompt.messages)] == prompt.messages
        assert prompt.messages[-1].role == "user"
        assert conversation.messages[-1].role == "assistant"


def test_the_answer_of_a_row_is_right_and_another_one_is_wrong(task: Task) -> None:
    if task.scoring is None or (task.name == "identity" and task.split != "test"):
        return
    for index in range(0, len(task), 3):
        gold = task[index].messages[-1]
        assert task.check(index, gold)
        assert not task.check(index, Message("assistant", "I do not know."))
        assert task.expected(index)


def test_the_completion_form_is_answered_by_the_same_knowledge(task: Task) -> None:
    for index in range(0, len(task), 5):
        completion = task.completion(index)
        if completion is not None:
            form = {"mmlu": "{}", "gsm8k": " #### {}"}.get(task.name, " {}")
            answer = task.expected(index).removeprefix(completion)  # spelling repeats the word
            assert task.check_completion(index, form.format(answer.strip()))
            assert not task.check_completion(index, " ~")
            assert completion == completion.rstrip()


def test_letters_are_one_per_choice_and_hold_the_answer(task: Task) -> None:
    for index in range(0, len(task), 5):
        letters = task.letters(index)
        assert (letters is not None) == (task.scoring == "letters")
        if letters is not None:
            assert task.answer_letter(index) in letters
            assert task[index].messages[-1].text == task.answer_letter(index)


def test_rows_are_pinned_and_counted(task: Task) -> None:
    assert len(task.rows.digest) == 64 and task.rows.name
    assert 0 < len(task) <= 200
    assert len(list(task)) == len(task)
    with pytest.raises(IndexError):
        task[len(task)]


@pytest.mark.parametrize("name", OFFLINE)
def test_no_test_question_is_asked_in_training(name: str) -> None:
    asked = {
        split: {str(task.prompt(i).to_dict()) for i in range(len(task))}
        for split in ("train", "test")
        for task in [load_task(name, split, limit=4000)]
    }
    assert not asked["train"] & asked["test"]


def test_a_row_that_breaks_the_schema_is_named() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi?"}]
    task = SmolTalk(
        "smoltalk", rows_of([{"messages": turns}, {"messages": ["Hi"]}, {"text": ""}], "made"), "train"
    )
    with pytest.raises(DataError, match="made, row 0: message 1 is another user message"):
        task[0]
    with pytest.raises(DataError, match="made, row 1: message 0: a string"):
        task[1]
    with pytest.raises(DataError, match="made, row 2 has no 'messages'"):
        task[2]


def test_every_registered_task_says_how_it_is_scored() -> None:
    assert {entry.kind.scoring for entry in TASKS.values()} == {"letters", "reply", None}


def test_small_readers_of_text() -> None:
    assert mentions("The answer is St. John's!", "st. john's") and not mentions("Parisian", "Paris")
    assert mentions("10,000 m", "10,000") and not mentions("110", "10")
    assert last_number("1, 2 and -3.5") == "-3.5" and last_number("x") is None
    assert first_sentence(" It is 3.5. Then") == " It is 3.5."
