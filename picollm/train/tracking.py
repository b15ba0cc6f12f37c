"""Where metrics go besides metrics.jsonl: TensorBoard files, and a service of the user's choice."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from picollm.errors import InputError, UnavailableError
from picollm.paths import disk_errors
from picollm.train.metrics import Point

SERVICES = ("wandb", "trackio")


class Trackers:
    """Passes every record of a run on; opened by the first record of a process that writes."""

    def __init__(
        self, directory: Path | None, service: Any = None, settings: Mapping[str, Any] | None = None
    ):
        self._directory, self._service, self._settings = directory, service, dict(settings or {})
        self._board: Any = None
        self._open = False

    @classmethod
    def of(cls, run_dir: Path, service: str | None, settings: Mapping[str, Any], first: bool) -> Trackers:
        """Return TensorBoard files in ``run_dir/tensorboard`` and ``service``; nothing unless ``first``.

        Raises:
            InputError: an unknown service.
            UnavailableError: its package is not installed.
        """
        module = None if service is None else _package(service)
        return cls(run_dir / "tensorboard", module, settings) if first else cls(None)

    def add(self, point: Point) -> None:
        """Pass one record on, under its step."""
        if self._directory is None:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        step = int(point["step"])
        if not self._open:
            self._begin(self._directory, step)
        names = {name: name if "/" in name else f"train/{name}" for name in point if name != "step"}
        values = [Summary.Value(tag=tag, simple_value=point[name]) for name, tag in names.items()]
        with disk_errors(self._directory):
            self._board.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
            self._board.flush()
        if self._service is not None:
            self._service.log(dict(point), step=step)

    def _begin(self, directory: Path, step: int) -> None:
        # Not SummaryWriter: its thread would hide a full disk.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._board = EventsWriter(str(directory / "events"), f".{os.getpid()}")
            # What an interrupted run wrote beyond the state that it resumed from is hidden by TensorBoard.
            self._board.write_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))
        if self._service is not None:
            run = directory.parent
            self._service.init(project="picollm", name=run.name.removesuffix(".run"), config=self._settings)
        self._open = True

    def close(self) -> None:
        """Finish the files; the run is over."""
        if self._open:
            with suppress(OSError):  # every record was flushed
                self._board.close()
            if self._service is not None:
                self._service.finish()
            self._open = False


NONE = Trackers(None)


def _package(service: str) -> Any:
    if service not in SERVICES:
        raise InputError(f"--track {service} is not known; expected one of {', '.join(SERVICES)}.")
    try:
        return importlib.import_module(service)
    except ImportError as error:
        raise UnavailableError(
            f"--track {service} needs a package that is not installed: pip install {service}"
        ) from error
