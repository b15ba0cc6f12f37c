"""Whatever a checkpoint's files hold, loading it ends in a checkpoint or in one line."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from picollm.checkpoint import Checkpoint, Record
from picollm.errors import PicoError, UnavailableError
from picollm.record import _checksum, _finite

ODD = [None, "x", -1, 0, 1e308, float("nan"), True, [], {}, [[]], 10**30, "../../etc", {"a": {"b": 1}}]


def stays_calm(directory: Path) -> None:
    """Load ``directory``; anything but a checkpoint or one line is a failure."""
    try:
        Checkpoint.load(directory)
    except PicoError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 2000


@pytest.fixture
def foreign(chat_checkpoint: Any, edited: Any) -> Path:
    return edited(chat_checkpoint("llama", "chatml"))


def test_no_value_in_config_json_is_more_than_one_line(foreign: Path) -> None:
    file = foreign / "config.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    keys = [*whole, "layer_types", "sliding_window", "quantization_config", "rope_parameters", "auto_map"]
    for index, key in enumerate(keys):
        for value in ODD[index % 5 :: 5]:
            file.write_text(json.dumps({**whole, key: value}), encoding="utf-8")
            stays_calm(foreign)
    for index, key in enumerate(("rope_type", "factor", "rope_theta", "beta_fast", "partial_rotary_factor")):
        for value in ODD[index::5]:
            yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, key: value}
            file.write_text(json.dumps({**whole, "rope_scaling": yarn}), encoding="utf-8")
            stays_calm(foreign)


def test_no_value_in_tokenizer_json_is_more_than_one_line(foreign: Path) -> None:
    file = foreign / "tokenizer.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    for index, key in enumerate(whole):
        for value in ODD[index % 5 :: 5]:
            file.write_text(json.dumps({**whole, key: value}), encoding="utf-8")
            stays_calm(foreign)
        file.write_text(json.dumps({k: v for k, v in whole.items() if k != key}), encoding="utf-8")
        stays_calm(foreign)
    for text in ("[" * 100_000, "", "{}"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(PicoError, match=r"tokenizer\.json"):
            Checkpoint.load(foreign)


def test_code_in_a_checkpoint_is_never_run(foreign: Path, tmp_path: Path) -> None:
    config = json.loads((foreign / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.T", None]}
    (foreign / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (foreign / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (foreign / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    Checkpoint.load(foreign)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no room left"),
        (errno.EACCES, "not allowed to write"),
        (errno.EROFS, "not allowed to write"),
    ],
)
def test_no_room_and_no_permission_leave_nothing_half_written(
    number: int, said: str, chat_checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Checkpoint.load(chat_checkpoint())

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr("picollm.checkpoint.write_model", fail)
    with pytest.raises(UnavailableError, match=said) as caught:
        Checkpoint.save(tmp_path / "out", ours.model, ours.tokenizer, ours.format, Record("sft"))
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_everybody_may_read_every_file(chat_checkpoint: Any, tmp_path: Path) -> None:
    directory = shutil.copytree(chat_checkpoint(), tmp_path / "copy")
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in directory.iterdir())


def test_no_value_in_record_json_is_more_than_one_line(chat_checkpoint: Any, tmp_path: Path) -> None:
    directory = shutil.copytree(chat_checkpoint("llama", "chatml"), tmp_path / "copy")
    whole = json.loads((directory / "record.json").read_text(encoding="utf-8"))
    del whole["checksum"]
    file, chat_format = next(iter(whole["files"])), whole["format"]
    entries = [(key, ODD[index % 4 :: 4]) for index, key in enumerate(whole)]
    entries += [("files", [{file: odd} for odd in ODD[::3]])]
    entries += [("files", [{file: {"bytes": odd, "sha256": odd}} for odd in ODD[1::3]])]
    entries += [("format", [{**chat_format, key: odd} for odd in ODD[2::3]]) for key in chat_format]
    for key, values in entries:
        for value in values:
            body = _finite({**whole, key: value})
            text = json.dumps({**body, "checksum": _checksum(body)})
            (directory / "record.json").write_text(text, encoding="utf-8")
            stays_calm(directory)
