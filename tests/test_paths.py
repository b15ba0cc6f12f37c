"""Artifacts arrive whole or not at all."""

from __future__ import annotations

import errno
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from picollm import paths
from picollm.errors import UnavailableError


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let the system refuse longer files in this process: the nearest thing to a full disk without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="directories change places in one step on Linux only")
def test_there_is_no_moment_without_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    with paths.atomic_directory(target) as place:
        (place / "file").write_text("old")
    monkeypatch.delattr(Path, "replace")  # one name at a time would leave a gap
    with paths.atomic_directory(target) as place:
        (place / "file").write_text("new")
    assert (target / "file").read_text() == "new" and [*tmp_path.iterdir()] == [target]


def test_without_an_exchange_the_directory_is_replaced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "_exchanged", lambda one, other: False)
    test_a_directory_appears_when_it_is_complete_and_replaces_the_old_one(tmp_path)


def test_a_directory_appears_when_it_is_complete_and_replaces_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    for content in ("old", "new"):
        with paths.atomic_directory(target) as place:
            (place / "file").write_text(content)
            assert not target.exists() or (target / "file").read_text() == "old"
    assert (target / "file").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_an_error_leaves_the_old_directory_and_no_remains(tmp_path: Path) -> None:
    with paths.atomic_directory(tmp_path / "out") as place:
        (place / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt), paths.atomic_directory(tmp_path / "out") as place:
        (place / "file").write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(ValueError, match="spoiled"), paths.atomic_file(target) as temporary:
        temporary.write_text("half")
        raise ValueError("spoiled")
    assert target.read_text() == "old"
    with paths.atomic_file(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_a_disk_without_room_is_one_line_whoever_writes(tmp_path: Path) -> None:
    with largest_file(10_000):
        with (
            pytest.raises(UnavailableError, match="no room left"),
            paths.atomic_directory(tmp_path / "a") as place,
        ):
            (place / "file").write_bytes(bytes(20_000))
        with (
            pytest.raises(UnavailableError, match="no room left"),
            paths.atomic_directory(tmp_path / "b") as place,
        ):
            save_file({"x": torch.zeros(10_000)}, place / "tensors.safetensors")
        with (
            pytest.raises(UnavailableError, match="no room left"),
            paths.atomic_file(tmp_path / "c") as place,
            place.open("wb") as file,
        ):
            np.zeros(20_000).tofile(file)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_place_that_may_not_be_written_is_one_line(tmp_path: Path, number: int) -> None:
    with pytest.raises(UnavailableError, match="not allowed to write"), paths.disk_errors(tmp_path):
        raise OSError(number, "no")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError), paths.disk_errors(tmp_path):
        raise KeyError("x")


def test_home_is_the_environment_or_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PICOLLM_HOME", raising=False)
    assert paths.home() == Path("runs")
    monkeypatch.setenv("PICOLLM_HOME", "/somewhere")
    assert paths.chat_checkpoint() == Path("/somewhere/sft")
