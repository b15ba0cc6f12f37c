"""Checks of whole data sets: files in, one report out."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from picollm.chat.conversation import Conversation
from picollm.chat.format import ChatFormat
from picollm.data import primer
from picollm.data.check.check import _chunks, check, open_sets
from picollm.data.check.examiner import Examiner
from picollm.data.check.overlap import EvaluationTexts
from picollm.data.check.problem import Problem
from picollm.data.check.report import Report
from picollm.data.rows import Rows, rows_of
from picollm.data.workers import in_order
from picollm.errors import DataError, InputError
from picollm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def fmt() -> ChatFormat:
    texts = [str(row["messages"]) for row in primer.rows("smoltalk", "train", limit=50)]
    tokenizer = Tokenizer.train(texts, 600, ChatFormat.required_tokens("picollm"))
    return ChatFormat.named("picollm", tokenizer)


def talk(question: str, answer: str = "Yes.", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **fields}


def primer_rows(split: str, limit: int) -> Rows:
    return rows_of(primer.rows("smoltalk", split, limit=limit), split)


def found(report: Report) -> dict[Problem, int]:
    return {each.problem: each.rows for each in report.problems}


def test_a_clean_set_damages_nothing(fmt: ChatFormat) -> None:
    rows = primer_rows("train", 300)
    report = check([rows], fmt)
    assert not report.damaging
    assert report.total.rows == report.total.conversations == 300
    rendered = [fmt.render_conversation(each) for each in map(Conversation.from_dict, rows)]
    assert report.total.tokens == sum(len(each.ids) for each in rendered)
    assert report.total.supervised_tokens == sum(sum(each.loss_mask) for each in rendered)
    assert report.lengths["longest"] == max(len(each.ids) for each in rendered)
    assert report.total.supervised_end_share == 1.0


def test_files_are_read_to_the_end_whatever_is_in_them(fmt: ChatFormat, tmp_path: Path) -> None:
    lines = [json.dumps(talk("Hi")).encode(), b"{", b"\xff\xfe\xfd", b"[1]", b'{"messages": 1}']
    lines += [json.dumps(talk("Well?", "")).encode(), json.dumps(talk("Last.")).encode()]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines[:3])))
    report = check(open_sets([tmp_path]), fmt, examples=10)
    assert found(report) == {
        Problem.UNREADABLE: 5,
        Problem.SCHEMA: 1,
        Problem.EMPTY: 1,
        Problem.DUPLICATE: 1,
    }
    assert report.damaging and report.total.rows == 10 and report.total.conversations == 3
    unreadable = report.problems[0].examples
    assert [(Path(place.file).name, place.row) for place in unreadable] == [
        ("a.jsonl", 1),
        ("a.jsonl", 2),
        ("a.jsonl", 3),
        ("b.jsonl.gz", 1),
        ("b.jsonl.gz", 2),
    ]
    assert str(unreadable[0]).startswith(f"{tmp_path / 'a.jsonl'}, row 1: line 2, no valid JSON")
    (copy,) = report.problems[-1].examples
    assert (Path(copy.file).name, copy.row) == ("b.jsonl.gz", 0)
    assert copy.text == f"the same as {tmp_path / 'a.jsonl'}, row 0"


def test_every_count_is_whole_while_places_are_the_first_few(fmt: ChatFormat) -> None:
    rows = rows_of([talk("Hi", "") for _ in range(700)], "many")
    report = check([rows], fmt, examples=2)
    (empty,) = report.problems
    assert empty.rows == 700 and [place.row for place in empty.examples] == [0, 1]
    assert not check([rows], fmt, examples=0).problems[0].examples


def test_duplicates_across_chunks_and_files(fmt: ChatFormat) -> None:
    rows = primer.rows("smoltalk", "train", limit=400)
    words = " ".join(f"w{number}" for number in range(60))
    one = rows_of([*rows, talk(words, source="mine")], "one")
    two = rows_of([rows[3], talk(f"{words} more"), talk(words.upper())], "two")
    before = found(check([one], fmt))
    report = check([one, two], fmt, examples=1000)
    assert found(report)[Problem.DUPLICATE] == before.get(Problem.DUPLICATE, 0) + 1
    assert found(report)[Problem.NEAR_DUPLICATE] == before.get(Problem.NEAR_DUPLICATE, 0) + 2
    near = report.problems[-1].examples[-2:]
    assert [(place.file, place.row) for place in near] == [("two", 1), ("two", 2)]
    assert near[1].text == "1.00 like one, row 400"
    assert not report.damaging


def test_evaluation_rows_in_the_data_are_damaging(fmt: ChatFormat) -> None:
    question = "how many apples are left when five of the twelve apples have been eaten by the children"
    held_out = rows_of([{"question": question, "answer": "7"}, {"question": "What?"}], "test")
    data = rows_of([talk("Hi"), talk(f"Tell me, {question}?")], "train")
    report = check([data], fmt, against=[held_out])
    (shared,) = report.problems
    assert shared.problem is Problem.EVALUATION and report.damaging
    assert str(shared.examples[0]).endswith(
        "message 0, 'how many apples are left when five of the twelve apples have been' is in test, row 0"
    )
    assert [(each.rows, each.found, each.grams) for each in report.overlaps] == [(2, 1, 1)]


def test_several_processes_show_the_same_in_the_same_order(fmt: ChatFormat) -> None:
    sets = [rows_of([*primer_rows("train", 600), talk("Hi", ""), talk("a")], "train")]
    examiner = Examiner(fmt, 40, EvaluationTexts([primer_rows("test", 50)]))
    alone, together = (
        in_order(examiner.examine, _chunks(sets, ["messages"] * len(sets)), workers) for workers in (1, 2)
    )
    for one, other in itertools.zip_longest(alone, together):
        assert (one.findings, one.sources) == (other.findings, other.sources)
        for name in ("rows", "lengths", "keys", "signatures"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist()
        assert one.matches.first == other.matches.first


def test_the_report_is_json(fmt: ChatFormat) -> None:
    rows = rows_of([talk("Hi", source="a"), talk("Hi", ""), {"messages": 3, "source": 5}], "three")
    report = check([rows], fmt, limit=5, against=[rows_of([talk("Hi")], "test")])
    document = json.loads(json.dumps(report.to_dict()))
    assert document["damaging"] is True and document["limit"] == 5
    assert document["files"] == [{"file": "three", "rows": 3, "sha256": rows.digest, "layout": "messages"}]
    assert document["sources"].keys() == {"a", "three"}
    assert document["sources"]["a"]["supervised_end_share"] == 1.0
    assert [each["problem"] for each in document["problems"]] == [
        "schema",
        "empty",
        "unsupervised",
        "evaluation",
        "too_long",
    ]
    assert document["overlaps"][0] | {"file": ""} == {
        "file": "",
        "rows": 1,
        "found": 1,
        "whole": 1,
        "texts": 0,
        "grams": 0,
    }


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"examples": -1}, {"workers": 0}])
def test_numbers_out_of_range(fmt: ChatFormat, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} is .*expected at least"):
        check([rows_of([talk("Hi")], "one")], fmt, **wrong)


def test_what_is_no_data_set_is_refused_before_any_work(fmt: ChatFormat, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        open_sets([tmp_path / "nowhere.jsonl"])
    (tmp_path / "notes.md").write_text("Hi")
    with pytest.raises(DataError, match=r"notes\.md"):
        open_sets([tmp_path / "notes.md"])
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(DataError, match="row 0"):
        check([rows_of([talk("Hi")], "one")], fmt, against=open_sets([tmp_path / "bad.jsonl"]))


def test_real_conversations(fmt: ChatFormat, shared_data: Path) -> None:
    (rows,) = open_sets([shared_data / "chat" / "mix" / "test.parquet"])
    report = check([rows[:400]], fmt, limit=512, against=[rows[390:]])
    assert report.total.conversations == 400 and report.total.supervised_end_share == 1.0
    assert len(report.sources) > 10
    assert report.overlaps[0].whole >= 10
