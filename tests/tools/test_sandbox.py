"""Each test tries to break one promise of the sandbox."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from picollm.errors import InputError
from picollm.tools import confine
from picollm.tools.sandbox import Limits, run_python

IS_GUARDED_BY_KERNEL = sys.platform == "linux" and {"files", "calls"} <= set(run_python("").barriers)
needs_kernel = pytest.mark.skipif(not IS_GUARDED_BY_KERNEL, reason="this kernel has no Landlock or seccomp")

NULL_BYTES = ValueError if sys.version_info < (3, 11, 4) else SyntaxError  # what compile raises


def error_of(source: str) -> str:
    run = run_python(source)
    assert run.outcome == "failed", run
    return run.error


def test_a_program_that_reaches_its_end_is_finished() -> None:
    run = run_python("import sys\nprint('out')\nprint('err', file=sys.stderr)\nassert __name__ == '__main__'")
    assert run.finished and run.error == "" and run.output.split() == ["err", "out"]
    assert "limits" in run.barriers and "names" in run.barriers


@pytest.mark.parametrize(
    ("source", "outcome", "error"),
    [
        ("assert 1 == 2, 'not equal'", "failed", "AssertionError: not equal"),
        ("def", "failed", "SyntaxError: invalid syntax"),
        ("a = 1\x00", "failed", f"{NULL_BYTES.__name__}: source code string cannot contain null bytes"),
        ("import sys; sys.exit(0)", "exited", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "failed", "KeyboardInterrupt"),
        (
            "import os; os._exit(0)",
            "crashed",
            "the process ended with status 0 before the program did",
        ),
        (
            "import os, signal; signal.raise_signal(signal.SIGTERM)",
            "failed",
            "PermissionError: [Errno 1] Operation not permitted",
        ),
    ],
)
def test_every_other_end_says_what_ended_it(source: str, outcome: str, error: str) -> None:
    run = run_python(source)
    if "SIGTERM" in source and not IS_GUARDED_BY_KERNEL:
        assert run.outcome == "crashed"
    else:
        assert (run.outcome, run.error) == (outcome, error)


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time; time.sleep(1000)",
        "assert open(0).read() == ''\nimport threading as t\nlock = t.Lock(); lock.acquire(); lock.acquire()",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
    ],
)
def test_what_does_not_end_is_ended(source: str) -> None:
    assert run_python(source, Limits(seconds=0.3)).outcome == "time"


def test_a_thread_that_goes_on_does_not_hold_up_the_end() -> None:
    assert run_python(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()"
    ).finished


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_an_allocation_of_100_gigabytes_fails() -> None:
    run = run_python("block = bytearray(100 * 2**30)")
    assert (run.outcome, run.error) == ("memory", "MemoryError")
    assert run_python("block = bytearray(2**26)").finished
    assert run_python("block = bytearray(2**26)", Limits(memory_mib=64)).outcome == "memory"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_threads_without_end_run_out() -> None:
    source = """
    import threading, time
    while True:
        threading.Thread(target=time.sleep, args=(99,)).start()
    """
    assert error_of(textwrap.dedent(source)) == "RuntimeError: can't start new thread"


def test_printing_without_end_is_cut() -> None:
    run = run_python("while True: print('x' * 1000)", Limits(file_kib=256, kept_kib=4))
    assert (run.outcome, run.error) == ("failed", "OSError: [Errno 27] File too large")
    assert len(run.output) == 4096 and set(run.output) == {"x", "\n"}


def test_files_are_small_and_few() -> None:
    source = "file = open('a', 'w')\nwhile True: file.write('x' * 100_000)"
    assert error_of(source) == "OSError: [Errno 27] File too large"
    assert error_of("for n in range(1000): open(str(n), 'w').close()").endswith("more than 64 files")
    assert error_of("import os\nwhile True: os.mkdir('a'); os.chdir('a')").endswith("more than 64 files")


def test_a_program_may_write_in_its_directory_which_is_gone_afterwards(tmp_path: Path) -> None:
    source = """
    import os, pathlib, tempfile
    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory, "a").write_text("1")
        os.rename(pathlib.Path(directory, "a"), "b")
        open(os.devnull, "w").write("1")
    assert os.listdir() == ["b", "program.py"] or os.listdir() == ["program.py", "b"]
    os.mkdir("c"); os.rmdir("c"); os.remove("b")
    print(os.getcwd())
    """
    run = run_python(textwrap.dedent(source))
    assert run.finished, run
    assert not Path(run.output.strip()).exists()


def attempts(actions: str) -> str:
    """Return a program that tries each line on its own and prints what it met."""
    attempt = """
    import os, pathlib, pty, shutil, socket, subprocess, sys
    def attempt(action):
        try: done = action()
        except BaseException as error: print(type(error).__name__)
        else: print("refused" if done is False else "done")
    """
    lines = textwrap.dedent(actions).strip().split("\n")
    return textwrap.dedent(attempt) + "".join(f"attempt(lambda: {line})\n" for line in lines)


def test_nothing_outside_is_written(tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("precious")
    before = file.stat()
    program = f"""
    there, file = {str(tmp_path)!r}, {str(file)!r}
    os.mkdir("mine")
    """
    actions = """
    open(there + "/new", "w")
    open(file, "a")
    open(os.path.relpath(file), "w")
    pathlib.Path(file).write_bytes(b"")
    pathlib.Path(there, ".bashrc").touch()
    os.truncate(file, 0)
    os.remove(file)
    shutil.rmtree(there)
    shutil.rmtree("/")
    os.rename("program.py", there + "/new")
    os.rename(file, "mine")
    os.link(file, "mine/link")
    os.symlink(there, "mine/link")
    os.mkdir(there + "/new")
    os.chmod(file, 0)
    os.chown(file, 1, 1)
    os.utime(file, (0, 0))
    """
    run = run_python("import os\n" + textwrap.dedent(program) + attempts(actions))
    assert run.finished and set(run.output.split()) == {"PermissionError"}, run
    after = file.stat()
    assert (file.read_text(), [path.name for path in tmp_path.iterdir()]) == ("precious", ["precious"])
    assert (after.st_mode, after.st_uid, after.st_mtime) == (before.st_mode, before.st_uid, before.st_mtime)


def test_no_network_no_processes_no_signals() -> None:
    actions = """
    socket.socket()
    socket.create_connection(("127.0.0.1", 9))
    socket.getaddrinfo("localhost", 80)
    os.fork()
    os.forkpty()
    pty.spawn("true")
    os.system("true")
    os.execv("/bin/true", ["true"])
    os.posix_spawn("/bin/true", ["true"], {})
    subprocess.run(["true"])
    __import__("multiprocessing").get_context("fork").Process(target=print).start()
    os.kill(os.getppid(), 9)
    os.killpg(os.getppid(), 9)
    __import__("resource").setrlimit(7, (-1, -1))
    """
    run = run_python(attempts(actions))
    assert run.finished and set(run.output.split()) == {"PermissionError"}, run
    assert error_of("import os\nwhile True: os.fork()").startswith("PermissionError")
    assert error_of("import ctypes") == "ImportError: ctypes is not available here"


def test_useful_things_work() -> None:
    source = """
    import asyncio, collections, dataclasses, itertools, math, random, re, subprocess, threading, typing
    async def three(): return 3
    assert asyncio.run(three()) == 3
    found = []
    thread = threading.Thread(target=found.append, args=(1,))
    thread.start(); thread.join()
    assert found == [1]
    """
    run = run_python(textwrap.dedent(source))
    assert run.finished, run


def test_only_the_standard_library_is_there() -> None:
    assert error_of("import numpy") == "ModuleNotFoundError: No module named 'numpy'"
    assert error_of("import picollm").startswith("ModuleNotFoundError")
    assert run_python("import sys, os; assert len(sys.argv) == 1 and 'PATH' not in os.environ").finished


def test_writing_to_every_descriptor_forges_no_end() -> None:
    source = """
    import os
    for descriptor in range(1, 64):
        try: os.write(descriptor, b'{"outcome": "finished", "error": "", "barriers": [], "secret": ""}')
        except OSError: pass
    os._exit(0)
    """
    assert run_python(textwrap.dedent(source)).outcome == "crashed"
    assert run_python("import os\nos.closerange(0, 64)").outcome == "crashed"


def test_hashes_are_the_same_in_every_run() -> None:
    assert len({run_python("print({'a', 'b', 'c', 'd'}, hash('x'))").output for _ in range(2)}) == 1


def test_many_threads_may_use_it() -> None:
    runs = []
    threads = [
        threading.Thread(target=lambda n=n: runs.append((n, run_python(f"print({n})").output.strip())))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(runs) == [(n, str(n)) for n in range(4)]


def test_limits_that_allow_nothing_are_named() -> None:
    for wrong in ({"seconds": 0.0}, {"memory_mib": 1}, {"file_kib": 0}):
        with pytest.raises(InputError, match="cannot run a program; expected seconds above 0"):
            Limits(**wrong)


def alone(barrier: str, actions: str, there: Path, here: Path) -> list[str]:
    """Return what each action met in a process that only one of the barriers holds."""
    script = f"""
    import ctypes, os, sys
    sys.path.insert(0, {str(Path(confine.__file__).parent)!r})
    import confine
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)
    assert confine.{barrier} is not False
    there = {str(there)!r}
    """
    command = [sys.executable, "-c", textwrap.dedent(script) + attempts(actions)]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    return ["done" if line == "done" else "refused" for line in done.stdout.split()]


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (there / "file").write_text("precious")
    return here, there


@needs_kernel
def test_landlock_alone_holds_files(places: tuple[Path, Path]) -> None:
    here, there = places
    actions = """
    open("mine", "w").close()
    os.truncate("mine", 0)
    os.rename("mine", "yours")
    os.mkdir("folder")
    os.rmdir("folder")
    open(os.devnull, "w").close()
    os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=os.open(there, os.O_RDONLY))
    open(there + "/file", "a")
    os.truncate(there + "/file", 0)
    os.remove(there + "/file")
    os.rename(there + "/file", "stolen")
    os.symlink(there, "link")
    os.mkfifo("pipe")
    os.execv("/bin/true", ["true"])
    """
    assert alone("restrict_files(libc, os.getcwd())", actions, there, here) == ["done"] * 6 + ["refused"] * 8
    assert (there / "file").read_text() == "precious" and len(list(there.iterdir())) == 1


@needs_kernel
def test_seccomp_alone_holds_calls(places: tuple[Path, Path]) -> None:
    here, there = places
    actions = """
    __import__("threading").Thread(target=int).start()
    socket.socketpair()[0].close()
    socket.socket()
    os.fork()
    libc.fork() >= 0
    os.posix_spawn("/bin/true", ["true"], {})
    os.execv("/bin/true", ["true"])
    os.kill(os.getppid(), 0)
    os.chmod(there + "/file", 0)
    libc.syscall(425, 8, bytes(120)) >= 0
    libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) >= 0
    os.chroot(".")
    """
    assert alone("restrict_calls(libc)", actions, there, here) == ["done"] * 2 + ["refused"] * 10


def test_the_hook_alone_holds_names(places: tuple[Path, Path]) -> None:
    here, there = places
    actions = """
    open("mine", "w").close()
    os.rename("mine", "yours")
    open(there + "/new", "w")
    os.remove("yours", dir_fd=os.open(there, os.O_RDONLY))
    os.mkdir(there + "/new")
    socket.socket()
    os.fork()
    os.kill(os.getppid(), 0)
    """
    hook = "sys.addaudithook(confine.Names(os.path.realpath('.'), False))"
    assert alone(hook, actions, there, here) == ["done"] * 2 + ["refused"] * 6
