"""How an answer reaches its client, as one JSON object or as a stream, and how its going away is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from picollm.infer.request import Reply
from picollm.serve.failures import ClientGone, Refusal, dumps, error_body
from picollm.serve.worker import Update

Updates = AsyncIterator[list[Update]]


async def _gone(receive: Receive) -> None:
    """Return when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Watch:
    """While it is open, ``close`` is called as soon as the client goes away; and at the end in any case."""

    def __init__(self, receive: Receive, close: Callable[[], None]) -> None:
        self._receive = receive
        self._close = close

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(_gone(self._receive))
        self._task.add_done_callback(lambda _: self._close())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        self._close()


async def all_replies(request: Request, updates: Updates, close: Callable[[], None]) -> list[Reply]:
    """Return the replies of a call in the order of its requests.

    Raises:
        ClientGone: the client closed its connection; its requests are out of the engine.
    """
    found: dict[int, Reply] = {}
    async with Watch(request.receive, close):
        async for batch in updates:
            found |= {update.choice: update.reply for update in batch if update.reply is not None}
    return [found[index] for index in sorted(found)]


class EventStream(Response):
    """Server-sent events: each chunk a JSON object behind ``data:``, at the end ``data: [DONE]``."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._chunks = chunks
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the chunks; an error that comes when the status is already sent becomes the last one."""
        async with Watch(receive, self._close):
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for chunk in self._chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
            except Refusal as refusal:
                await send({"type": "http.response.body", "body": event(dumps(error_body(refusal)))})
            except (ClientGone, TimeoutError):
                return


def event(data: bytes) -> bytes:
    """Return one server-sent event."""
    return b"data: " + data + b"\n\n"
