"""Work on chunks in several processes, in order, with few of them in memory at a time."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
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
    # Started afresh: a fork would copy locks that threads of the data libraries may hold. The work comes in
    # a queue, whose thread writes it: as an argument of a process it would hold up the launch of the next.
    context = multiprocessing.get_context("spawn")
    works = context.Queue()
    works.cancel_join_thread()  # what a worker that was killed did not fetch
    for _ in range(workers):
        works.put(work)
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(works,)) as pool:
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


def _start(works: Queue[Callable[[Any], Any]]) -> None:
    global _work
    _work = works.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer


def _run(chunk: Any) -> Any:
    return _work(chunk)
