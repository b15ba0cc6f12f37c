from __future__ import annotations

import re
from collections import Counter

import pytest

from picollm.data import primer
from picollm.data.primer.facts import Fact, group_of, of_groups, with_article

FACTS = primer.facts()
RELATIONS = sorted({fact.relation for fact in FACTS})


def of_relation(relation: str) -> list[Fact]:
    return [fact for fact in FACTS if fact.relation == relation]


def test_there_are_enough_facts_and_relations() -> None:
    assert len(FACTS) >= 700
    assert len(RELATIONS) >= 20


def test_the_groups_have_their_shares_of_all_facts() -> None:
    shares = Counter(fact.group for fact in FACTS)
    for group, share in {"A": 0.5, "B": 0.3, "C": 0.2}.items():
        assert shares[group] / len(FACTS) == pytest.approx(share, abs=0.04)


def test_the_group_of_a_fact_never_changes() -> None:
    drawn = [group_of("capital", subject) for subject in ("France", "Japan", "Peru", "Kenya", "Norway")]
    assert drawn == ["A", "B", "B", "A", "A"]


def test_a_symmetric_pair_has_one_group_whichever_way_it_is_written() -> None:
    assert all(
        group_of("opposite", fact.subject, fact.answer) == group_of("opposite", fact.answer, fact.subject)
        for fact in of_relation("opposite")
    )


def test_every_relation_has_facts_to_teach_to_unlock_and_to_guess() -> None:
    for relation in RELATIONS:
        found = Counter(fact.group for fact in of_relation(relation))
        assert min(found["A"], found["B"], found["C"]) >= 3, (relation, found)


@pytest.mark.parametrize("relation", RELATIONS)
def test_subjects_and_answers_of_a_relation_are_all_different(relation: str) -> None:
    facts = of_relation(relation)
    names = [fact.subject.casefold() for fact in facts]
    answers = [fact.answer.casefold() for fact in facts]
    if relation == "opposite":
        names, answers = names + answers, names + answers
    assert len(set(names)) == len(names)
    assert len(set(answers)) == len(answers)


def test_wordings_are_complete_sentences_without_open_slots() -> None:
    for fact in FACTS:
        for text in (*fact.statements, *fact.questions, *fact.held_out):
            assert "{" not in text and "}" not in text and "  " not in text, text
            assert text[0].isupper() or text[0].isdigit(), text
            assert text[-1] in ".?", text
            assert fact.subject.casefold() in text.casefold(), text
            assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [bcdfgjklmnpqrstvwxyz]", text), text
        assert all(fact.answer.casefold() in text.casefold() for text in fact.statements)


def test_every_fact_has_many_wordings_and_held_out_ones_are_new() -> None:
    for fact in FACTS:
        assert len(set(fact.statements)) >= 11
        assert len(set(fact.questions)) >= 6
        assert len(set(fact.held_out)) >= 3
        assert not {text.casefold() for text in fact.questions} & {text.casefold() for text in fact.held_out}


def test_no_question_gives_its_answer_away() -> None:
    for fact in FACTS:
        for question in (*fact.questions, *fact.held_out):
            assert not re.search(rf"\b{re.escape(fact.answer)}\b", question, re.IGNORECASE), question


def test_the_reply_is_its_completion_prompt_and_then_the_answer() -> None:
    for fact in FACTS:
        assert fact.reply == f"{fact.completion} {fact.answer}."
        assert fact.reply in fact.statements
        assert fact.subject.casefold() in fact.completion.casefold()


def test_a_question_has_one_answer() -> None:
    answers: dict[str, str] = {}
    for fact in FACTS:
        for question in (*fact.questions, *fact.held_out):
            assert answers.setdefault(question.casefold(), fact.answer) == fact.answer, question


def test_articles_follow_the_sound() -> None:
    nouns = ["owl", "horse", "unkindness", "eyrie", "puppy"]
    assert [with_article(noun) for noun in nouns] == [
        "an owl",
        "a horse",
        "an unkindness",
        "an eyrie",
        "a puppy",
    ]


def test_groups_can_be_picked_by_their_letters() -> None:
    assert set(of_groups("AB")) == {fact for fact in FACTS if fact.group != "C"}
