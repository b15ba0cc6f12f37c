"""The models that are served, and who is let in: everything about a request but HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from picollm.chat.conversation import Conversation
from picollm.chat.format import ChatFormat
from picollm.errors import InputError
from picollm.infer.engine import Engine
from picollm.infer.params import SamplingParams
from picollm.infer.request import Reply, Request
from picollm.serve.failures import Refusal, busy
from picollm.serve.memory import ReplyMemory
from picollm.serve.metrics import Metrics
from picollm.serve.worker import Call, Update, Worker

if TYPE_CHECKING:
    from picollm.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, and all of them together, may take."""

    max_tokens: int | None = None
    """Tokens of one reply; None: as many as the context holds."""
    max_waiting: int = 128
    """Requests that wait for a slot; more are told to come back."""
    max_open_tokens: int | None = None
    """Prompt and reply tokens of all open requests together; None: no limit but ``max_waiting``."""
    max_messages: int = 1000
    max_body_bytes: int = 2 << 20
    max_depth: int = 16
    body_timeout_s: float = 30.0
    send_timeout_s: float = 60.0
    """How long a client may leave what was sent unread before it counts as gone."""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_open_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; expected at least 1.")
        if self.max_waiting < 0:
            raise InputError(f"max_waiting is {self.max_waiting}; expected 0 or more.")


class Served:
    """One checkpoint under its name, with the engine that runs it."""

    def __init__(self, name: str, checkpoint: Checkpoint, num_slots: int = 16) -> None:
        self.name = name
        self.stage = checkpoint.record.stage
        self.tokenizer = checkpoint.tokenizer
        self.format: ChatFormat | None = checkpoint.format
        self.engine = Engine(checkpoint, num_slots=num_slots)
        self.num_slots = num_slots
        self.worker = Worker(self.engine)
        self.memory = None if self.format is None else ReplyMemory(self.format)
        self.started_at = int(time.time())

    @property
    def fingerprint(self) -> str | None:
        """Return the fingerprint of the chat format, None for a base model without one."""
        return None if self.format is None else self.format.fingerprint


class Service:
    """The models, the limits, and the calls that are open."""

    def __init__(self, models: Sequence[Served], limits: Limits | None = None) -> None:
        self.models = {served.name: served for served in models}
        if len(self.models) < len(models):
            raise InputError(f"two models are called {models[0].name!r}; give one of them another name.")
        self.limits = limits or Limits()
        self.metrics = Metrics(self.num_requests)
        self._open: dict[Call, int] = {}
        self._closing = False
        self._mean_seconds = 1.0

    def start(self) -> None:
        """Start every model's worker for calls from the running event loop."""
        for served in self.models.values():
            served.worker.start(asyncio.get_running_loop())

    def stop(self) -> None:
        """End the workers; call after ``give_up`` or when nothing is open."""
        for served in self.models.values():
            served.worker.stop()

    def give_up(self) -> None:
        """End every open call with an error and let no more in."""
        self._closing = True
        for call in list(self._open):
            call.fail(Refusal("the server is shutting down.", status=503, code="shutting_down"))

    def num_requests(self) -> int:
        """Return how many requests are in the engines."""
        return sum(served.worker.num_requests for served in self.models.values())

    def model(self, name: str | None) -> Served:
        """Return the model ``name``, by default the first. Raises Refusal."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            known = ", ".join(self.models)
            raise Refusal(
                f"no model {name!r} here; there is {known}.",
                status=404,
                param="model",
                code="model_not_found",
            )
        return self.models[name]

    def max_tokens(self, asked: int | None, served: Served, default: int | None = None) -> int:
        """Return how long a reply may get. Raises Refusal when more is asked for than the server allows."""
        limit = self.limits.max_tokens
        if asked is not None and limit is not None and asked > limit:
            raise Refusal(f"max_tokens is {asked}; this server writes at most {limit}.", param="max_tokens")
        if asked is not None:
            return asked
        context = served.engine.context_length
        return min(default or context, limit or context)

    async def chat_requests(
        self, served: Served, conversation: Conversation, params: Sequence[SamplingParams]
    ) -> tuple[Conversation, list[Request]]:
        """Return the conversation as it was, parts and all, and a request per reply that is wanted.

        Raises:
            Refusal: the model has no chat format.
            ContextError: the conversation is too long; says by how many tokens.
        """
        if served.memory is None:
            raise Refusal(
                f"{served.name} has no chat format; ask /v1/completions, or fine-tune it.", param="model"
            )
        memory, new_request = served.memory, served.engine.new_request

        def render() -> tuple[Conversation, list[Request]]:
            restored, ids = memory.next_prompt(conversation)
            return restored, [new_request(restored, each, ids) for each in params]

        if sum(len(part.text) for message in conversation.messages for part in message.parts) < 20_000:
            return render()
        return await asyncio.to_thread(render)  # a text this long would hold everybody else up

    def open(self, served: Served, requests: Sequence[Request], streams: bool) -> Call:
        """Put requests into the engine as one call. Raises Refusal with 429 when there is no room."""
        tokens = sum(
            min(len(r.prompt_ids) + r.params.max_tokens, served.engine.context_length) for r in requests
        )
        limit, in_use = self.limits.max_open_tokens, sum(self._open.values())
        if limit is not None and tokens > limit:
            raise Refusal(
                f"prompt and reply may take {tokens} tokens; this server holds {limit}.", param="max_tokens"
            )
        num_open = sum(len(call.requests) for call in self._open)
        room = served.num_slots + self.limits.max_waiting
        if len(requests) > room:
            raise Refusal(
                f"{len(requests)} replies in one call; this server holds {room} requests.", param="n"
            )
        if self._closing:
            raise Refusal("the server is shutting down.", status=503, code="shutting_down")
        if num_open + len(requests) > room or (limit is not None and in_use + tokens > limit):
            waiting = max(1, num_open - served.num_slots)
            raise busy(
                f"{num_open} requests are open; this server holds {room}. Try again later.",
                self._mean_seconds * (1 + waiting / served.num_slots),
            )
        call = Call(requests, streams)
        self._open[call] = tokens
        served.worker.submit(call)
        return call

    async def updates(
        self, served: Served, call: Call, conversation: Conversation | None = None
    ) -> AsyncIterator[list[Update]]:
        """Yield the updates of a call; its replies to ``conversation`` are remembered, its end is counted."""
        replies: list[Reply] = []
        async for updates in call.updates():
            replies += [update.reply for update in updates if update.reply is not None]
            if call.is_finished:
                self._finish(served, call, replies, conversation)
            yield updates

    def _finish(
        self, served: Served, call: Call, replies: list[Reply], conversation: Conversation | None
    ) -> None:
        seconds = time.monotonic() - call.started
        self._open.pop(call, None)
        self._mean_seconds += 0.1 * (seconds - self._mean_seconds)
        self.metrics.finished(call, seconds, replies)
        if conversation is not None and served.memory is not None:
            for reply in replies:
                served.memory.remember(conversation, call.requests[0].prompt_ids, reply)

    def close(self, served: Served, call: Call) -> None:
        """Take a call out, wherever it is; one that is finished stays finished."""
        if self._open.pop(call, None) is not None:
            self.metrics.cancelled.inc()
        if not call.is_finished:
            served.worker.cancel(call)
