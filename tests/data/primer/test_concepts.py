"""Explanations have as many sentences as asked for, and what is held out stays out of training."""

from __future__ import annotations

import itertools
import re
from random import Random

import pytest

from picollm.chat.conversation import Conversation
from picollm.data.primer import concepts
from picollm.data.primer.concepts import ROLES
from picollm.data.primer.wordings import NUMBERS, SPLITS, normalized
from picollm.errors import InputError


def count_sentences(text: str) -> int:
    """Return the number of sentences, counted by their ends."""
    return len(re.findall(r"[.!?](?:\s|$)", text))


@pytest.fixture(scope="module")
def train() -> list:
    return concepts.rows("train", 0)


def test_at_least_45_concepts_with_different_names() -> None:
    names = [concept.name for concept in concepts.concepts()]
    assert len(set(names)) == len(names) >= 45


@pytest.mark.parametrize("concept", concepts.concepts(), ids=lambda concept: concept.name)
def test_each_sentence_is_one_sentence(concept: concepts.Concept) -> None:
    assert len(concept.sentences) == len(ROLES) == 6
    for sentence in concept.sentences:
        assert sentence.endswith(".") and not re.search(r"[.!?]", sentence[:-1]), sentence
        assert sentence[0].isupper() and sentence.isascii() and len(sentence) < 140
    assert concept.sentence("example").startswith("For example, ")
    assert concept.sentence("summary").startswith("In short, ")
    assert concept.sentence("without").startswith("Without ")
    for number in range(1, 7):
        assert count_sentences(concept.explanation(number)) == number
        assert len(concept.facts(number)) == number


def test_rows_are_conversations_and_a_function_of_the_seed(train: list) -> None:
    for split in SPLITS:
        rows = concepts.rows(split, 3)
        assert rows == concepts.rows(split, 3) != concepts.rows(split, 4)
        for each in rows:
            assert Conversation.from_dict(each).messages[-1].role == "assistant"
    assert len(train) > 2000


def test_an_unknown_split() -> None:
    with pytest.raises(InputError, match="dev"):
        concepts.rows("dev")


def test_replies_have_the_number_of_sentences_that_was_asked_for(train: list) -> None:
    numbers = "|".join(NUMBERS[1:7])
    asked = re.compile(rf"\b([1-6]|{numbers}) sentences?\b")
    checked = 0
    for each in train:
        *_, user, assistant = each["messages"]
        system = each["messages"][0]["content"] if each["messages"][0]["role"] == "system" else ""
        found = asked.search(system) or asked.search(user["content"])
        if found:
            number = int(found[1]) if found[1].isdigit() else NUMBERS.index(found[1])
            assert count_sentences(assistant["content"]) == number, each
            checked += 1
    assert checked > 1000


def test_held_out_pairs_are_in_no_training_row(train: list) -> None:
    replies = {m["content"] for each in train for m in each["messages"] if m["role"] == "assistant"}
    pairs = [
        (concept, number)
        for concept, number in itertools.product(concepts.concepts(), range(1, 7))
        if concepts.held_out(concept, number)
    ]
    assert {("self-attention", 4)} <= {(concept.name, number) for concept, number in pairs}
    assert 20 <= len(pairs) <= 80
    for concept, number in pairs:
        assert concept.explanation(number) not in replies
        assert "\n".join(concept.sentences[:number]) not in replies
    for number in range(1, 7):
        assert sum(pair[1] == number for pair in pairs) < 20


def test_no_test_question_is_a_training_question(train: list) -> None:
    def questions(rows: list) -> set[str]:
        return {normalized(" / ".join(m["content"] for m in each["messages"][:-1])) for each in rows}

    for split in ("validation", "test"):
        assert not questions(train) & questions(concepts.rows(split, 1))


def test_paragraphs_never_end_and_are_a_function_of_the_generator() -> None:
    texts = list(itertools.islice(concepts.paragraphs(Random(5)), 400))
    assert texts == list(itertools.islice(concepts.paragraphs(Random(5)), 400))
    assert len(set(texts)) > 300
    told = "\n".join(texts)
    for concept in concepts.concepts():
        assert concept.sentence("what").removesuffix(".") in told or concept.definition in told
    for text in texts:
        assert "{" not in text and text == text.strip() and "picoLLM" not in text
