"""Broken data stops a run with one line that names the file and the row, and leaves no checkpoint behind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from picollm.cli.main import main
from picollm.recipes.config import Recipe

TALK = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
RECIPE = """
name = "mine"
[sft]
max_tokens = 300
num_validation_rows = 2
[sft.train]
num_steps = 2
[[mixture]]
task = "{task}"
location = "{location}"
why = "a test"
"""


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def two_users(root: Path) -> None:
    twice = {"messages": [*TALK["messages"], TALK["messages"][1]]}
    (root / "talks.jsonl").write_text(lines(*[TALK] * 30, twice, *[TALK] * 30))


def not_json(root: Path) -> None:
    (root / "talks.jsonl").write_text(lines(TALK) + "{not json}\n" + lines(*[TALK] * 60))


def empty(root: Path) -> None:
    (root / "talks.jsonl").write_text("")


def truncated(root: Path) -> None:
    (root / "talks.jsonl.gz").write_bytes(gzip.compress(lines(*[TALK] * 2000).encode())[:-40])


def one_word(root: Path) -> None:
    (root / "words.txt").write_text("apple\n")


def missing(root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "task", "location", "said"),
    [
        (two_users, "smoltalk", "talks.jsonl", "row 30"),
        (not_json, "smoltalk", "talks.jsonl", "row 1"),
        (empty, "smoltalk", "talks.jsonl", "talks.jsonl"),
        (truncated, "smoltalk", "talks.jsonl.gz", "talks.jsonl.gz"),
        (one_word, "spelling", "words.txt", "words.txt"),
        (missing, "smoltalk", "talks.jsonl", "talks.jsonl"),
        (missing, "smoltalk", f"hub:no/such-set@{'0' * 40}", "hub:no/such-set"),
    ],
)
def test_broken_data_is_named(
    spoil: Callable[[Path], None],
    task: str,
    location: str,
    said: str,
    story: tuple[Path, Recipe],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spoil(tmp_path)
    config, out = tmp_path / "recipe.toml", tmp_path / "out"
    config.write_text(RECIPE.format(task=task, location=location))
    arguments = ["--config", str(config), "--base", str(story[0] / "base"), "--out", str(out)]
    code = main(["sft", *arguments, "--data-root", str(tmp_path)])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert code in (2, 3) and last.startswith("picollm: ") and said in last
    assert not out.exists()
