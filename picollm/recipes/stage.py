"""A stage of the story: done, to be continued, or to be started, decided by a digest of its inputs.

A stage leaves its result at ``out`` and its traces (state, metrics, plots, ``finished.json``) in ``out.run``
beside it. A finished stage with the same inputs costs nothing to run again; with other inputs it starts over.
The states of an unfinished run stay: whether they can be continued is the training loop's to say.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picollm import paths
from picollm.errors import InputError
from picollm.train.distributed import Ranks


def digest(inputs: Any) -> str:
    """Return the sha256 of ``inputs`` (JSON-like values, paths and dataclasses) in canonical form."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        return str(value)

    text = json.dumps(inputs, sort_keys=True, default=plain, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """Return the note at ``path``, empty when there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def peak_rss_mib() -> float:
    """Return the largest memory this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@dataclass(frozen=True)
class Stage:
    """One step that turns ``inputs`` into ``out``."""

    out: Path
    inputs: dict[str, Any]
    rows: Mapping[str, int] = field(default_factory=dict)
    """How many rows each data set has: an unfinished run is never continued, nor dropped, for fewer."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that run the stage together; the first one writes."""

    @property
    def run_dir(self) -> Path:
        """Where the stage keeps what it needs to continue, and what people look at afterwards."""
        place = self.out if self.out.name not in ("", "..") else self.out.resolve()
        return place.parent / (place.name + ".run")

    @property
    def _finished_file(self) -> Path:
        return self.run_dir / "finished.json"

    @property
    def digest(self) -> str:
        """What stands for all the inputs."""
        return digest(self.inputs)

    def finished(self) -> bool:
        """Return whether ``out`` is the complete result of exactly these inputs."""
        own = self.out.exists() and _read(self._finished_file).get("inputs_sha256") == digest(self.inputs)
        return self.ranks.agree(own)

    @contextmanager
    def running(self) -> Iterator[Callable[[], dict[str, float]]]:
        """Run the stage in this block, which leaves the result at ``out``; then the stage is finished.

        Yields:
            What the stage has taken so far: ``seconds`` (over all interrupted runs), ``peak_rss_mib``.

        Raises:
            InputError: The processes do not share a disk, or an unfinished run had more rows.
        """
        before, start = self.ranks.first_does(self._begun), time.monotonic()
        if not all(self.ranks.gather(self._begun_file.exists())):
            raise InputError(
                f"not every process sees {self.run_dir}; processes of one run need a disk that they share. "
                "Choose an --out on one."
            )

        def measured() -> dict[str, float]:
            seconds = round(before + time.monotonic() - start, 1)
            return {"seconds": seconds, "peak_rss_mib": round(peak_rss_mib())}

        try:
            yield measured
        finally:
            if self.ranks.first and self._is_begun:
                self._note(self._begun_file, measured())
        if self.ranks.first:
            self._note(self._finished_file, measured())

    @property
    def _begun_file(self) -> Path:
        return self.run_dir / "begun.json"

    def _begun(self) -> float:
        """Return the seconds of the interrupted runs that this one continues; drop what others finished."""
        found = _read(self._begun_file)
        self._drop_half_written()
        if found and not self._is_begun:
            if not self._finished_file.exists() and any(self.run_dir.glob("state/[0-9]*")):
                self._refuse_fewer_rows(found)
                return 0.0  # the loop will say what is different
            shutil.rmtree(self.run_dir)
            found = {}
        seconds = float(found.get("seconds", 0.0))
        self._note(self._begun_file, {"seconds": seconds})
        self._finished_file.unlink(missing_ok=True)
        return seconds

    @property
    def _is_begun(self) -> bool:
        """Whether what lies in the run's directory is of these inputs."""
        return bool(_read(self._begun_file).get("inputs_sha256") == digest(self.inputs))

    def _drop_half_written(self) -> None:
        """Remove what processes left beside ``out`` that were killed while writing it."""
        if not self.out.parent.is_dir():
            return
        for path in self.out.parent.iterdir():
            if re.fullmatch(rf"\.{re.escape(self.out.name)}\.[^.]+\.partial", path.name):
                shutil.rmtree(path, ignore_errors=True)

    @property
    def _recipe(self) -> str:
        return digest({name: value for name, value in self.inputs.items() if name != "data"})

    def _refuse_fewer_rows(self, found: Mapping[str, Any]) -> None:
        before = found.get("rows", {}) if found.get("recipe_sha256") == self._recipe else {}
        for name, now in self.rows.items():
            if now < before.get(name, 0):
                raise InputError(
                    f"{self.run_dir} holds an unfinished run on {before[name]} rows of {name}; it has {now} "
                    f"now. Restore the {before[name]} rows to go on, or delete {self.run_dir} to start over."
                )

    def _note(self, path: Path, measured: dict[str, float]) -> None:
        known = {"inputs_sha256": digest(self.inputs), "recipe_sha256": self._recipe, "rows": dict(self.rows)}
        with paths.atomic_file(path) as temporary:
            temporary.write_text(json.dumps({**known, **measured}), encoding="utf-8")
