"""The files of a checkpoint: read within limits, and compared with what was written.

``record.json`` remembers of every other file its size and a SHA-256 of each 16 MiB. One hash over a whole
file would keep a single core busy for longer than reading the file takes; pieces are checked on all cores.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from picollm.errors import CheckpointError, InputError

RECORD, TEMPLATE = "record.json", "chat_template.jinja"
PIECE_BYTES = 16 << 20
_BUFFER_BYTES = 256 << 10  # small enough to stay in a core's cache between reading and hashing
_TEXT_BYTES = 64 << 20


def check_replaceable(directory: Path) -> None:
    """Raise InputError when ``directory`` holds something that is no checkpoint and not ours to replace."""
    if not directory.exists() or (directory / RECORD).is_file():
        return
    if not directory.is_dir() or any(directory.iterdir()):
        raise InputError(
            f"{directory} exists and is no checkpoint; it will not be replaced. Choose another place."
        )


def fingerprint(path: Path) -> dict[str, Any]:
    """Return the size of a file and the SHA-256 of each of its pieces, as ``record.json`` has them."""
    size = path.stat().st_size
    with ThreadPoolExecutor(os.cpu_count()) as cores:
        pieces = cores.map(lambda start: _piece_sha256(path, start), range(0, size, PIECE_BYTES))
        return {"bytes": size, "sha256": list(pieces)}


def _piece_sha256(path: Path, start: int) -> str:
    """Return the hash of one piece; reading and hashing both release the interpreter to other threads."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_BUFFER_BYTES))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        left = PIECE_BYTES
        while left and (num_read := file.readinto(buffer[:left])):
            digest.update(buffer[:num_read])
            left -= num_read
    return digest.hexdigest()


def check_files(directory: Path, files: Mapping[str, Mapping[str, Any]], *, hashed: bool = True) -> None:
    """Raise CheckpointError unless ``files`` are what was written; without ``hashed`` their sizes decide."""

    def same(file: Path, written: Mapping[str, Any]) -> bool:
        if not file.is_file() or file.stat().st_size != written.get("bytes"):
            return False
        return not hashed or fingerprint(file) == written

    try:
        altered = [name for name, written in files.items() if not same(directory / Path(name).name, written)]
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read ({error.strerror}).") from error
    if altered:
        raise CheckpointError(
            f"{directory}: {', '.join(altered)} missing or altered after writing. Copy it again."
        )


def read_text(path: Path) -> str:
    """Return the text of a small file. Raises CheckpointError where it is missing, huge or no UTF-8."""
    try:
        size = path.stat().st_size
        if size > _TEXT_BYTES:
            raise CheckpointError(f"{path} is {size:,} bytes; expected at most {_TEXT_BYTES:,}.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path} is not UTF-8 (byte {error.start}); it is damaged. Copy it again."
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}). Expected a checkpoint directory."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises CheckpointError where there is none."""
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: it is not JSON. Copy it again.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is damaged: expected a JSON object, found {type(found).__name__}.")
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as a JSON file that people can read."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
