"""``picollm check``: exit codes, one JSON document, and tables that say what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from picollm.chat.format import ChatFormat
from picollm.cli.main import main
from picollm.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("checkpoint")
    Tokenizer.train(["Hi. Hello."] * 9, 300, ChatFormat.required_tokens("picollm")).save(directory)
    return str(directory)


def write(path: Path, *answers: Any) -> str:
    rows = [
        {"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": answer}]}
        for n, answer in enumerate(answers)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_clean_set_passes(tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "clean.jsonl", "Hello.", "Good day.")
    assert main(["check", data, "--checkpoint", checkpoint]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "nothing would damage training" in err and "clean.jsonl" in err


def test_a_damaging_set_fails_and_says_where(
    tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "bad.jsonl", "Hello.", "", 7, "Hello.")
    held_out = write(tmp_path / "test.jsonl", "Hello.")
    arguments = [
        "check",
        data,
        "--checkpoint",
        checkpoint,
        "--max-tokens",
        "9",
        "--against",
        held_out,
        "--json",
    ]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["damaging"] and document["total"]["rows"] == 4
    assert {each["problem"] for each in document["problems"]} >= {"empty", "schema", "evaluation", "too_long"}
    assert "bad.jsonl, row 1: message 1 (assistant) is empty" in err
    assert "bad.jsonl, row 2: message 1: content is a number" in err
    assert "test.jsonl" in err and "> 9" in err and "would damage training" in err


def test_another_format_on_the_same_tokenizer(
    tmp_path: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "data.jsonl", "Hello.")
    assert main(["check", data, "--checkpoint", checkpoint, "--format", "chatml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"]["name"] == "chatml"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl"),
        (["{data}", "nowhere"], "nowhere"),
        (["{data}", "--against", "nowhere.parquet"], "nowhere.parquet"),
        (["{data}", "--format", "nosuch"], "nosuch"),
        (["{data}", "--max-tokens", "0"], "0; expected at least 1"),
        (["{data}", "--workers", "0"], "workers is 0"),
        (["hub:no/revision"], "revision"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    checkpoint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write(tmp_path / "data.jsonl", "Hello.")
    given = [argument.replace("{data}", data) for argument in arguments]
    assert main(["check", *given, "--checkpoint", checkpoint]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and error.startswith("picollm: ") and "\n" not in error


def test_a_checkpoint_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "data.jsonl", "Hello.")
    assert main(["check", data, "--checkpoint", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
