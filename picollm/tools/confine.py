"""The inside of the sandbox: confines the process it runs in, then runs a program that nobody has read.

``sandbox.run_python`` starts this file as a script of its own, in the one directory that the program may
write to. It uses the standard library only. Four barriers, none of which the process can take down again:

* **limits** of the kernel: memory, processor time, the size of a file, the number of open files;
* **files**: Landlock (Linux 5.13 and newer) lets nothing be written outside the directory, and no program be
  executed;
* **calls**: without capabilities and behind a seccomp filter (Linux on x86-64 and arm64) there are no
  sockets, no new processes, no signals to others, no change of a file's owner or mode;
* **names**: an audit hook of the interpreter refuses the same by name, on every system, and counts files.
  Where the kernel offers neither of the two above it is all there is: careful code gets around it, the code
  that language models write does not.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import runpy
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

MAX_FILES = 64
"""Files and directories that a program may make."""

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of the filter
_ALLOW, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x00050001, 0x00050026  # its answers: yes, EPERM, ENOSYS
_CLONE_THREAD = 0x10000
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# Refused system calls with their numbers on x86-64 and arm64; where arm64 has no such call, one that no
# kernel has.
_CALLS = {
    "socket": (41, 198),
    "io_uring_setup": (425, 425),  # would open sockets past the filter
    "fork": (57, 9999),
    "vfork": (58, 9999),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_writev": (311, 271),
    "chmod": (90, 9999),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, 9999),
    "fchown": (93, 55),
    "lchown": (94, 9999),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
}
_CLONE, _CLONE3, _CAPSET = (56, 220), (435, 435), (126, 91)

# Landlock's kinds of access. A program may read everything; writing, making and removing stay inside.
_EXECUTE, _WRITE, _REMOVE_DIRECTORY, _REMOVE, _MAKE_DIRECTORY, _MAKE_FILE, _RENAME, _TRUNCATE = (
    1 << bit for bit in (0, 1, 4, 5, 7, 8, 13, 14)
)
_MAKE_OTHERS = sum(1 << bit for bit in (6, 9, 10, 11, 12))  # devices, sockets, pipes, links
_INSIDE = _WRITE | _REMOVE_DIRECTORY | _REMOVE | _MAKE_DIRECTORY | _MAKE_FILE


def limit(seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Set the kernel's limits for this process; one that a system does not know is left out."""
    limits = {
        "RLIMIT_CPU": seconds,
        "RLIMIT_AS": memory_bytes,
        "RLIMIT_FSIZE": file_bytes,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }
    for name, value in limits.items():
        try:
            hard = value + 1 if name == "RLIMIT_CPU" else value  # its soft limit is a signal that says so
            resource.setrlimit(getattr(resource, name), (value, hard))
        except (AttributeError, ValueError, OSError):  # macOS refuses RLIMIT_AS
            continue


