"""Everyday talk: legal conversations, right answers, and nothing that is tested in training."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from random import Random

import pytest

import picollm.eval
from picollm.chat.conversation import Conversation
from picollm.data import identity
from picollm.data.primer import concepts, instructions, smalltalk
from picollm.data.primer.wordings import SPLITS, normalized
from picollm.errors import InputError


@pytest.fixture(scope="module")
def train() -> list:
    return smalltalk.rows("train", 0)


def user_side(row: dict) -> str:
    """Return all that the model is given and did not say, as plain words."""
    return normalized(" / ".join(m["content"] for m in row["messages"] if m["role"] != "assistant"))


def test_rows_are_conversations_and_a_function_of_the_seed(train: list) -> None:
    for split in SPLITS:
        rows = smalltalk.rows(split, 3)
        assert rows == smalltalk.rows(split, 3) != smalltalk.rows(split, 4)
        for each in rows:
            assert Conversation.from_dict(each).messages[-1].role == "assistant"
            for message in each["messages"]:
                text = message["content"]
                assert "{" not in text and text == text.strip()
                assert not re.search(r"\b[Aa] [aeio]|\b[Aa]n [^aeiou]", text), text
    assert len(train) > 5000


def test_an_unknown_split() -> None:
    with pytest.raises(InputError, match="dev"):
        smalltalk.rows("dev")


def test_no_test_question_is_a_training_question(train: list) -> None:
    asked = {user_side(each) for each in train}
    for split in ("validation", "test"):
        assert not asked & {user_side(each) for each in smalltalk.rows(split, 1)}


def test_nobody_is_called_picollm_here() -> None:
    for split in SPLITS:
        text = json.dumps([smalltalk.rows(split), concepts.rows(split)])
        assert "picollm" not in text.lower() and "Montek" not in text


def test_instructions_are_answered_right(train: list) -> None:
    seen = dict.fromkeys(("upper", "count", "words", "times"), 0)
    for each in train:
        if len(each["messages"]) != 2:
            continue
        asked, reply = (message["content"] for message in each["messages"])
        if found := re.fullmatch(r"Write (\w+) in capital letters\.", asked):
            assert reply == found[1].upper()
            seen["upper"] += 1
        if found := re.search(r"from (\d+) to (\d+)", asked):
            assert reply == ", ".join(str(n) for n in range(int(found[1]), int(found[2]) + 1))
            seen["count"] += 1
        if found := re.fullmatch(r"Count the words of this sentence: (.*) Answer with a number\.", asked):
            assert reply == str(len(found[1].split()))
            seen["words"] += 1
        if found := re.fullmatch(r"Say (\w+) ([2-6]) times\.", asked):
            assert reply.split() == [found[1]] * int(found[2])
            seen["times"] += 1
    assert min(seen.values()) >= 4, seen


def test_the_name_that_is_remembered_is_the_name_that_was_told(train: list) -> None:
    checked = 0
    for each in train:
        told = " ".join(m["content"] for m in each["messages"] if m["role"] == "user")
        for message in each["messages"]:
            found = re.match(r"(?:Your name is|You live in) (\w+)\.", message["content"])
            if found and message["role"] == "assistant":
                assert found[1] in told
                checked += 1
    assert checked > 200


def test_pages_for_pretraining_use_only_what_training_may_use() -> None:
    for paragraphs in (smalltalk.paragraphs, instructions.paragraphs):
        pages = list(itertools.islice(paragraphs(Random(7)), 500))
        assert pages == list(itertools.islice(paragraphs(Random(7)), 500))
        assert len(set(pages)) > 400
        told = normalized(" ".join(pages))
        for split in ("validation", "test"):
            for each in smalltalk.rows(split):
                question = normalized(each["messages"][-2]["content"])
                assert len(question.split()) < 4 or question not in told


def test_rules_of_a_system_prompt_are_obeyed(train: list) -> None:
    checked = 0
    for each in train:
        system = each["messages"][0]
        found = re.search(r"(?:end|End every reply|Finish each reply) with '(.+)'", system["content"])
        if system["role"] == "system" and found:
            for message in each["messages"][2::2]:
                assert message["content"].endswith(found[1])
            checked += 1
    assert checked > 20


def test_the_prompt_set_is_in_no_training_row(train: list) -> None:
    asked = {user_side(each) for each in (*train, *concepts.rows("train"), *identity.build())}
    prompts = Path(picollm.eval.__file__).with_name("prompts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(prompts) >= 44
    assert json.loads(prompts[0])["messages"][-1]["content"] == (
        "Explain self-attention to a beginner in 4 sentences."
    )
    for line in prompts:
        assert user_side(json.loads(line)) not in asked
