"""What a checkpoint remembers of how it was made: ``record.json``."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from picollm import __version__
from picollm.errors import CheckpointError
from picollm.files import RECORD, check_files, read_text

STAGES = ("pretrain", "sft", "import")
_PACKAGES = ("torch", "numpy", "tokenizers", "safetensors", "datasets")


def environment() -> dict[str, str | int]:
    """Return what a run depended on besides its inputs: versions, system and kind of processor."""
    import torch

    found: dict[str, str | int] = {"picollm": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    instructions = torch.backends.cpu.get_cpu_capability()
    processor = {"system": platform.system(), "machine": platform.machine(), "instructions": instructions}
    return found | processor | {"cpus": os.cpu_count() or 1}


@dataclass(frozen=True)
class Record:
    """How a checkpoint came to be, as JSON beside its weights; every field but ``stage`` may stay empty."""

    stage: str
    """``pretrain``, ``sft``, or ``import`` for a directory that picoLLM did not write."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's configuration as it ran."""
    seed: int | None = None
    data: list[dict[str, Any]] = field(default_factory=list)
    """One entry per source: ``source``, ``rows``, ``tokens``, ``sha256``."""
    parent: dict[str, str] | None = None
    """``name`` and ``sha256`` of the weights that training started from."""
    added_tokens: dict[str, int] = field(default_factory=dict)
    """Control tokens that the parent's tokenizer lacked, with ids: new rows, the mean of the old ones."""
    format: dict[str, Any] | None = None
    """``ChatFormat.to_record()`` of the format it was trained in; ``Checkpoint.save`` fills it."""
    metrics: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    """One entry per logged step: ``step``, ``loss`` and what else was measured."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What the run cost: ``seconds``, ``peak_rss_mib``, ``tokens_per_s``."""
    environment: dict[str, Any] = field(default_factory=environment)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    """``bytes`` and, for each 16 MiB, ``sha256`` of every other file; ``Checkpoint.save`` fills it."""
    allowed_mismatch: list[str] = field(default_factory=list)
    """The format fields that differed when it was loaded with ``allow_format_mismatch``."""

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise CheckpointError(f"record: stage is {self.stage!r}; expected one of {', '.join(STAGES)}.")

    def to_json(self) -> str:
        """Return the text of ``record.json``, with a checksum of its own; NaN and infinity become null."""
        body = _finite(asdict(self))
        return (
            json.dumps({**body, "checksum": _checksum(body)}, ensure_ascii=False, indent=1, allow_nan=False)
            + "\n"
        )

    @classmethod
    def of(cls, directory: Path) -> Record:
        """Return the record in ``directory``, or that of an import where there is none.

        Raises:
            CheckpointError: the record is damaged, or was altered.
        """
        if not (directory / RECORD).is_file():
            return cls("import")
        try:
            return cls.from_json(read_text(directory / RECORD))
        except CheckpointError as error:
            raise CheckpointError(f"{directory}: {error} Copy the checkpoint again.") from error

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Return the record that ``to_json`` wrote.

        Raises:
            CheckpointError: the text is no record, or was altered after it was written.
        """
        try:
            body = json.loads(text)
            given = body.pop("checksum")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise CheckpointError(
                "record.json cannot be read; it is damaged or no picoLLM record."
            ) from error
        if given != _checksum(body):
            raise CheckpointError(
                "record.json was altered after it was written: its checksum does not match."
            )
        unknown = set(body) - {f.name for f in fields(cls)}
        if unknown:
            raise CheckpointError(
                f"record.json has unknown fields {', '.join(sorted(unknown))}; a newer picoLLM wrote it."
            )
        blank = cls("import", environment={})
        kinds = {"seed": (int, type(None)), "parent": (dict, type(None)), "format": (dict, type(None))}
        wrong = [
            name
            for name, value in body.items()
            if not isinstance(value, kinds.get(name, type(getattr(blank, name))))
        ]
        if wrong or not all(isinstance(file, dict) for file in body.get("files", {}).values()):
            named = ", ".join(wrong) or "files"
            raise CheckpointError(f"record.json holds a value of the wrong kind in {named}.")
        return cls(**body)


def verify(directory: str | Path) -> Record:
    """Return the record of a checkpoint whose every file is, byte for byte, what was written.

    Raises:
        CheckpointError: a file is missing or altered, or there is no record to compare with.
    """
    path = Path(directory)
    if not (path / RECORD).is_file():
        raise CheckpointError(f"{path} has no {RECORD}; only checkpoints written by picoLLM can be verified.")
    record = Record.of(path)
    check_files(path, record.files)
    return record


def _checksum(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def _finite(value: Any) -> Any:
    """Return ``value`` as plain JSON data: a finished run must never fail to save because a figure is NaN."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
