"""Answers on disk as they come, so that an interrupted evaluation goes on where it was."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picollm.paths import disk_errors


@dataclass(frozen=True)
class Given:
    """What a model gave as its answer to one question; whether it is right is judged from this."""

    text: str
    """The option letter, the continuation, or the reply as a person reads it."""
    parts: tuple[dict[str, str], ...] = ()
    """A chat reply's parts."""
    choice: int | None = None
    """The place of the most likely ending; None where no ending was that of greedy decoding."""
    ended: bool | None = None
    leaked: bool | None = None
    too_long: bool = False
    num_dropped: int = 0
    """Examples left out because the context does not hold them."""


class Journal:
    """One line of JSON per answer. Each of several processes writes its own file and reads all of them.

    The name should say everything that decides an answer: the checkpoint, the task's rows, the form.
    """

    def __init__(self, path: Path, rank: int = 0) -> None:
        self._name = path.name
        self._path = path.with_name(f"{path.name}.{rank}.jsonl")
        self.known: dict[int, Given] = {}
        self.seconds = 0.0
        """What the answers known took."""
        for file in sorted(path.parent.glob(f"{path.name}.*.jsonl")):
            self.seconds += self._read(file)

    def _read(self, path: Path) -> float:
        seconds = 0.0
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry: dict[str, Any] = json.loads(line)
                given = Given(**{**entry["given"], "parts": tuple(entry["given"]["parts"])})
                self.known[entry["index"]] = given
                seconds = max(seconds, entry["seconds"])
            except (ValueError, KeyError, TypeError):
                continue  # the line that was being written when the process ended
        return seconds

    def add(self, index: int, given: Given, seconds: float) -> None:
        """Write one answer, and how long it took since the evaluation of the task began."""
        entry = {"index": index, "seconds": self.seconds + seconds, "given": dataclasses.asdict(given)}
        with disk_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                # The line break comes first: a line that was cut off ends with it.
                file.write("\n" + json.dumps(entry, ensure_ascii=False))

    def remove(self) -> None:
        """Delete the files of all processes: the evaluation is complete."""
        for file in self._path.parent.glob(f"{self._name}.*.jsonl"):
            file.unlink(missing_ok=True)
