"""Examining chunks in several processes, in order, with few of them in memory at a time."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from picollm.data.check.examiner import Chunk, Examined, Examiner
from picollm.errors import UnavailableError

_CHUNKS_PER_WORKER = 2

_examiner: Examiner  # of a worker process, which has one for its whole life


def examine_all(examiner: Examiner, chunks: Iterable[Chunk], workers: int) -> Iterator[Examined]:
    """Yield what each of ``chunks`` shows, in their order.

    Raises:
        UnavailableError: A worker process was killed.
    """
    if workers == 1:
        yield from map(examiner.examine, chunks)
        return
    # Started afresh: a fork would copy locks that threads of the data libraries may hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(examiner,)) as pool:
        waiting: deque[Future[Examined]] = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_examine, chunk))
                if len(waiting) > workers * _CHUNKS_PER_WORKER:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UnavailableError(
                "a worker process was killed, perhaps for want of memory. Free some, or pass --workers 1."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start(examiner: Examiner) -> None:
    global _examiner
    _examiner = examiner
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer


def _examine(chunk: Chunk) -> Examined:
    return _examiner.examine(chunk)
