"""``picollm verify``: a checkpoint's files and the data it saw, against what lies there today."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from picollm.checkpoint import Checkpoint
from picollm.cli.main import main
from picollm.data.mixture import Source
from picollm.eval.report import read_comparison
from picollm.recipes.config import Recipe
from picollm.recipes.provenance import verify_data
from picollm.recipes.sft import finetune
from picollm.train.config import TrainConfig

TALK = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}


def test_data_that_nobody_touched_are_what_the_checkpoint_saw(
    story: tuple[Path, Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(story[0] / "sft"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["changed"] == 0
    assert [each["name"] for each in document["sources"]] == [source.task for source in story[1].mixture]
    assert main(["verify", str(story[0] / "base")]) == 0
    assert "1 sources, 0 changed" in capsys.readouterr().err


def test_changed_fewer_and_missing_rows_are_named(
    story: tuple[Path, Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talks = tmp_path / "root" / "talks.jsonl"
    talks.parent.mkdir()
    talks.write_text("".join(json.dumps({**TALK, "kind": "ab"[n % 2]}) + "\n" for n in range(200)))
    one = dataclasses.replace(
        story[1],
        mixture=(Source("jsonl", location="talks.jsonl", filter={"kind": "a"}), Source("spelling", limit=20)),
        sft=dataclasses.replace(story[1].sft, train=TrainConfig(num_steps=1, precision="fp32")),
    )
    record = finetune(one, tmp_path / "out", data_root=talks.parent)
    assert record.data[0]["steps"] == {"all": 200, "train": 196, "filter": 100}
    assert not any(each.differences for each in verify_data(record, talks.parent))
    talks.write_text("".join(json.dumps({**TALK, "kind": "a"}) + "\n" for _ in range(150)))
    assert main(["verify", str(tmp_path / "out"), "--data-root", str(talks.parent)]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "talks.jsonl is" in told and "150 rows (all), was 200; 147 rows (train), was 196" in told
    assert "147 rows (filter), was 100" in told and "2 sources, 1 changed" in told
    talks.unlink()
    gone, words = verify_data(Checkpoint.load(tmp_path / "out").record, talks.parent)
    assert "cannot read" in gone.differences[0] and not words.differences


def test_a_checkpoint_altered_after_writing_is_refused(
    story: tuple[Path, Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (story[0] / "sft").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text("{}")
    assert main(["verify", str(tmp_path)]) == 3
    assert "config.json missing or altered" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "nothing")]) == 3
    assert "has no record.json" in capsys.readouterr().err


def test_the_report_says_which_test_rows_training_data_hold(story: tuple[Path, Recipe]) -> None:
    record = Checkpoint.load(story[0] / "sft").record
    found = [each for source in record.data for each in source["overlap"]]
    told = read_comparison(story[0] / "report").overlaps
    assert [(each.evaluation, each.found) for each in told] == [
        (each["file"], each["found"]) for each in found
    ]
    assert all(source["compared_with"] for source in record.data)
    page = (story[0] / "report" / "report.html").read_text()
    assert ("Test rows in the training data" in page) == bool(told)
