"""The strings between the texts of a conversation: one border for each pair of neighbors.

Neighbors are the start, a system or user text, a part of an assistant message (words, a calculator call, its
answer), and at last the end of the conversation or the place where the assistant is prompted to speak.
"""

from __future__ import annotations

from typing import NamedTuple

from picollm.chat.conversation import Message, Part
from picollm.chat.format_specification import Frame, Specification
from picollm.errors import ConversationError

START, SYSTEM, USER, TEXT, PYTHON, OUTPUT, PROMPT, END = range(8)
PARTS = frozenset({TEXT, PYTHON, OUTPUT})
SUPERVISED = frozenset({TEXT, PYTHON})
_KIND = {"text": TEXT, "python": PYTHON, "python_output": OUTPUT, "system": SYSTEM, "user": USER}


class Piece(NamedTuple):
    """A stretch of text and whether it is supervised."""

    text: str
    bit: int


def kind_of(message: Message, part: Part) -> int:
    """Return what ``part`` of ``message`` is as a neighbor of borders."""
    return _KIND[part.type if message.role == "assistant" else message.role]


def border_pieces(spec: Specification, kind: int, next_kind: int) -> tuple[list[Piece], list[Piece]]:
    """Return what ends a content of ``kind`` and what starts one of ``next_kind`` behind it.

    The bits are those of assistant turns that are learned; the first list belongs to the weight of the turn
    before, the second to the one behind.
    """
    return _closing(spec, kind, next_kind), _opening(spec, kind, next_kind)


def _closing(spec: Specification, kind: int, next_kind: int) -> list[Piece]:
    if kind == START:
        return [Piece(spec.begin, 0)]
    if kind == SYSTEM:
        return [Piece(spec.system.closes + spec.system.after, 0)]
    if kind == USER:
        return [Piece(spec.user.closes + spec.user.after, 0)]
    pieces = []
    if kind != TEXT:
        pieces.append(Piece(tool_frame(spec, kind).closes, int(kind in SUPERVISED)))
    if next_kind not in PARTS:
        pieces += [Piece(spec.assistant.closes, 1), Piece(spec.assistant.after, 0)]
    return pieces


def _opening(spec: Specification, kind: int, next_kind: int) -> list[Piece]:
    if next_kind == SYSTEM:
        return [Piece((spec.user.opens if spec.merge_system else "") + spec.system.opens, 0)]
    if next_kind == USER:
        return [Piece(_user_opening(spec, kind), 0)]
    if next_kind == END:
        return []
    pieces = []
    if kind not in PARTS:
        pieces.append(Piece(spec.assistant.opens, 0))
    if kind not in PARTS and next_kind != PROMPT:
        pieces.append(Piece(spec.assistant.says, 1))
    if next_kind in (PYTHON, OUTPUT):
        pieces.append(Piece(tool_frame(spec, next_kind).opens, int(next_kind in SUPERVISED)))
    return pieces


def _user_opening(spec: Specification, kind: int) -> str:
    default = ""
    if kind == START and spec.default_system is not None:
        default = spec.system.opens + spec.default_system + spec.system.closes + spec.system.after
    if spec.merge_system:
        return "" if kind == SYSTEM else spec.user.opens + default
    return default + spec.user.opens


def tool_frame(spec: Specification, kind: int) -> Frame:
    """Return the frame of a calculator call or answer. Raises ConversationError in a format without them."""
    frame = spec.python if kind == PYTHON else spec.python_output
    if frame is None:
        raise ConversationError(
            "the conversation calls the calculator, and this chat format has no place for it; "
            "choose 'picollm' or 'nanochat', or write the calculation as text"
        )
    return frame
