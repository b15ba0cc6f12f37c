"""Declarative checks: each kind on a reply that obeys and one that does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picollm.errors import InputError
from picollm.eval import checks
from picollm.eval.prompts import load_prompts

CASES = [
    ({"kind": "sentences", "count": 2}, "One. Two.", "One."),
    ({"kind": "sentences", "max": 2}, "One.", "One. Two. Three."),
    ({"kind": "sentences", "max": 2}, "One.", ""),
    ({"kind": "lines", "count": 2}, "a\n\nb", "a"),
    ({"kind": "words", "min": 2, "max": 3}, "two words", "one"),
    ({"kind": "bullets", "min": 2}, "- a\n- b", "a\nb"),
    ({"kind": "letter_only", "answer": "B"}, "B", "B."),
    ({"kind": "letter_only"}, "D", "E"),
    ({"kind": "one_word", "answer": "rocket"}, "Rocket.", "A rocket"),
    ({"kind": "one_word"}, "yes", "oh yes"),
    ({"kind": "one_of", "options": ["no"]}, "No.", "No, it is not."),
    ({"kind": "contains", "all": ["KV cache", "keys"]}, "The KV Cache holds keys.", "The KV cache."),
    ({"kind": "contains", "any": ["her", "his"]}, "It is her.", "There it is."),
    ({"kind": "contains", "all": ["bell, map"]}, "bell, map, cup", "map, bell"),
    ({"kind": "excludes", "any": ["kitchen"]}, "the hall", "the Kitchen"),
    ({"kind": "number", "value": 19}, "12 + 7 = 19.\n#### 19", "19 apples, or 20"),
    ({"kind": "number", "value": 1250}, "1,250", "1250.5"),
    ({"kind": "number", "value": -3}, "It is -3.", "It is 3."),
    ({"kind": "number", "value": 7, "only": True}, "7.", "It is 7"),
    ({"kind": "spells", "word": "kettle"}, "kettle: k, e, t, t, l, e", "k, e, t, l, e"),
    ({"kind": "spells", "word": "cab"}, "c-a-b", "cab"),
    ({"kind": "starts_with", "text": "Ahoy"}, "ahoy, friend", "friend, ahoy"),
    ({"kind": "ends_with", "text": "Cheers!"}, "Bye. Cheers! ", "Cheers! Bye."),
    ({"kind": "uppercase"}, "LADDER", "Ladder"),
    ({"kind": "lowercase"}, "quiet", "123"),
    ({"kind": "json", "keys": ["a"]}, '```json\n{"a": 1}\n```', '{"b": 1}'),
    ({"kind": "all", "checks": [{"kind": "uppercase"}, {"kind": "lines", "count": 1}]}, "A", "A\nB"),
    ({"kind": "any", "checks": [{"kind": "uppercase"}, {"kind": "lines", "count": 1}]}, "a", "a\nb"),
    ({"kind": "not", "check": {"kind": "contains", "text": "no"}}, "yes", "no"),
]


@pytest.mark.parametrize(("check", "obeys", "does_not"), CASES)
def test_each_kind_tells_obeying_from_not(check: checks.Check, obeys: str, does_not: str) -> None:
    checks.validate_check(check, "here")
    assert checks.passes(check, obeys)
    assert not checks.passes(check, does_not)


def test_every_kind_is_tested_here() -> None:
    assert {check["kind"] for check, _, _ in CASES} == set(checks._KINDS)


@given(st.sampled_from([check for check, _, _ in CASES]), st.text())
def test_no_reply_breaks_a_check(check: checks.Check, text: str) -> None:
    assert checks.passes(check, text) in (True, False)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("sentences", "check kind 'sentences' is not known"),
        ({"kind": "sentence"}, "check kind 'sentence' is not known"),
        ({"kind": "number"}, "needs 'value'"),
        ({"kind": "lines"}, "needs 'count', 'min' or 'max'"),
        ({"kind": "all", "checks": [{"kind": "spells"}]}, "needs 'word'"),
        ({"kind": "not", "check": {"kind": "nor"}}, "'nor' is not known"),
    ],
)
def test_a_check_that_cannot_be_made_says_where_and_why(check: object, message: str) -> None:
    with pytest.raises(InputError, match="file, line 3") as caught:
        checks.validate_check(check, "file, line 3")
    assert message in str(caught.value)


def test_the_answers_of_a_check_are_what_a_direct_reply_names() -> None:
    both = {
        "kind": "all",
        "checks": [{"kind": "sentences", "count": 1}, {"kind": "contains", "all": ["hall"]}],
    }
    assert checks.answers(both) == ["hall"]
    assert checks.answers({"kind": "number", "value": 9}) == ["9"]
    either = {"kind": "contains", "any": ["token", "word"]}
    assert checks.answers({"kind": "all", "checks": [either]}) == ["token", "word"]
    assert checks.answers({"kind": "all", "checks": [either, {"kind": "contains", "all": ["mask"]}]}) == [
        "mask"
    ]
    assert checks.answers({"kind": "excludes", "any": ["kitchen"]}) == []


def test_every_check_of_the_shipped_prompts_can_be_said_in_words() -> None:
    said = [checks.describe_check(prompt.check) for prompt in load_prompts() if prompt.check]
    assert all(said) and not any("{" in text or "None" in text for text in said)
    assert "exactly 4 sentences; mentions self-attention" in said[0]
