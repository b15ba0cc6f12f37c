"""The thread that owns the engine, and how the event loop talks with it.

::

    event loop   submit, cancel, run  ->  inbox            everything in it is done between two steps
    worker       step, step, step, ...
    event loop   updates of a call    <-  one wake-up per step, for all calls together
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple, TypeVar

from picollm.chat.conversation import Part
from picollm.chat.decode import Event, TextDelta, ToolCall
from picollm.errors import PicoError
from picollm.infer.engine import Engine
from picollm.infer.request import Reply, Request
from picollm.infer.sampling import TokenLogprob
from picollm.serve.failures import ClientGone, Refusal

T = TypeVar("T")
log = logging.getLogger("picollm.serve")

# A stream is told what is new at most this often: a reader sees no difference, and with many streams most of
# the work around a token is saved.
CHUNK_EVERY_S = 0.02


class Update(NamedTuple):
    """What one request of a call gained; ``reply`` is set with the last one."""

    choice: int
    pieces: list[Part]
    logprobs: list[TokenLogprob]
    reply: Reply | None


class Call:
    """What one client asked for: requests on their way through the engine. Lives on the event loop."""

    def __init__(self, requests: Sequence[Request], streams: bool) -> None:
        self.requests = list(requests)
        self.streams = streams
        self.started = time.monotonic()
        self.first_token: float | None = None
        self._pending: list[Update] = []
        self._num_open = len(self.requests)
        self._error: BaseException | None = None
        self._news = asyncio.Event()

    @property
    def is_finished(self) -> bool:
        """Return whether the engine has told everything."""
        return self._num_open == 0

    def push(self, update: Update) -> None:
        """Take an update from the worker."""
        self.first_token = self.first_token or time.monotonic()
        self._pending.append(update)
        self._num_open -= update.reply is not None
        self._news.set()

    def fail(self, error: BaseException) -> None:
        """End the call: whoever waits for it gets ``error``."""
        if not self.is_finished and self._error is None:
            self._error = error
            self._news.set()

    async def updates(self) -> AsyncIterator[list[Update]]:
        """Yield what is new, as soon as there is something, until every request is finished.

        Raises:
            ClientGone: the call was cancelled.
            Refusal: the server gave it up.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            pending, self._pending = self._pending, []
            if self._error is not None:
                raise self._error
            if pending:
                yield pending
            if self.is_finished:
                return


class _Running:
    """A request in the engine, and how much of it has been told. Belongs to the worker's thread."""

    def __init__(self, call: Call, index: int) -> None:
        self.call = call
        self.index = index
        self.request = call.requests[index]
        self._told_at = 0.0
        self._num_calls = 0
        self._num_logprobs = 0

    def update(self, now: float) -> Update | None:
        """Return what is new, or None if it is too early to tell."""
        request = self.request
        if request.finish_reason is None:
            if not self.call.streams or now - self._told_at < CHUNK_EVERY_S:
                return None
            pieces = self._pieces(request.take_events())
            if not pieces:
                return None
            self._told_at = now
            return Update(self.index, pieces, self._logprobs(), None)
        return Update(self.index, self._pieces(request.take_events()), self._logprobs(), request.reply())

    def _logprobs(self) -> list[TokenLogprob]:
        new = self.request.logprobs[self._num_logprobs :]
        self._num_logprobs += len(new)
        return [logprob for logprob in new if logprob is not None]

    def _pieces(self, events: list[Event]) -> list[Part]:
        """Return events as parts; the answer of a call, which is no event, stands in the message so far."""
        pieces: list[Part] = []
        for event in events:
            if isinstance(event, TextDelta):
                pieces.append(Part("text", event.text))
            elif isinstance(event, ToolCall):
                parts = self.request.decoder.message.parts
                at = [i for i, part in enumerate(parts) if part.type == "python"][self._num_calls]
                self._num_calls += 1
                pieces += [part for part in parts[at : at + 2] if part.type != "text"]
        return pieces


class Worker:
    """A thread that does nothing but step one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._running: dict[int, _Running] = {}
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="picollm-engine", daemon=True)

    @property
    def num_requests(self) -> int:
        """Return how many requests the engine has, waiting or running."""
        return len(self._running)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to work for calls that live on ``loop``."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step it is in; calls that are open get an error."""
        self._inbox.put(self._stop)
        self._thread.join()

    def submit(self, call: Call) -> None:
        """Put the requests of ``call`` into the engine."""
        self._inbox.put(lambda: self._admit(call))

    def cancel(self, call: Call) -> None:
        """Take the requests of ``call`` out before the next step."""
        call.fail(ClientGone())
        self._inbox.put(lambda: self._drop(call))

    async def run(self, function: Callable[[], T]) -> T:
        """Return ``function()``, computed between two steps."""
        future: Future[T] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except Exception as error:
                    future.set_exception(error)

        self._inbox.put(work)
        return await asyncio.wrap_future(future)

    def _admit(self, call: Call) -> None:
        for index, request in enumerate(call.requests):
            self._running[id(request)] = _Running(call, index)
            self.engine.submit(request)

    def _drop(self, call: Call) -> None:
        for request in call.requests:
            if self._running.pop(id(request), None):
                self.engine.cancel(request)

    def _stop(self) -> None:
        self._stopped = True
        self._give_up(Refusal("the server is shutting down.", status=503, code="shutting_down"))

    def _run(self) -> None:
        while not self._stopped:
            self._do_inbox()
            if self.engine.is_busy:
                try:
                    self._tell(self.engine.step())
                except Exception as error:  # whatever it was, the clients must hear of it
                    log.exception("the engine failed; every open request was given up")
                    message = str(error) if isinstance(error, PicoError) else "the engine failed."
                    self._give_up(Refusal(message, status=500, code="engine_failed"))

    def _do_inbox(self) -> None:
        """Do everything in the inbox; wait for something if the engine has nothing to do."""
        try:
            self._inbox.get(block=not self.engine.is_busy)()
            while not self._inbox.empty():
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _tell(self, stepped: Sequence[Request]) -> None:
        now = time.monotonic()
        news = []
        for request in stepped:
            running = self._running.get(id(request))
            update = running.update(now) if running else None
            if running and update:
                news.append((running.call, update))
                if update.reply:
                    del self._running[id(request)]

        def push() -> None:
            for call, update in news:
                call.push(update)

        if news:
            self._on_loop(push)

    def _give_up(self, error: Refusal) -> None:
        for running in list(self._running.values()):
            self.engine.cancel(running.request)
        calls = {id(running.call): running.call for running in self._running.values()}
        self._running.clear()

        def fail() -> None:
            for call in calls.values():
                call.fail(error)

        self._on_loop(fail)

    def _on_loop(self, action: Callable[[], None]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(action)
        except RuntimeError:  # the loop is closed: nobody waits any more
            log.debug("an update came after the end of the event loop")
