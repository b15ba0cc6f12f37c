"""A location is a directory, or a Hub id, or one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from picollm.errors import CheckpointError, InputError, UnavailableError
from picollm.hub import resolve


def test_a_directory_is_itself(tmp_path: Path) -> None:
    assert resolve(tmp_path) == tmp_path and resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("location", ["./runs/sft", "/nowhere/at/all", "a/b/c", "name", "~/x", "", "../x"])
def test_what_is_neither_is_refused_without_asking_the_hub(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "..")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    if location:
        with pytest.raises(CheckpointError, match="there is no checkpoint at"):
            resolve(location)


def test_a_place_beside_an_existing_directory_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    with pytest.raises(CheckpointError, match="there is no checkpoint at runs/sft"):
        resolve("runs/sft")


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file"):
        resolve(tmp_path / "file")


def test_only_data_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve("org/name", "v1") == tmp_path
    assert asked["name"] == "org/name" and asked["revision"] == "v1"
    assert asked["allow_patterns"] == ["*.json", "*.jinja", "*.safetensors"]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (errors.GatedRepoError, UnavailableError, "accepted license"),
        (errors.RepositoryNotFoundError, CheckpointError, "neither a directory here nor a public model"),
        (errors.RevisionNotFoundError, InputError, "no revision 'v9'"),
        (errors.LocalEntryNotFoundError, UnavailableError, "did not answer"),
        (ConnectionError, UnavailableError, "did not answer"),
    ],
)
def test_what_the_hub_answers_becomes_one_line(
    error: type[Exception], kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        problem = error.__new__(error)
        Exception.__init__(problem, "first line\nsecond line")
        raise problem

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(kind, match=message) as caught:
        resolve("org/name", "v9")
    assert "\n" not in str(caught.value)
