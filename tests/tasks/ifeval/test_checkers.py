"""Each kind of instruction with replies that follow it and replies that nearly do."""

from __future__ import annotations

import pytest

from picollm.tasks.ifeval.instruction import KINDS, read_instruction

LESS, MOST = {"relation": "less than"}, {"relation": "at least"}
# kind, arguments, replies that follow, replies that do not
CASES = [
    (
        "keywords:existence",
        {"keywords": ["cat", "Dog"]},
        ["A CAT and a dog.", "concatenate doggedly"],
        ["a cat", ""],
    ),
    (
        "keywords:frequency",
        {"keyword": "cat", **MOST, "frequency": 2},
        ["cat Cat", "catcat"],
        ["cat", "c.a.t cat"],
    ),
    ("keywords:frequency", {"keyword": "a.c", **LESS, "frequency": 1}, ["abc abc"], ["A.C"]),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["cat"]},
        ["concatenate", "cats"],
        ["a Cat.", "cat-like"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "e", "let_relation": "at least", "let_frequency": 3},
        ["EeE", "three e's"],
        ["ee"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_relation": "less than", "let_frequency": 2},
        ["#1"],
        ["# #"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Das ist nicht das Haus.", "1 + 1 = 2"],
        ["That is not the house."],
    ),
    (
        "length_constraints:number_sentences",
        {**LESS, "num_sentences": 3},
        ["One. Two."],
        ["One. Two. Three."],
    ),
    ("length_constraints:number_sentences", {**MOST, "num_sentences": 2}, ["One! Two"], ["One\nTwo"]),
    ("length_constraints:number_words", {**LESS, "num_words": 3}, ["one two"], ["one two three"]),
    ("length_constraints:number_words", {**MOST, "num_words": 3}, ["it's me"], ["one two"]),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["one\n***\ntwo", "***one***two***", "one *** two"],
        ["one\n\ntwo", "one\n***\n\n***\ntwo", "one***two***three", "one"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Now"},
        ["Then.\n\nnow, this", 'Then\n\n\'"Now" I', "Then\n\nNOW's the time"],
        ["Now\n\nThen", "a\n\nNow\n\nc", "a\n\nKnow", "a\nNow", "a\n\n\n\nNow"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[a] [b c]", "[][]", "[a][b][c]"],
        ["[a]", "[a\nb] [c]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\nP.S. More", "p. s. more", "x P.S."],
        ["PS: more", "P.S more", "P.P.S"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["P.P.S more", "p. p. s."],
        ["P.S. more", "PPS"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  - b", "Hi:\n*a\n-b\nBye"],
        ["* a", "* a\n* b\n* c", "**a**\n**b**", "1. a\n2. b", "a * b\na - b"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well. My answer is maybe. So."],
        ["yes", "my answer is no.", "My answer is no"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b c*", "**a** *b*", "*a***b**"],
        ["*a*", "** **  *a*", "*a\nb* *c*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1 a SECTION 2 b", "SECTION1\nSECTION12", "SECTION 1 SECTION 2 SECTION 3"],
        ["SECTION 1", "Section 1 Section 2", "SECTION A SECTION B"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": [1]}', ' ```json\n{"a": 1}\n``` ', "```\n[]\n```", '"text"'],
        ["{a: 1}", 'JSON: {"a": 1}', "[" * 100_000],
    ),
    ("detectable_format:title", {}, ["<<A title>>\nText", "x <<<t>>> y"], ["<A>", "<< >>", "<<a\nb>>"]),
    (
        "combination:two_responses",
        {},
        ["one******two", "******\none\n******\ntwo\n******"],
        ["one", "one***two", "one****** one ", "one******two******three", "one************two"],
    ),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi. "}, [" say HI. Hi"], ["Hi. Say hi.", "Say"]),
    ("startend:end_checker", {"end_phrase": "The end."}, ['"... the END."\n', "The end."], ["The end"]),
    ("startend:quotation", {}, [' "Hi." ', '""'], ['"', '"Hi', "“Hi”", "'Hi'"]),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "less than", "capital_frequency": 2},
        ["ONE word", "none"],
        ["TWO WORDS"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THIS IS THE END, 1!"],
        ["This IS THE END", "DAS IST NICHT DAS ENDE", "1"],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["this is the end, 1!"],
        ["This is the end", "das ist nicht das ende"],
    ),
    ("punctuation:no_comma", {}, ["None; here."], ["one, two"]),
]


def test_every_kind_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(KINDS) and len(KINDS) == 25


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_what_follows_and_what_does_not(case: tuple[str, dict[str, object], list[str], list[str]]) -> None:
    name, arguments, followed, not_followed = case
    instruction = read_instruction(name, arguments)
    assert [reply for reply in followed if not instruction.is_followed(reply)] == []
    assert [reply for reply in not_followed if instruction.is_followed(reply)] == []
    assert not instruction.is_followed(" \n")


@pytest.mark.parametrize("piece", ["*", "-", "\n", "[", "<<", "******", "p.", "{", " *a", "\n-", "SECTION "])
def test_hostile_replies_are_read_in_bounded_time(piece: str) -> None:
    for name, arguments, *_ in CASES:
        read_instruction(name, arguments).is_followed(piece * 2000)
