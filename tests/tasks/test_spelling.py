"""Spelling tasks: an exact format, many wordings, several languages, and counting by the calculator."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from picollm.chat.conversation import Message
from picollm.data.primer import words
from picollm.data.rows import rows_of
from picollm.tasks.registry import load_task
from picollm.tasks.spelling import (
    COUNT_ASKS,
    COUNT_ASKS_FOREIGN,
    SPELL_ASKS,
    SPELL_ASKS_FOREIGN,
    SimpleSpelling,
)


def test_spelling_is_one_exact_line() -> None:
    task = SimpleSpelling("spelling", rows_of([{"word": "apple"}], "made"), "test")
    assert task[0].messages[-1].text == "apple: a,p,p,l,e"
    assert "apple" in task.prompt(0).messages[0].text
    assert task.check(0, Message("assistant", "apple: a,p,p,l,e\n"))
    for wrong in ("a,p,p,l,e", "apple: a,p,l,e", "apple: a, p, p, l, e", "Sure! apple: a,p,p,l,e"):
        assert not task.check(0, Message("assistant", wrong))


def test_the_bee_spells_counts_with_the_tool_and_says_the_count() -> None:
    task = load_task("spelling_bee", "test")
    for index in range(0, len(task), 9):
        word, letter = task.word(index), task.letter(index)
        spelled, call, output, said = task[index].messages[-1].parts
        times = word.count(letter)
        assert spelled.text == f"{word}: {','.join(word)}\n"
        assert call.text == f'"{word}".count("{letter}")' and output.text == str(times)
        assert said.text == f"\nThe letter {letter} occurs {times} time{'' if times == 1 else 's'}."
        assert re.search(rf"\b{letter}", task.prompt(index).messages[0].text)
        assert not task.check(index, Message("assistant", f"{word}: {times} or {times + 1}"))


@pytest.mark.parametrize("wordings", [SPELL_ASKS, SPELL_ASKS_FOREIGN, COUNT_ASKS, COUNT_ASKS_FOREIGN])
def test_every_wording_names_the_word(wordings: tuple[str, ...]) -> None:
    assert len(set(wordings)) == len(wordings) >= 8
    assert all(wording.format(word="WORD", letter="L").count("WORD") == 1 for wording in wordings)


def test_every_wording_is_used_and_some_are_foreign() -> None:
    task = load_task("spelling", "train")
    used: Counter[str] = Counter()
    for index in range(len(task)):
        asked, word = task.prompt(index).messages[0].text, task.word(index)
        used.update(ask for ask in SPELL_ASKS + SPELL_ASKS_FOREIGN if ask.format(word=word) == asked)
    assert set(used) == {*SPELL_ASKS, *SPELL_ASKS_FOREIGN} and used.total() == len(task)
    assert 0.09 < sum(used[ask] for ask in SPELL_ASKS_FOREIGN) / len(task) < 0.16


def test_the_wording_of_a_word_does_not_depend_on_the_order_of_rows() -> None:
    one, other = (load_task("spelling", "train", seed=seed) for seed in (0, 1))
    asked = [{task.word(i): task.prompt(i).to_dict() for i in range(300)} for task in (one, other)]
    shared = asked[0].keys() & asked[1].keys()
    assert shared and all(asked[0][word] == asked[1][word] for word in shared)


def test_a_published_word_list_takes_the_place_of_ours(shared_data: Path) -> None:
    task = load_task("spelling", "test", data_root=shared_data, limit=300)
    found = {task.word(index) for index in range(len(task))}
    assert len(found) == 300 and len({word[0] for word in found}) > 15
    assert all(words.split_of(word) == "test" and re.fullmatch("[a-z]{3,10}", word) for word in found)
