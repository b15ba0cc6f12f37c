"""Runs Python programs that nobody has read, such as a model's solution of a programming task.

A program runs in a child process, in a temporary directory that is removed afterwards, with the standard
library and nothing else.

Covered, whatever the program does:

* **time**: a processor-time limit of the kernel, and a wall-clock limit for what sleeps or waits;
* **memory**: an allocation beyond the limit fails (on Linux);
* **output**: what it prints goes to a file of limited size, of which a part is returned; each other file has
  the same limit, and there are at most ``confine.MAX_FILES``;
* **writing**: creating, changing, renaming and deleting happen in its temporary directory or fail;
* **network**: there is none;
* **processes**: it cannot start any, and cannot signal those of others;
* **leaving early**: ``sys.exit(0)`` in the middle is not an end. The report of the end carries a secret that
  the program has no reason to look for.

On Linux (x86-64, arm64) the kernel itself refuses these things. Elsewhere an audit hook of the interpreter
does, and ``Run.barriers`` lacks "files" and "calls": enough for accidents, not for an attack.

Not covered: reading. A program sees the files and the process list that this user sees; it can put what it
read into its output, and only there. Nor is a hole in the kernel or the interpreter covered, nor a program
written to find the secret and forge its report. Code of an adversary belongs into a virtual machine.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from picollm.errors import InputError, UnavailableError

_CONFINE = Path(__file__).with_name("confine.py")
_REPORT_BYTES = 1 << 16
_OPTIONS = ("-s", "-S", "-P", "-B", "-X", "utf8")  # no site-packages, nothing beside the program, no bytecode

Outcome = Literal["finished", "failed", "exited", "time", "memory", "crashed"]


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: Processor time; twice as much may pass on the clock.
        memory_mib: Address space of the whole process, interpreter included.
        file_kib: The size of its output, and of each file it writes.
        kept_kib: How much of the output is returned.
    """

    seconds: float = 5.0
    memory_mib: int = 512
    file_kib: int = 1024
    kept_kib: int = 16

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.memory_mib < 64 or self.file_kib < 1 or self.kept_kib < 0:
            raise InputError(
                f"{self} cannot run a program; expected seconds above 0, at least 64 MiB of memory and 1 KiB "
                "of output."
            )


@dataclass(frozen=True)
class Run:
    """How a program ended.

    Attributes:
        outcome: "finished" (it reached its last line), "failed" (an exception), "exited" (``sys.exit``),
            "time", "memory", or "crashed" (the process ended in any other way).
        error: The last line of the exception, or what ended the process.
        output: The beginning of what it printed, standard output and error together.
        seconds: Time on the clock.
        barriers: Which of ``confine``'s barriers held it; empty where the process did not live to say.
    """

    outcome: Outcome
    error: str
    output: str
    seconds: float
    barriers: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Return whether the program reached its last line."""
        return self.outcome == "finished"


def run_python(source: str, limits: Limits | None = None) -> Run:
    """Return how the program ``source`` ended; it cannot do what the head of this module rules out.

    >>> run_python("assert 1 + 1 == 2").outcome, run_python("while True: pass", Limits(1)).outcome
    ('finished', 'time')

    Raises:
        UnavailableError: This system cannot limit a process (it is neither Linux nor macOS).
    """
    if os.name != "posix":
        raise UnavailableError(f"programs run under limits on Linux and macOS only; this is {sys.platform}.")
    limits = limits or Limits()
    secret = secrets.token_hex(16)
    with (
        tempfile.TemporaryDirectory(prefix="picollm-", ignore_cleanup_errors=True) as directory,
        tempfile.TemporaryFile() as output,
    ):
        program = Path(directory) / "program.py"
        program.write_text(source, encoding="utf-8", errors="surrogatepass")
        reading, writing = os.pipe()
        try:
            start = time.monotonic()
            status = _wait(_command(program, writing, secret, limits), directory, output, writing, limits)
            seconds = time.monotonic() - start
        finally:
            os.close(writing)
            with os.fdopen(reading, "rb", buffering=0) as pipe:
                report = pipe.read(_REPORT_BYTES)
        output.seek(0)
        printed = output.read(limits.kept_kib * 1024).decode("utf-8", "replace")
    return _judged(report, secret, status, printed, seconds)


def _command(program: Path, descriptor: int, secret: str, limits: Limits) -> list[str]:
    settings = {
        "seconds": math.ceil(limits.seconds),
        "memory_bytes": limits.memory_mib << 20,
        "file_bytes": limits.file_kib << 10,
        "descriptor": descriptor,
        "secret": secret,
    }
    return [sys.executable, *_OPTIONS, str(_CONFINE), program.name, json.dumps(settings)]


def _wait(
    command: list[str], directory: str, output: IO[bytes], descriptor: int, limits: Limits
) -> int | None:
    """Return the exit status of the child, or None where its time on the clock ran out."""
    environment = {"HOME": directory, "TMPDIR": directory, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=[descriptor],
        start_new_session=True,
    )
    try:
        return process.wait(2 * limits.seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:  # also when this process is interrupted
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _judged(report: bytes | None, secret: str, status: int | None, printed: str, seconds: float) -> Run:
    try:
        told = json.loads(report or b"{}")
    except ValueError:
        told = None
    if isinstance(told, dict) and told.get("secret") == secret:
        return Run(told["outcome"], told["error"], printed, seconds, tuple(told["barriers"]))
    if status in (None, -signal.SIGXCPU, -signal.SIGKILL):  # killed: it ignored the first limit
        return Run("time", "the time limit", printed, seconds)
    return Run("crashed", f"the process ended with status {status} before the program did", printed, seconds)
