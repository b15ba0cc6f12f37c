"""What is written is read again, whatever happened to the last line, by any number of processes."""

from __future__ import annotations

from pathlib import Path

from picollm.eval.journal import Given, Journal

REPLY = Given("it is 5 – ½", ({"type": "text", "text": "it is 5"},), ended=True, leaked=False)


def test_answers_come_back(tmp_path: Path) -> None:
    first = Journal(tmp_path / "eval" / "gsm8k.chat.0a", 0)
    assert first.known == {} and first.seconds == 0
    first.add(3, REPLY, 1.5)
    first.add(1, Given("B"), 2.5)
    second = Journal(tmp_path / "eval" / "gsm8k.chat.0a", 1)
    second.add(2, Given("C"), 1.0)
    again = Journal(tmp_path / "eval" / "gsm8k.chat.0a")
    assert again.known == {3: REPLY, 1: Given("B"), 2: Given("C")}
    assert again.seconds == 2.5 + 3.5  # the second process took what the first had spent for its beginning
    assert Journal(tmp_path / "eval" / "gsm8k.chat.0b").known == {}
    again.remove()
    assert list((tmp_path / "eval").iterdir()) == []


def test_a_line_cut_off_costs_one_answer(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "mmlu")
    journal.add(0, Given("A"), 1.0)
    journal.add(1, Given("B"), 2.0)
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-9])
    again = Journal(tmp_path / "mmlu")
    assert again.known == {0: Given("A")}
    again.add(1, Given("D"), 1.0)
    assert Journal(tmp_path / "mmlu").known == {0: Given("A"), 1: Given("D")}
