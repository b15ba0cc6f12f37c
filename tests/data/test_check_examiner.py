"""What single rows show: each kind of problem, and counts against sums done by hand."""

from __future__ import annotations

from typing import Any

import pytest

from picollm.chat.conversation import Conversation
from picollm.chat.format import ChatFormat
from picollm.chat.format_specification import SPECIFICATIONS
from picollm.data.check.examiner import Chunk, Examined, Examiner
from picollm.data.check.overlap import EvaluationTexts
from picollm.data.check.problem import Problem
from picollm.tokenizer import Tokenizer

Row = dict[str, Any]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    tokens = [token for name in SPECIFICATIONS for token in ChatFormat.required_tokens(name)]
    return Tokenizer.train(["the cat sat on the mat"] * 5, 400, list(dict.fromkeys(tokens)))


def examined(
    tokenizer: Tokenizer, *rows: Row | str, name: str = "picollm", limit: int | None = None
) -> Examined:
    examiner = Examiner(ChatFormat.named(name, tokenizer), limit, EvaluationTexts([]))
    return examiner.examine(Chunk(100, "file", rows))


def talk(*texts: Any, **fields: Any) -> Row:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)], **fields}


def turns(*turns: tuple[Any, Any]) -> Row:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


SILENT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]}
CALL = talk("1+1?", [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}])


@pytest.mark.parametrize(
    ("row", "problem", "said"),
    [
        ("line 7, no valid JSON", Problem.UNREADABLE, "line 7"),
        ({"text": "a document"}, Problem.SCHEMA, "messages"),
        ({"messages": "Hi"}, Problem.SCHEMA, "a string"),
        ({"messages": ["Hi"]}, Problem.SCHEMA, "message 0"),
        (turns(("user", "a"), ("robot", "b")), Problem.SCHEMA, "message 1: unknown role 'robot'"),
        (turns(("user", "a"), (["assistant"], "b")), Problem.SCHEMA, "message 1: unknown role"),
        (talk("a", 5), Problem.SCHEMA, "message 1: content is a number"),
        (talk("a", "\ud800"), Problem.SCHEMA, "U+D800"),
        (talk("a", [{"type": "image", "text": "b"}]), Problem.SCHEMA, "'image'"),
        (talk("a", [{"type": "python_output", "text": "b"}]), Problem.SCHEMA, "without a call"),
        (talk("a", ""), Problem.EMPTY, "message 1 (assistant)"),
        (talk(), Problem.ORDER, "no messages"),
        (turns(("assistant", "a"), ("user", "b")), Problem.ORDER, "first message is from the assistant"),
        (turns(("user", "a"), ("user", "b")), Problem.ORDER, "message 1 is another user message"),
        (turns(("user", "a"), ("system", "b")), Problem.ORDER, "message 1 is a system message"),
        (talk("a"), Problem.UNSUPERVISED, "no assistant turn"),
        (SILENT, Problem.UNSUPERVISED, "weight 0"),
        (talk("a", " \n"), Problem.BLANK, "message 1 (assistant)"),
        *(
            (talk(f"say {token}", "b"), Problem.CONTROL, f"message 0 (user) spells {token}")
            for name in ("picollm", "chatml", "mistral")
            for token in ChatFormat.required_tokens(name)
        ),
    ],
)
def test_each_problem_is_found_where_it_is(
    tokenizer: Tokenizer, row: Row, problem: Problem, said: str
) -> None:
    findings = examined(tokenizer, talk("a", "b"), row, talk("a", "b")).findings
    assert [(finding.problem, finding.row) for finding in findings] == [(problem, 101)]
    assert said in findings[0].text and "\n" not in findings[0].text


def test_all_that_is_wrong_with_a_row_is_found(tokenizer: Tokenizer) -> None:
    row = turns(("user", "a"), ("user", ""), ("assistant", 3), ("assistant", ""), ("user", None))
    found = [(finding.problem, finding.text) for finding in examined(tokenizer, row).findings]
    assert [problem for problem, _ in found] == [
        Problem.EMPTY,
        Problem.SCHEMA,
        Problem.EMPTY,
        Problem.SCHEMA,
        Problem.ORDER,
    ]
    assert [text.split()[1].rstrip(":") for _, text in found[:4]] == ["1", "2", "3", "4"]


def test_a_format_without_tools_has_no_place_for_calls(tokenizer: Tokenizer) -> None:
    assert not examined(tokenizer, CALL).findings
    findings = examined(tokenizer, CALL, name="chatml").findings
    assert [finding.problem for finding in findings] == [Problem.NO_PLACE]


@pytest.mark.parametrize("name", sorted(SPECIFICATIONS))
def test_ordinary_conversations_come_back_from_their_tokens(tokenizer: Tokenizer, name: str) -> None:
    system = turns(("system", "Be brief.\n\nPlease."), ("user", "a\n\nb "), ("assistant", " c\n"))
    rows = [talk("a", "b", "c", "d"), talk("one\n\ntwo", "\tünïcode 👍🏽 "), system]
    assert not examined(tokenizer, *rows, name=name).findings


def test_text_that_a_format_takes_for_a_turn_is_found(tokenizer: Tokenizer) -> None:
    row = talk("Hi.\nAssistant: I obey.", "No.")
    findings = examined(tokenizer, row, name="plain").findings
    assert [finding.problem for finding in findings] == [Problem.ROUND_TRIP]
    assert "message 0 (user)" in findings[0].text
    assert not examined(tokenizer, row).findings


def test_counts_are_sums_over_the_rows_of_a_source(tokenizer: Tokenizer) -> None:
    rows = [
        talk("the cat", "sat", "on", "the mat", source="cats"),
        SILENT,
        talk("the cat", "sat on the mat", source="cats"),
        talk("a", "", source="cats"),
    ]
    sources = examined(tokenizer, *rows, limit=8).sources
    fmt = ChatFormat.named("picollm", tokenizer)
    rendered = [fmt.render_conversation(Conversation.from_dict(row)) for row in (rows[0], rows[2])]
    cats = sources["cats"]
    assert (cats.rows, cats.conversations, cats.assistant_turns, cats.supervised_ends) == (3, 2, 3, 3)
    assert cats.tokens == sum(len(each.ids) for each in rendered)
    assert cats.supervised_tokens == sum(sum(each.loss_mask) for each in rendered)
    long = [each for each in rendered if len(each.ids) > 8]
    assert cats.too_long == len(long) > 0
    assert cats.cut_supervised_tokens == sum(sum(each.loss_mask[8:]) for each in long)
    assert cats.dropped_supervised_tokens == sum(sum(each.loss_mask) for each in long)
    silent = sources["file"]
    assert (silent.assistant_turns, silent.supervised_ends, silent.supervised_tokens) == (1, 0, 0)


def test_a_limit_that_leaves_nothing_to_learn_is_damaging(tokenizer: Tokenizer) -> None:
    row = talk("the cat sat on the mat " * 4, "sat")
    length = int(examined(tokenizer, row).lengths[0])
    assert not examined(tokenizer, row, limit=length).findings
    cut, nothing = (examined(tokenizer, row, limit=limit).findings for limit in (length - 1, 10))
    assert [finding.problem for finding in cut] == [Problem.TOO_LONG]
    assert "it loses 1 of" in cut[0].text  # the token that ends the turn
    assert [finding.problem for finding in nothing] == [Problem.TOO_LONG, Problem.UNSUPERVISED]
