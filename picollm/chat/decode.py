"""From tokens back to words: a reply while it is sampled, and whole conversations."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Literal

from picollm.chat.conversation import Message, Part, PartType
from picollm.tokenizer import Tokenizer

EndReason = Literal["end", "foreign_role"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More words of the reply; never half a character."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The reply asks the calculator for the value of ``expression``; the answer's ids are to be fed next."""

    expression: str


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The reply is over: "end" by its own end token, "foreign_role" by what opens somebody else's turn."""

    reason: EndReason


Event = TextDelta | ToolCall | TurnEnd


@dataclass(frozen=True)
class ReplyGrammar:
    """What a chat format says about the inside of one reply; all that ``TurnDecoder`` needs to know of it."""

    control_ids: frozenset[int]
    stop_ids: frozenset[int]
    steps: dict[tuple[PartType, int], PartType]
    """(part, control token) -> the part that begins there."""
    output_id: int | None
    says: str
    """Text before the words of a reply that is not part of them; ``tail``: the same behind them."""
    tail: str
    lead: str
    """The space that a tokenizer in SentencePiece's manner puts before every text; empty in all others."""
    leads: bool
    """Whether the reply begins right after a control token, and so with ``lead``."""

    def uncertain(self, text: str) -> int:
        """Return the length of the longest end of ``text`` that may become the tail."""
        lengths = range(min(len(self.tail), len(text)), 0, -1)
        return next((length for length in lengths if self.tail.startswith(text[-length:])), 0)


class TurnDecoder:
    """Turns the ids of one assistant reply, sampled or forced, into events and at last a message."""

    def __init__(self, tokenizer: Tokenizer, grammar: ReplyGrammar) -> None:
        self.ended: EndReason | None = None
        """How the reply ended; None while it has not."""
        self._grammar = grammar
        self._token_bytes = tokenizer.token_bytes
        self._parts: list[Part] = []
        self._type: PartType = "text"
        self._pieces: list[str] = []
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._says: str | None = self._grammar.says or None  # not yet seen
        self._lead = grammar.lead if grammar.leads else ""  # still to be taken off
        self._held = ""  # words that may turn out to be no words of the reply

    def feed(self, token_id: int) -> list[Event]:
        """Return what ``token_id`` adds to the reply; nothing when it is over, or ends inside a character.

        Raises:
            InputError: no token has this id.
        """
        if self.ended:
            return []
        if token_id not in self._grammar.control_ids:
            return self._hear(self._utf8.decode(self._token_bytes(token_id)))
        ends = token_id in self._grammar.stop_ids
        events = self._hear(self._utf8.decode(b"", final=True))
        if ends:
            self._held = self._held.removesuffix(self._grammar.tail)
        events += self._release()
        next_type = self._next_type(token_id)
        if next_type is None:
            return [*events, *self._end("end" if ends else "foreign_role")]
        if self._type == "python":
            events.append(ToolCall("".join(self._pieces)))
        self._finish_part(next_type)
        return events

    def flush(self) -> list[Event]:
        """Return what was held back of a reply that is stopped from outside, say by a length limit."""
        return self._hear(self._utf8.decode(b"", final=True)) + self._release()

    @property
    def message(self) -> Message:
        """The reply so far, without its end token."""
        current = [Part(self._type, "".join(self._pieces))] if self._pieces else []
        return Message("assistant", [*self._parts, *current])

    def _next_type(self, token_id: int) -> PartType | None:
        """Return the part that the control token ``token_id`` begins, None if it has no business here."""
        if token_id == self._grammar.output_id:  # only right after a call
            answers = (
                self._type == "text" and not self._pieces and self._parts and self._parts[-1].type == "python"
            )
            return "python_output" if answers else None
        return self._grammar.steps.get((self._type, token_id))

    def _hear(self, text: str) -> list[Event]:
        """Add ``text`` to the current part, as far as it is certain to belong to it."""
        if not text:
            return []
        text, self._lead = text.removeprefix(self._lead), ""
        if self._type != "text":
            self._pieces.append(text)
            return []
        self._held += text
        if self._says is not None:
            if self._says.startswith(self._held) and self._held != self._says:
                return []
            self._held = self._held.removeprefix(self._says)
            self._says = None
        return self._release(keep=self._grammar.uncertain(self._held))

    def _release(self, keep: int = 0) -> list[Event]:
        """Give out the held words but the last ``keep`` characters."""
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        if not text:
            return []
        self._pieces.append(text)
        return [TextDelta(text)]

    def _end(self, reason: EndReason) -> list[Event]:
        self.ended = reason
        self._finish_part("text")
        return [TurnEnd(reason)]

    def _finish_part(self, next_type: PartType) -> None:
        text = "".join(self._pieces)
        if text or self._type != "text":
            self._parts.append(Part(self._type, text))
        self._type, self._pieces, self._lead = next_type, [], self._grammar.lead
