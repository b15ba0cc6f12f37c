"""A stage of the story: done, to be continued, or to be started, decided by a digest of its inputs.

A stage leaves its result at ``out`` and its traces (state, metrics, plots, ``finished.json``) in ``out.run``
beside it. A finished stage with the same inputs costs nothing to run again; with other inputs it starts over.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picollm import paths


def digest(inputs: Any) -> str:
    """Return the sha256 of ``inputs`` (JSON-like values, paths and dataclasses) in canonical form."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        return str(value)

    text = json.dumps(inputs, sort_keys=True, default=plain, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def peak_rss_mib() -> float:
    """Return the largest memory this process has held so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@dataclass(frozen=True)
class Stage:
    """One step that turns ``inputs`` into ``out``."""

    out: Path
    inputs: dict[str, Any]

    @property
    def run_dir(self) -> Path:
        """Where the stage keeps what it needs to continue, and what people look at afterwards."""
        return self.out.with_name(self.out.name + ".run")

    @property
    def _finished_file(self) -> Path:
        return self.run_dir / "finished.json"

    def finished(self) -> bool:
        """Return whether ``out`` is the complete result of exactly these inputs."""
        try:
            note = json.loads(self._finished_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return self.out.exists() and note.get("inputs_sha256") == digest(self.inputs)

    @contextmanager
    def running(self) -> Iterator[dict[str, float]]:
        """Run the stage in this block: clear what other inputs left, and mark it finished at the end.

        Yields:
            The measurements of the stage, filled when the block has ended: ``seconds``, ``peak_rss_mib``.
        """
        inputs_file = self.run_dir / "inputs.json"
        started = digest(self.inputs)
        if inputs_file.exists() and json.loads(inputs_file.read_text(encoding="utf-8")) != started:
            shutil.rmtree(self.run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._finished_file.unlink(missing_ok=True)
        with paths.atomic_file(inputs_file) as temporary:
            temporary.write_text(json.dumps(started), encoding="utf-8")

        measured: dict[str, float] = {}
        start = time.monotonic()
        yield measured
        measured |= {"seconds": round(time.monotonic() - start, 1), "peak_rss_mib": round(peak_rss_mib())}
        with paths.atomic_file(self._finished_file) as temporary:
            temporary.write_text(json.dumps({"inputs_sha256": started, **measured}), encoding="utf-8")
