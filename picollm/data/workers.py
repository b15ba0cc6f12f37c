"""Work on chunks in several processes, in order, with few of them in memory at a time."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from picollm.errors import UnavailableError

_CHUNKS_PER_WORKER = 2

C = TypeVar("C")
R = TypeVar("R")

_work: Callable[[Any], Any]  # of a worker process, which has one for its whole life


def in_order(work: Callable[[C], R], chunks: Iterable[C], workers: int) -> Iterator[R]:
    """Yield ``work(chunk)`` for each of ``chunks``, in their order; ``work`` is sent to each worker once.

    Raises:
        UnavailableError: A worker process was killed.
    """
    if workers == 1:
        yield from map(work, chunks)
        return
    # Started afresh: a fork would copy locks that threads of the data libraries may hold. The work comes in a
    # file, because a process is launched through a pipe: what does not fit into it holds up the next launch.
    context = multiprocessing.get_context("spawn")
    with (
        _in_file(work) as path,
        ProcessPoolExecutor(workers, context, initializer=_start, initargs=(path,)) as pool,
    ):
        waiting: deque[Future[R]] = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_run, chunk))
                if len(waiting) > workers * _CHUNKS_PER_WORKER:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UnavailableError(
                "a worker process was killed, perhaps for want of memory. Free some, or use one worker."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _in_file(work: Callable[[Any], Any]) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        pickle.dump(work, file, pickle.HIGHEST_PROTOCOL)
        file.flush()
        yield file.name


def _start(path: str) -> None:
    global _work
    with Path(path).open("rb") as file:
        _work = pickle.load(file)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer


def _run(chunk: Any) -> Any:
    return _work(chunk)
