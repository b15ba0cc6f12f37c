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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picollm import paths
from picollm.errors import InputError, PicoError
from picollm.train.distributed import Ranks
from picollm.train.state import another_run


def digest(inputs: Any) -> str:
    """Return the sha256 of ``inputs`` (JSON-like values, paths and dataclasses) in canonical form."""
    return hashlib.sha256(_canonical(inputs).encode()).hexdigest()


def _canonical(inputs: Any) -> str:
    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        return str(value)

    return json.dumps(inputs, sort_keys=True, default=plain, ensure_ascii=False)


def _flat(inputs: Any, name: str = "") -> dict[str, Any]:
    """Return every value inside ``inputs`` under the names that lead to it, but for those of parts."""
    if not isinstance(inputs, (dict, list)):
        return {name: inputs}
    flat: dict[str, Any] = {}
    for key, value in inputs.items() if isinstance(inputs, dict) else enumerate(inputs, start=1):
        flat |= _flat(value, name if key in ("sft", "pretrain", "train") else f"{name} {key}".strip())
    return flat


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
    opened: float = field(default_factory=time.monotonic)
    """Since when the stage has been worked on, as ``time.monotonic`` counts."""

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
            InputError: The processes do not share a disk, or ``check`` finds something.
        """
        before = self.ranks.first_does(self._begun)
        if not all(self.ranks.gather(self._begun_file.exists())):
            raise InputError(
                f"not every process sees {self.run_dir}; processes of one run need a disk that they share. "
                "Choose an --out on one."
            )

        def measured() -> dict[str, float]:
            seconds = round(before + time.monotonic() - self.opened, 1)
            return {"seconds": seconds, "peak_rss_mib": round(peak_rss_mib())}

        try:
            yield measured
        except BaseException:
            if self.ranks.first and self._is_begun:
                with suppress(PicoError):  # on a full disk, what is already known is what must be said
                    self._note(self._begun_file, measured())
            raise
        if self.ranks.first:
            self._note(self._finished_file, measured())

    @property
    def _begun_file(self) -> Path:
        return self.run_dir / "begun.json"

    def _begun(self) -> float:
        """Return the seconds of the interrupted runs that this one continues; drop what others finished."""
        self._check()
        found = _read(self._begun_file)
        self._drop_half_written()
        if found and not self._is_begun:
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

    def check(self) -> None:
        """Return when nothing of an unfinished run would be lost: it is of these inputs, or has no state.

        Raises:
            InputError: It is of others; the text names the first that differs.
        """
        self.ranks.first_does(self._check)

    def _check(self) -> None:
        found = _read(self._begun_file)
        if not found or self._is_begun or self._finished_file.exists():
            return
        if not any(self.run_dir.glob("state/[0-9]*")):
            return
        before, now = _flat(found.get("inputs", {})), _flat(json.loads(_canonical(self.inputs)))
        changed = [name for name in before | now if before and before.get(name) != now.get(name)]
        name = min(changed, key=lambda name: name.startswith("data"), default="other settings")
        for rows, count in self.rows.items() if name.startswith("data") else ():
            if count < found.get("rows", {}).get(rows, 0):
                expected = found["rows"][rows]
                raise InputError(
                    f"{self.run_dir} holds an unfinished run on {expected} rows of {rows}; it has {count} "
                    f"now. Restore the {expected} rows to go on, or delete {self.run_dir} to start over."
                )
        raise another_run(self.run_dir, name, before.get(name), now.get(name))

    def _note(self, path: Path, measured: dict[str, float]) -> None:
        inputs = json.loads(_canonical(self.inputs))
        known = {"inputs_sha256": digest(self.inputs), "inputs": inputs, "rows": dict(self.rows)}
        with paths.atomic_file(path) as temporary:
            temporary.write_text(json.dumps({**known, **measured}), encoding="utf-8")
