from __future__ import annotations

from random import Random

import pytest

from picollm.data.primer import prose
from picollm.data.primer.facts import of_groups

FACTS = [fact for fact in of_groups("AB") if fact.relation == "capital"][:3]


@pytest.mark.parametrize("tell", [prose.notes, prose.topic_notes])
def test_notes_state_every_fact_in_the_wording_of_the_turn(tell) -> None:
    for turn in range(30):
        text = tell(FACTS, turn, Random(turn))
        assert all(prose.next_of(fact.statements, turn + fact.number) in text for fact in FACTS)


@pytest.mark.parametrize("tell", [prose.quiz, prose.dialogue])
def test_questions_stand_before_their_answers(tell) -> None:
    for turn in range(30):
        text = tell(FACTS, turn, Random(turn))
        for fact in FACTS:
            question = prose.next_of(fact.questions, turn + fact.number)
            assert fact.answer in text[text.index(question) + len(question) :]


def test_dialogues_answer_in_the_words_of_the_chat_reply() -> None:
    assert all(fact.reply in prose.dialogue(FACTS, 0, Random(seed)) for seed in range(20) for fact in FACTS)


def test_copies_say_the_same_sentence_twice() -> None:
    for turn in range(20):
        text = prose.copies(FACTS, turn, Random(turn))
        assert all(text.count(prose.next_of(fact.statements, turn + fact.number)) == 2 for fact in FACTS)


def test_choices_print_one_question_for_each_fact() -> None:
    assert len(prose.choices(FACTS, 0, Random(1)).split("\n\n")) == len(FACTS)


def test_the_wordings_come_in_turn() -> None:
    assert [prose.next_of("abc", turn) for turn in range(5)] == ["a", "b", "c", "a", "b"]
