"""What every request passes before anything reads it: its host, its key, its size, its depth.

Written against ASGI itself, so that a body is never larger in memory than allowed, and so that the end of a
connection still reaches whoever answers.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Collection
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picollm.serve.failures import ClientGone, Refusal, error_response
from picollm.serve.metrics import Metrics
from picollm.serve.service import Limits

# Readable without a key: the page, which then asks for it; that the server lives, and what it understands.
OPEN_PATHS = frozenset({"/", "/health", "/openapi.json"})

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d*)?")
_BRACKETS = re.compile(rb"[\[\]{}]")


class Gate:
    """Lets a request through to ``app``, or answers it with an error."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        metrics: Metrics,
        paths: Collection[str],
        api_key: str | None = None,
        hosts: Collection[str] | None = None,
    ) -> None:
        self.app = app
        self._limits = limits
        self._metrics = metrics
        self._paths = frozenset(paths)
        self._key = None if api_key is None else api_key.encode()
        self._hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.responses.labels(path, str(message["status"])).inc()
            async with asyncio.timeout(self._limits.send_timeout_s):
                await send(message)

        try:
            self._check_head(scope)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                receive = _replay(await self._body(scope, receive), receive)
        except Refusal as refusal:
            await error_response(refusal)(scope, receive, counted)
        except ClientGone:
            return
        else:
            with suppress(TimeoutError):  # the client does not read: there is nobody to answer
                await self.app(scope, receive, counted)

    def _check_head(self, scope: Scope) -> None:
        if self._hosts is not None and _hostname(_header(scope, b"host")) not in self._hosts:
            # A page of another site whose name points here must not be able to talk to us.
            raise Refusal("this host name is not served here; open the server by its address.", status=421)
        if self._key is None or scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS":
            return
        scheme, _, given = _header(scope, b"authorization").partition(b" ")
        if not (scheme.lower() == b"bearer" and secrets.compare_digest(given.strip(), self._key)):
            raise Refusal(
                "the API key is missing or wrong; expected the header 'Authorization: Bearer KEY'.",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """Return the whole body. Raises Refusal when it is no JSON by its header, too large, or too deep."""
        # A foreign page may send other types without asking first; JSON it may not.
        kind = _header(scope, b"content-type").split(b";")[0].strip().lower()
        if kind != b"application/json":
            raise Refusal("the content type is not application/json.", status=415, param="Content-Type")
        limit = self._limits.max_body_bytes
        pieces, size, more = [], 0, True
        declared = _header(scope, b"content-length")
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                while more and size <= limit and int(declared or 0) <= limit:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    pieces.append(message.get("body", b""))
                    size += len(pieces[-1])
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Refusal("the body did not arrive in time.", status=408) from None
        if more or size > limit:
            raise Refusal(f"the body has more than {limit:,} bytes.", status=413, code="body_too_large")
        body = b"".join(pieces)
        depth = _depth(body)
        if depth > self._limits.max_depth:
            raise Refusal(
                f"the body is nested {depth} deep; at most {self._limits.max_depth}.", code="invalid_json"
            )
        return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives ``body`` once, and then what the connection says."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _depth(body: bytes) -> int:
    """Return how deep the brackets of a JSON text are nested."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _header(scope: Scope, name: bytes) -> bytes:
    found: bytes = next((value for key, value in scope["headers"] if key == name), b"")
    return found


def _hostname(host: bytes) -> str:
    """Return the name in a Host header, without the port.

    >>> _hostname(b"[::1]:8008"), _hostname(b"localhost:8008")
    ('::1', 'localhost')
    """
    found = _HOST.fullmatch(host.decode("latin-1"))
    return found[1].strip("[]").lower() if found else ""
