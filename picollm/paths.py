"""Where artifacts live, and how they get there whole or not at all.

The only module that reads environment variables.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from picollm.errors import UnavailableError

PACKAGE = Path(__file__).parent
PICO_BASE = PACKAGE / "data" / "pico-base"
CONFIGS = PACKAGE / "configs"  # a link to the configs/ of the repository, and files in an installed package


def home() -> Path:
    """Return the directory of all artifacts: ``$PICOLLM_HOME``, or ``runs`` below the current directory."""
    return Path(os.environ.get("PICOLLM_HOME") or "runs").expanduser()


def chat_checkpoint() -> Path:
    """Return where the speedrun leaves the finished chat model: what ``picollm chat`` opens by default."""
    return home() / "sft"


def environment(name: str) -> str | None:
    """Return the environment variable ``name``, or None when it is unset or empty."""
    return os.environ.get(name) or None


def bound_kernel_caches(num_kernels: int = 64) -> None:
    """Keep the CPU kernels that torch makes per tensor shape from filling the memory; call before training.

    A flat stream has a new shape in almost every step, and oneDNN keeps a kernel for each of the last 1,024:
    a run of 6 minutes grew to 3.6 GB. The 64 newest serve all layers of one batch; they cost no speed.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(num_kernels))


def let_waiting_threads_sleep() -> None:
    """Let a thread that waits for another one sleep soon; call before torch is loaded, which reads this.

    GCC's OpenMP lets it spin for milliseconds: where cores are shared, on the core that the other one needs,
    which makes everything several times slower. 1,000 turns are its own choice where it knows that there are
    more threads than cores. What the user says about it stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_PLACE = (errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.EISDIR, errno.ELOOP)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn a full disk, a read-only place or a missing permission into an UnavailableError."""
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        if number in _FULL:
            raise UnavailableError(
                f"no room left on the disk while writing {target}. Free some space and repeat the command: "
                "nothing that was complete is lost."
            ) from error
        if number in _FORBIDDEN:
            raise UnavailableError(
                f"not allowed to write {target} ({os.strerror(number)}). Choose another place."
            ) from error
        if number in _NO_PLACE and isinstance(error, OSError):
            raise UnavailableError(
                f"cannot write {target} ({error.filename}: {os.strerror(number)}). Choose another place."
            ) from error
        raise


def _system_error(error: Exception) -> int:
    """Return the system's error number, also of a library that tells it in words only, or 0."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if re.search(r"\d+ requested and \d+ written", str(error)):  # numpy's words for a full disk
        return errno.ENOSPC
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else 0


def _exchanged(one: Path, other: Path) -> bool:
    """Let two directories take each other's names in one step; return whether this system can."""
    import ctypes

    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if sys.platform != "linux" or renameat2 is None:
        return False
    return bool(renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield a temporary directory that becomes ``target`` when the block ends without an error.

    A reader sees the old ``target`` or the complete new one, never a mixture: everything is synced to the
    disk before one rename. An existing ``target`` is replaced, where the system can in one step (Linux), so
    that at no moment there is none. On an error the temporary directory goes.
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
            if target.exists() and _exchanged(temporary, target):
                _sync(target.parent)
                return
            if target.exists():
                replaced = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
                target.replace(replaced)
            temporary.replace(target)
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
            temporary.replace(target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
