"""A record survives JSON, notices changes, and never fails to be written."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from picollm import files
from picollm.errors import CheckpointError
from picollm.record import Record, environment


def test_a_record_survives_json() -> None:
    record = Record(
        "sft", config={"a": [1, 2.5, None, True]}, data=[{"source": "é", "rows": 3}], parent={"name": "x"}
    )
    assert Record.from_json(record.to_json()) == record


def test_what_json_cannot_say_does_not_stop_a_finished_run() -> None:
    record = Record("pretrain", metrics={"loss": float("inf"), "ids": (1, 2), 3: frozenset({4})})
    assert Record.from_json(record.to_json()).metrics == {"loss": None, "ids": [1, 2], "3": [4]}


def test_every_change_of_the_text_is_noticed() -> None:
    text = Record("sft", seed=12).to_json()
    with pytest.raises(CheckpointError, match="altered"):
        Record.from_json(text.replace("12", "13", 1))
    for broken in ("", "{}", "[]", "null", text[:-20], "[" * 100_000):
        with pytest.raises(CheckpointError, match="cannot be read"):
            Record.from_json(broken)


def test_an_unknown_stage_or_field_is_named() -> None:
    with pytest.raises(CheckpointError, match="stage is 'rlhf'"):
        Record("rlhf")


def test_the_environment_names_versions_and_no_place() -> None:
    found = environment()
    assert {"python", "torch", "system", "cpus"} <= set(found)
    assert "/" not in json.dumps(found)


def test_every_piece_of_a_large_file_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE_BYTES", 1000)
    monkeypatch.setattr(files, "_BUFFER_BYTES", 300)
    whole, file = random.Random(0).randbytes(3500), tmp_path / "model.safetensors"
    file.write_bytes(whole)
    written = files.fingerprint(file)
    pieces = [whole[start : start + 1000] for start in range(0, 3500, 1000)]
    assert written == {"bytes": 3500, "sha256": [hashlib.sha256(piece).hexdigest() for piece in pieces]}
    files.check_files(tmp_path, {file.name: written})
    for at in (0, 999, 1000, 1299, 3499):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match=r"model\.safetensors missing or altered"):
            files.check_files(tmp_path, {file.name: written})
        files.check_files(tmp_path, {file.name: written}, hashed=False)
