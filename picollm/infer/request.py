"""One request: the facts of a text being written, from prompt to finished reply. No tensors, no policy."""

from __future__ import annotations

import codecs
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from picollm.chat.conversation import Message, Part
from picollm.chat.decode import EndReason, Event, TextDelta, ToolCall, TurnEnd
from picollm.infer.params import SamplingParams
from picollm.infer.sampling import TokenLogprob
from picollm.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "cancelled", "foreign_role"]


class Decoder(Protocol):
    """What turns the ids of a reply into events: a chat format's turn decoder, or ``PlainDecoder``."""

    ended: EndReason | None

    @property
    def message(self) -> Message:
        """Return what has been decoded so far."""

    def feed(self, token_id: int) -> list[Event]:
        """Return the events of one more token."""

    def flush(self) -> list[Event]:
        """Return the events held back until the text's end."""


class PlainDecoder:
    """The decoder of raw completion, where a reply is text and nothing else.

    It ends at any special token: a base model's text has none inside. A character split over several tokens
    appears with its last one; bytes that never become a character appear as U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.ended: EndReason | None = None
        self._special_ids = tokenizer.control_ids
        self._token_bytes = tokenizer.token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pieces: list[str] = []

    @property
    def message(self) -> Message:
        """Return an assistant message with the text so far."""
        return Message("assistant", "".join(self._pieces))

    def feed(self, token_id: int) -> list[Event]:
        """Return the text that ``token_id`` completes, if any."""
        if token_id in self._special_ids:
            self.ended = "end"
            return [*self.flush(), TurnEnd("end")]
        return self._emit(self._utf8.decode(self._token_bytes(token_id)))

    def flush(self) -> list[Event]:
        """Return what an unfinished character at the end becomes."""
        return self._emit(self._utf8.decode(b"", final=True))

    def _emit(self, text: str) -> list[Event]:
        if not text:
            return []
        self._pieces.append(text)
        return [TextDelta(text)]


class StopStrings:
    """Finds stop strings in a growing text, and holds back what may be the beginning of one.

    With stop string "END" the text "the E" gives "the " now; "E" waits for what follows.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop = tuple(stop)
        self.held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Return the text that may be shown now, and whether a stop string was reached and cut off."""
        if not self.stop:
            return text, False
        text = self.held + text
        found = [at for s in self.stop if (at := text.find(s)) >= 0]
        if found:
            self.held = text[min(found) :]
            return text[: min(found)], True
        most = min(len(text), max(map(len, self.stop)) - 1)
        keep = next((n for n in range(most, 0, -1) if any(s.startswith(text[-n:]) for s in self.stop)), 0)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def release(self) -> str:
        """Return the held text: nothing follows that could complete a stop string."""
        text, self.held = self.held, ""
        return text


@dataclass(frozen=True)
class Reply:
    """A finished reply. ``ids`` is every token after the prompt, end token and tool outputs included."""

    message: Message
    ids: list[int]
    finish_reason: FinishReason
    num_prompt_tokens: int
    logprobs: list[TokenLogprob | None] | None = None
    """One entry per id where asked for; None for tokens that a tool wrote."""
    num_cached_tokens: int = 0
    """How many tokens of the prompt were in the cache already, read for an earlier request."""

    @property
    def text(self) -> str:
        """Return the text parts, without tool calls and their outputs."""
        return self.message.text

    @property
    def parts(self) -> Sequence[Part]:
        """Return text, tool calls and tool outputs in order."""
        return self.message.parts


@dataclass(eq=False)
class Request:
    """A prompt, how to continue it, and what has been written so far.

    ``ids`` is the prompt and all reply tokens, drawn or forced; the first ``num_computed`` of them are in the
    cache, ``num_cached`` of these since before the request.
    """

    prompt_ids: list[int]
    params: SamplingParams
    decoder: Decoder
    run_tool: Callable[[str], list[int]] | None = None
    """Returns the forced tokens that answer a tool call; None leaves calls unanswered."""
    ids: list[int] = field(init=False)
    num_computed: int = 0
    num_cached: int = 0
    finish_reason: FinishReason | None = None
    logprobs: list[TokenLogprob | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = list(self.prompt_ids)
        self._events: list[Event] = []
        self._random = random.Random(self.params.seed)
        self._stop = StopStrings(self.params.stop)
        self._cut = 0

    @property
    def num_pending(self) -> int:
        """Return how many known tokens the model has not read yet."""
        return len(self.ids) - self.num_computed

    @property
    def reply_ids(self) -> list[int]:
        """Return the tokens after the prompt."""
        return self.ids[len(self.prompt_ids) :]

    def draw(self) -> float:
        """Return the next number in [0, 1) of this request's own stream: one per sampled token."""
        return 0.0 if self.params.is_greedy else self._random.random()

    def append(self, id: int, logprob: TokenLogprob | None, max_length: int) -> None:
        """Take one sampled token, and with a tool call the forced tokens of its answer; may finish the reply.

        A reply never has more than ``max_tokens``, and a text never more than ``max_length``: an answer that
        does not fit ends the reply in front of it.
        """
        reason = self._advance(id, logprob, min(max_length, len(self.prompt_ids) + self.params.max_tokens))
        if reason:
            self.finish(reason)

    def finish(self, reason: FinishReason) -> None:
        """End the reply and show what was held back."""
        self._show(self.decoder.flush())
        if not self._cut:
            self._show_text(self._stop.release())
        self.finish_reason = "stop" if self._cut else reason

    def take_events(self) -> list[Event]:
        """Return the events since the last call: text up to a stop string, tool calls, the turn's end."""
        events, self._events = self._events, []
        return events

    def reply(self) -> Reply:
        """Return what was written; the request must be finished."""
        assert self.finish_reason is not None
        logprobs = self.logprobs if self.params.logprobs is not None else None
        message = _without_tail(self.decoder.message, self._cut)
        return Reply(
            message, self.reply_ids, self.finish_reason, len(self.prompt_ids), logprobs, self.num_cached
        )

    def _advance(self, id: int, logprob: TokenLogprob | None, limit: int) -> FinishReason | None:
        """Take one sampled token and what it forces, up to ``limit``; return why the reply ends, if so."""
        self._take(id, logprob)
        if id in self.params.stop_token_ids:
            return "stop"
        calls = self._show(self.decoder.feed(id))
        if self.decoder.ended == "foreign_role":
            return "foreign_role"
        if self.decoder.ended or self._cut:
            return "stop"
        for call in calls:
            forced = self.run_tool(call.expression) if self.run_tool else []
            if len(self.ids) + len(forced) > limit:
                return "length"
            for forced_id in forced:
                self._take(forced_id, None)
                self._show(self.decoder.feed(forced_id))
        return "length" if len(self.ids) >= limit else None

    def _take(self, id: int, logprob: TokenLogprob | None) -> None:
        self.ids.append(id)
        if self.params.logprobs is not None:
            self.logprobs.append(logprob)

    def _show(self, events: list[Event]) -> list[ToolCall]:
        """Queue ``events`` up to a stop string, count the rest in ``_cut``, and return the tool calls."""
        for event in events:
            if not isinstance(event, TextDelta):
                # A stop string cannot reach over a tool call.
                self._show_text(self._stop.release())
                self._events.append(event)
            elif self._cut:
                self._cut += len(event.text)
            else:
                text, stopped = self._stop.feed(event.text)
                self._show_text(text)
                self._cut = len(self._stop.held) if stopped else 0
        return [event for event in events if isinstance(event, ToolCall)]

    def _show_text(self, text: str) -> None:
        if text:
            self._events.append(TextDelta(text))


def _without_tail(message: Message, num_characters: int) -> Message:
    """Return ``message`` without the last characters of its last part, which is text."""
    if not num_characters:
        return message
    *parts, last = message.parts
    kept = last.text[: len(last.text) - num_characters]
    return Message(message.role, [*parts, Part(last.type, kept)] if kept or not parts else parts)
