"""From the tokens of a rendered conversation back to the conversation: the inverse of the renderer.

The tokens become one string in which every control token is a lone surrogate, a character that no text holds.
A rendering is then contents with borders between them, and the borders are plain strings to look for.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import NamedTuple

from picollm.chat.conversation import Conversation, Message, Part, PartType
from picollm.chat.decode import ReplyGrammar
from picollm.chat.format_borders import (
    END,
    OUTPUT,
    PARTS,
    PROMPT,
    PYTHON,
    START,
    SYSTEM,
    TEXT,
    USER,
    spelled_border,
)  # fmt: skip
from picollm.chat.format_specification import Specification
from picollm.errors import ConversationError
from picollm.tokenizer import Tokenizer

# What may follow what. Of two borders that match at one place the longer is meant, of equal ones the first.
_FOLLOWERS = {
    START: (USER, SYSTEM),
    SYSTEM: (USER,),
    USER: (PROMPT, END, TEXT, PYTHON),
    TEXT: (END, USER, PYTHON),
    PYTHON: (OUTPUT, TEXT, PYTHON, USER, END),
    OUTPUT: (TEXT, PYTHON, USER, END),
}
_TYPE: dict[int, PartType] = {TEXT: "text", PYTHON: "python", OUTPUT: "python_output"}
_FIRST_MARK, _FOREIGN_MARK = 0xD800, "\udfff"
_NAME = {START: "the start", SYSTEM: "the system message", USER: "a user message"}


class _Marked(NamedTuple):
    """Tokens as one string; the control token ``tokens[i]`` is the surrogate at ``starts[i]``."""

    text: str
    starts: list[int]
    tokens: list[int]


class _Found(NamedTuple):
    start: int
    end: int
    next_kind: int


class Parser:
    """The inverse of one format's renderer."""

    def __init__(self, spec: Specification, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._end_id = tokenizer.special_id(spec.end)
        self._controls = tokenizer.control_ids
        self._marks: dict[int, str] = {}
        self._borders = {
            kind: [
                (next_kind, self._spell(spec, kind, next_kind))
                for next_kind in followers
                if next_kind not in absent
            ]
            for kind, followers in _FOLLOWERS.items()
            for absent in [(() if spec.python else (PYTHON, OUTPUT)) + (() if spec.system else (SYSTEM,))]
            if kind not in absent
        }

    def parse(self, ids: Sequence[int], loss_mask: Sequence[int] | None = None) -> Conversation:
        """Return the conversation that renders to ``ids``; without ``loss_mask`` every weight is 1.

        Raises:
            ConversationError: there is none; the text names the first token that does not fit.
        """
        marked = self._mark(ids)
        found = self._next(marked, START, 0, 0)
        messages: list[Message] = []
        parts: list[Part] = []
        while found.next_kind not in (PROMPT, END):
            kind, start = found.next_kind, found.end
            found = self._next(marked, kind, start, len(messages))
            content = self._content(marked, start, found.start, len(messages))
            if kind not in PARTS:
                messages.append(Message("system" if kind == SYSTEM else "user", content))
                continue
            parts.append(Part(_TYPE[kind], content))
            if found.next_kind not in PARTS:
                weight = 1 if loss_mask is None else self._weight(marked, ids, found.start, loss_mask)
                messages.append(Message("assistant", parts, weight))
                parts = []
        return Conversation(messages)

    def _next(self, marked: _Marked, kind: int, position: int, index: int) -> _Found:
        """Return the first border after ``position`` that may end a content of ``kind``."""
        text, best = marked.text, None
        for next_kind, border in self._borders[kind]:
            if kind == START:
                start = 0 if text.startswith(border) else -1
            elif next_kind in (PROMPT, END):
                start = len(text) - len(border) if text.endswith(border, position) else -1
            else:
                start = text.find(border, position)
            better = best is None or (start, -len(border)) < (best.start, best.start - best.end)
            if start >= 0 and better:
                best = _Found(start, start + len(border), next_kind)
        if best is None:
            raise ConversationError(
                f"message {index}: {_NAME.get(kind, 'an assistant message')} has no proper end"
            )
        return best

    def _spell(self, spec: Specification, kind: int, next_kind: int) -> str:
        """Return a border as a marked string."""
        closing, opening = spelled_border(spec, kind, next_kind)
        text = "".join(text for text, _ in closing + opening)
        pieces = self._tokenizer.split_at_added_tokens(text)
        return "".join(piece if isinstance(piece, str) else self._mark_of(piece) for piece in pieces)

    def _mark_of(self, token_id: int) -> str:
        return self._marks.setdefault(token_id, chr(_FIRST_MARK + len(self._marks)))

    def _mark(self, ids: Sequence[int]) -> _Marked:
        starts: list[int] = []
        tokens: list[int] = []
        run: list[int] = []
        pieces: list[str] = []
        length = 0
        for index, token_id in enumerate([*ids, None]):
            if token_id is not None and token_id not in self._controls:
                run.append(token_id)
                continue
            words = self._tokenizer.decode(run) if run else ""
            run = []
            if token_id is not None:
                starts.append(length + len(words))
                tokens.append(index)
                words += self._marks.get(token_id, _FOREIGN_MARK)
            pieces.append(words)
            length += len(words)
        return _Marked("".join(pieces), starts, tokens)

    def _content(self, marked: _Marked, start: int, end: int, index: int) -> str:
        """Return the text between two borders. Raises ConversationError when a control token stands in it."""
        first = bisect.bisect_left(marked.starts, start)
        if first < len(marked.starts) and marked.starts[first] < end:
            token = marked.tokens[first]
            raise ConversationError(
                f"message {index}: the control token at position {token} has no business there"
            )
        return marked.text[start:end]

    def _weight(self, marked: _Marked, ids: Sequence[int], position: int, loss_mask: Sequence[int]) -> int:
        """Return the weight of the turn whose border begins at ``position``: its end token's mask bit."""
        for number in range(bisect.bisect_left(marked.starts, position), len(marked.tokens)):
            token = marked.tokens[number]
            if ids[token] == self._end_id:
                return loss_mask[token]
        return 1


def reply_grammar(spec: Specification, tokenizer: Tokenizer) -> ReplyGrammar:
    """Return what the inside of an assistant's turn looks like."""
    steps: dict[tuple[PartType, int], PartType] = {}
    output_id = None
    if spec.python is not None and spec.python_output is not None:
        edges = (spec.python.opens, spec.python.closes, spec.python_output.opens, spec.python_output.closes)
        call, called, output_id, answered = map(tokenizer.special_id, edges)
        steps = {("text", call): "python", ("python", called): "text", ("python_output", answered): "text"}
    before = tokenizer.split_at_added_tokens(spec.user.closes + spec.user.after + spec.assistant.opens)
    tail = tokenizer.split_at_added_tokens(spec.assistant.closes)[0]
    return ReplyGrammar(
        control_ids=tokenizer.control_ids,
        stop_ids=frozenset(map(tokenizer.special_id, (spec.end, *spec.also_ends))),
        steps=steps,
        output_id=output_id,
        says=spec.assistant.says,
        tail=tail if isinstance(tail, str) else "",
        lead=tokenizer.lead,
        leads=bool(before) and isinstance(before[-1], int),
    )