def restrict_files(libc: ctypes.CDLL, directory: str) -> bool:
    """Let this process write only below ``directory`` and to /dev/null; return whether the kernel can."""
    version = libc.syscall(444, None, 0, 1)
    if version < 1:
        return False
    inside = _INSIDE | (_RENAME if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    ruleset = libc.syscall(444, struct.pack("=Q", inside | _MAKE_OTHERS | _EXECUTE), 8, 0)
    if ruleset < 0:
        return False
    for path, allowed in ((directory, inside), (os.devnull, inside & (_WRITE | _TRUNCATE))):
        parent = os.open(path, os.O_PATH)
        failed = libc.syscall(445, ruleset, 1, struct.pack("=Qi", allowed, parent), 0)
        os.close(parent)
        if failed:
            return False
    restricted: bool = libc.syscall(446, ruleset, 0) == 0
    os.close(ruleset)
    return restricted


def restrict_calls(libc: ctypes.CDLL) -> bool:
    """Give up all capabilities and refuse ``_CALLS`` to this process; return whether the kernel did."""
    if os.uname().machine not in _MACHINES:
        return False
    which, architecture = _MACHINES[os.uname().machine]
    libc.syscall(_CAPSET[which], struct.pack("=Ii", 0x20080522, 0), bytes(24))
    code = _filter(which, architecture)
    program = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack("@HP", len(code) // 8, ctypes.addressof(program))
    refused: bool = libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, pointer) == 0
    return refused


def _filter(which: int, architecture: int) -> bytes:
    """Return the filter: eight bytes an instruction, which are code, two jumps (yes, no), and a number."""

    def step(code: int, yes: int, no: int, number: int) -> bytes:
        return struct.pack("=HBBI", code, yes, no, number)

    refuse = step(_RETURN, 0, 0, _REFUSE)
    steps = [step(_LOAD, 0, 0, 4), step(_EQUAL, 1, 0, architecture), refuse, step(_LOAD, 0, 0, 0)]
    if which == 0:  # x86-64 has a second set of numbers for the same calls
        steps += [step(_AT_LEAST, 0, 1, 0x40000000), refuse]
    for numbers in _CALLS.values():
        steps += [step(_EQUAL, 0, 1, numbers[which]), refuse]
    # A thread is a clone with a certain flag, and a filter can read the flags of clone but not of clone3.
    steps += [step(_EQUAL, 0, 1, _CLONE3[which]), step(_RETURN, 0, 0, _UNKNOWN)]
    steps += [step(_EQUAL, 0, 3, _CLONE[which]), step(_LOAD, 0, 0, 16)]
    steps += [step(_ANY_BIT, 1, 0, _CLONE_THREAD), refuse]
    return b"".join([*steps, step(_RETURN, 0, 0, _ALLOW)])


class Names:
    """An audit hook that refuses by name what the other barriers refuse, and counts files."""

    _REFUSED = (
        *("socket.", "subprocess.", "pty.", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.system"),
        *("os.kill", "signal.pthread_kill", "os.link", "os.symlink", "os.chmod", "os.chown", "os.chflags"),
        *("os.setxattr", "os.removexattr", "resource.", "ctypes."),
    )

    def __init__(self, directory: str, files_are_restricted: bool) -> None:
        self._directory, self._files_are_restricted = directory, files_are_restricted
        self._num_files = 0
        self._checks: dict[str, Callable[..., None]] = {
            "open": self._open,
            "os.mkdir": self._mkdir,
            "os.rename": self._rename,
            "os.remove": self._path,
            "os.rmdir": self._path,
            "os.truncate": lambda path, length: self._path(path),
            "os.utime": lambda path, times, ns, dir_fd: self._path(path, dir_fd),
            "import": self._import,
            "socket.__new__": self._socket,
        }

    def __call__(self, event: str, arguments: Sequence[Any]) -> None:
        """Raise PermissionError where ``event`` with its ``arguments`` is not allowed."""
        check = self._checks.get(event)
        if check is not None:
            check(*arguments)
        elif event.startswith(self._REFUSED):
            raise PermissionError(f"{event} is refused here")

    def _path(self, path: Any, dir_fd: int = -1) -> None:
        if dir_fd != -1:  # what the path is relative to is not known here
            if not self._files_are_restricted:
                raise PermissionError("a path below a directory descriptor is refused here")
        elif not isinstance(path, int):
            full = os.path.realpath(os.fsdecode(path))
            if full != os.devnull and not f"{full}/".startswith(f"{self._directory}/"):
                raise PermissionError(f"{full} lies outside the directory of this program")

    def _count(self, path: Any) -> None:
        if not os.path.lexists(os.fsdecode(path)):
            self._num_files += 1
            if self._num_files > MAX_FILES:
                raise PermissionError(f"more than {MAX_FILES} files")

    def _open(self, path: Any, mode: Any, flags: int) -> None:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) and not isinstance(path, int):
            self._path(path)
            self._count(path)

    def _mkdir(self, path: Any, mode: int, dir_fd: int) -> None:
        self._path(path, dir_fd)
        self._count(path)

    def _rename(self, source: Any, target: Any, source_fd: int, target_fd: int) -> None:
        self._path(source, source_fd)
        self._path(target, target_fd)

    def _import(self, name: str, *_: Any) -> None:
        if name.split(".")[0] in ("ctypes", "_ctypes"):
            raise ImportError(f"{name} is not available here")

    def _socket(self, _: Any, family: int, *rest: Any) -> None:
        if family != 1:  # a pair of local sockets, such as asyncio makes, reaches nobody
            raise PermissionError("there is no network here")


def confine(seconds: int, memory_bytes: int, file_bytes: int) -> list[str]:
    """Put up the barriers around the working directory, and return the names of those that hold."""
    directory = os.path.realpath(".")
    barriers = ["limits"]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        barriers += ["files"] if restrict_files(libc, directory) else []
        barriers += ["calls"] if restrict_calls(libc) else []
    if "calls" not in barriers:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    limit(seconds, memory_bytes, file_bytes)
    for name in ("ctypes", "_ctypes"):
        sys.modules.pop(name, None)
    sys.addaudithook(Names(directory, "files" in barriers))
    return [*barriers, "names"]


def run(program: str) -> tuple[str, str]:
    """Return how the program at ``program`` ended, and the error that ended it."""
    try:
        runpy.run_path(program, run_name="__main__")
        sys.stdout.flush()
    except SystemExit as error:
        return "exited", f"SystemExit: {error.code}"
    except MemoryError:
        return "memory", "MemoryError"
    except BaseException as error:
        return "failed", traceback.format_exception_only(error)[-1].strip()[:500]
    return "finished", ""


def main() -> None:
    """Confine this process, run the program, and write how it ended to the descriptor given."""
    settings = json.loads(sys.argv.pop())
    program = sys.argv.pop()
    barriers = confine(settings["seconds"], settings["memory_bytes"], settings["file_bytes"])
    sys.argv[:] = [program]
    outcome, error = run(program)
    report = {"secret": settings["secret"], "outcome": outcome, "error": error, "barriers": barriers}
    os.write(settings["descriptor"], json.dumps(report).encode())
    os._exit(0)  # threads that go on and functions for the exit are not waited for


if __name__ == "__main__":
    main()
