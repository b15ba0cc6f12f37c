"""Trackers get every record under its step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import pytest

from picollm.errors import InputError, UnavailableError
from picollm.train.tracking import Trackers

POINTS = [{"step": step, "loss": 3.0 - step, "validation/chat": 1.0} for step in (1, 2)]


def test_tensorboard_files_hold_the_records(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    trackers = Trackers.of(tmp_path, None, {}, first=True)
    for point in POINTS:
        trackers.add(point)
    trackers.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, found = file.read_bytes(), []
    while data:  # length (8), its checksum (4), an event, its checksum (4)
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        data = data[16 + size :]
    assert found == [
        (name, point["step"], point[key])
        for point in POINTS
        for name, key in (("train/loss", "loss"), ("validation/chat", "validation/chat"))
    ]


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    trackers = Trackers.of(tmp_path, None, {}, first=False)
    trackers.add(POINTS[0])
    trackers.close()
    assert not list(tmp_path.iterdir())


def test_a_service_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UnavailableError, match="pip install wandb"):
        Trackers.of(tmp_path, "wandb", {}, first=True)
    with pytest.raises(InputError, match="expected one of wandb, trackio"):
        Trackers.of(tmp_path, "mlflow", {}, first=True)


def test_a_service_is_opened_told_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple] = []
    service = ModuleType("trackio")  # its three functions have wandb's signatures
    service.init = lambda *, project, name, config: said.append(("init", project, name, config))
    service.log = lambda metrics, *, step: said.append(("log", step, metrics["loss"]))
    service.finish = lambda: said.append(("finish",))
    monkeypatch.setitem(sys.modules, "trackio", service)
    trackers = Trackers.of(tmp_path / "sft.run", "trackio", {"seed": 1}, first=True)
    trackers.add(POINTS[0])
    trackers.close()
    assert said == [("init", "picollm", "sft", {"seed": 1}), ("log", 1, 2.0), ("finish",)]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(UnavailableError, match="tensorboard"):
        Trackers.of(tmp_path, None, {}, first=True).add(POINTS[0])


def test_a_full_disk_is_one_line(
    disk: Path, nearly_full: Callable[[int], AbstractContextManager[Path]]
) -> None:
    trackers = Trackers.of(disk, None, {}, first=True)
    trackers.add(POINTS[0])
    with nearly_full(0), pytest.raises(UnavailableError, match="no room left on the disk"):
        for _ in range(1000):  # what is left of a page
            trackers.add(POINTS[1])
    trackers.close()
