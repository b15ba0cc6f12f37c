"""Instructions from rows, strict and loose."""

from __future__ import annotations

from typing import Any

import pytest

from picollm.tasks.ifeval.instruction import Instruction, read_instruction

BULLETS = {"num_bullets": 2}


def test_arguments_of_other_kinds_stand_beside_its_own_as_none() -> None:
    arguments = {"num_bullets": 2.0, "relation": None, "keywords": None}
    read = read_instruction("en:detectable_format:number_bullet_lists", arguments)
    assert read == Instruction("detectable_format:number_bullet_lists", (2,))
    assert (read.family, str(read)) == ("detectable_format", "exactly 2 bullet points")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "detectable_format:bullets",
            BULLETS,
            "no instruction is called 'detectable_format:bullets'; expected one",
        ),
        ("detectable_format:number_bullet_lists", {}, "'num_bullets' is None; expected a int"),
        ("detectable_format:number_bullet_lists", {"num_bullets": "2"}, "'num_bullets' is '2'"),
        ("detectable_format:number_bullet_lists", {"num_bullets": True}, "'num_bullets' is True"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 1.5}, "'num_bullets' is 1.5"),
        ("detectable_format:number_bullet_lists", {"num_bullets": -1}, "is -1; expected 0 or more"),
        (
            "length_constraints:number_words",
            {"num_words": 3, "relation": "about"},
            "expected 'less than' or 'at",
        ),
        ("keywords:existence", {"keywords": []}, r"'keywords' is \[\]; expected a list"),
        ("keywords:existence", {"keywords": ["a", 1]}, "expected a list of texts"),
        ("language:response_language", {"language": "xx"}, "'language' is 'xx'; expected one of ar, bg"),
        ("startend:end_checker", {"end_phrase": ""}, "'end_phrase' is ''; expected a str"),
    ],
)
def test_what_is_wrong_is_named(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_instruction(name, arguments)


@pytest.mark.parametrize(
    ("reply", "strictly", "loosely"),
    [
        ("ONE TWO THREE", True, True),
        ("Sure, here it is:\nONE TWO THREE", False, True),
        ("ONE TWO THREE\nI hope this helps.", False, True),
        ("Sure:\nONE TWO THREE\nIs that good?", False, True),
        ("Sure:\n\nONE TWO THREE\nand more\n", False, False),
        ("one", False, False),
    ],
)
def test_the_loose_criterion_forgives_a_first_and_a_last_line(
    reply: str, strictly: bool, loosely: bool
) -> None:
    capital = read_instruction("change_case:english_capital", {})
    assert (capital.is_followed(reply), capital.is_followed_loosely(reply)) == (strictly, loosely)


def test_the_loose_criterion_forgives_asterisks() -> None:
    end = read_instruction("startend:end_checker", {"end_phrase": "The end."})
    assert not end.is_followed("**The end.**") and end.is_followed_loosely("**The end.**")
    assert not end.is_followed_loosely("***")
