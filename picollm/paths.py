"""Where artifacts live, and how they get there whole or not at all.

The only module that reads environment variables.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from picollm.errors import UnavailableError

PACKAGE = Path(__file__).parent
PICO_BASE = PACKAGE / "data" / "pico-base"


def home() -> Path:
    """Return the directory of all artifacts: ``$PICOLLM_HOME``, or ``runs`` below the current directory."""
    return Path(os.environ.get("PICOLLM_HOME") or "runs").expanduser()


def chat_checkpoint() -> Path:
    """Return where the speedrun leaves the finished chat model: what ``picollm chat`` opens by default."""
    return home() / "sft"


def environment(name: str) -> str | None:
    """Return the environment variable ``name``, or None when it is unset or empty."""
    return os.environ.get(name) or None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn a full disk, a read-only place or a missing permission below ``target`` into an UnavailableError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UnavailableError(
                f"no room left on the disk while writing {target}. Free some space and run the command again; "
                "what was complete before is untouched."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UnavailableError(
                f"not allowed to write {target} ({error.strerror}). Choose another place, or set PICOLLM_HOME."
            ) from error
        raise


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield a temporary directory that becomes ``target`` when the block ends without an error.

    A reader sees the old ``target`` or the complete new one, never a mixture: everything is synced to the
    disk before one rename. An existing ``target`` is replaced. On any error the temporary directory is removed.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            temporary.chmod(0o755)
            yield temporary
            for path in sorted(temporary.rglob("*")):
                _sync(path)
            _sync(temporary)
            replaced: Path | None = None
            if target.exists():
                replaced = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
                os.replace(target, replaced)
            os.replace(temporary, target)
            _sync(target.parent)
            if replaced is not None:
                shutil.rmtree(replaced, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield the path of a temporary file that becomes ``target`` when the block ends without an error."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            temporary.chmod(0o644)
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
