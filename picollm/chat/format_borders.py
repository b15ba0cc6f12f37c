"""What stands between the texts of a conversation: one border for each pair of neighbors.

Neighbors are the start, a system or user text, a part of an assistant message (words, a calculator call, its
answer), and at last the end of the conversation or the place where the assistant is prompted to speak.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from picollm.chat.conversation import Message
from picollm.chat.format_specification import Frame, Specification
from picollm.errors import ConversationError, InputError
from picollm.tokenizer import Tokenizer

START, SYSTEM, USER, TEXT, PYTHON, OUTPUT, PROMPT, END = range(8)
UNLEARNED = 8  # added to the parts of a message with weight 0

PARTS = frozenset({TEXT, PYTHON, OUTPUT})
GIVEN = frozenset({SYSTEM, USER, OUTPUT, *(part + UNLEARNED for part in PARTS)})
"""The neighbors whose text is not supervised."""

_ROLE = {"system": SYSTEM, "user": USER}
_PART = {"text": TEXT, "python": PYTHON, "python_output": OUTPUT}

Piece = tuple[str, int]
"""A stretch of text, and whether it is supervised."""


@dataclass(frozen=True, slots=True)
class Border:
    """What stands between two contents, for one tokenizer.

    ``ids`` and ``loss_mask`` are the part that never changes, from the first to the last special token.
    ``head`` is text before it, which touches the content before and is tokenized with that; ``tail`` is text
    behind it. Their first ``head_given`` and ``tail_given`` characters are not supervised, the others are.
    Without a special token ``ids`` is empty and all is ``head``: both contents are one run of text.
    """

    head: str
    head_given: int
    ids: tuple[int, ...]
    loss_mask: tuple[int, ...]
    tail: str
    tail_given: int

    @classmethod
    def between(cls, spec: Specification, tokenizer: Tokenizer, before: int, behind: int) -> Border:
        """Return the border between two neighbors.

        Raises:
            ConversationError: ``spec`` has no place for one of them.
            InputError: text that is learned touches text that is not in a way that no mask can express.
        """
        closing, opening = spelled_border(spec, before % UNLEARNED, behind % UNLEARNED)
        pieces = [(text, bit if before < UNLEARNED else 0) for text, bit in closing]
        pieces += [(text, bit if behind < UNLEARNED else 0) for text, bit in opening]
        cut = [(item, bit) for text, bit in pieces for item in tokenizer.split_at_added_tokens(text)]
        special = [index for index, (item, _) in enumerate(cut) if isinstance(item, int)]
        first, end = (special[0], special[-1] + 1) if special else (len(cut), len(cut))
        ids: list[int] = []
        mask: list[int] = []
        for item, bit in cut[first:end]:
            new = [item] if isinstance(item, int) else tokenizer.encode(item)
            ids += new
            mask += [bit] * len(new)
        texts = [(str(item), bit) for item, bit in cut]
        return cls(*_given_first(texts[:first]), tuple(ids), tuple(mask), *_given_first(texts[end:]))


def _given_first(pieces: Iterable[Piece]) -> tuple[str, int]:
    """Return the text of ``pieces`` and how much of it is not supervised, which must be the beginning."""
    text, given = "", 0
    for piece, bit in pieces:
        if not bit:
            if given < len(text):
                raise InputError(
                    f"the text {piece!r}, which is not learned, directly follows {text[given:]!r}, which is; "
                    "expected a special token between them"
                )
            given = len(text) + len(piece)
        text += piece
    return text, given


def neighbors(
    messages: Sequence[Message], last: int, stripped: frozenset[int] = frozenset()
) -> list[tuple[int, str]]:
    """Return the texts of ``messages``, each with what it is, and an empty one that is ``last``."""
    contents = []
    for message in messages:
        if message.role == "assistant":
            learned = 0 if message.weight else UNLEARNED
            contents += [(_PART[part.type] + learned, part.text) for part in message.parts]
        else:
            contents.append((_ROLE[message.role], message.parts[0].text))
    contents.append((last, ""))
    if stripped:
        return [(state, text.strip() if state in stripped else text) for state, text in contents]
    return contents


def spelled_text(spec: Specification, contents: Iterable[tuple[int, str]]) -> str:
    """Return ``contents`` with their borders as text, as a template prints them."""
    pieces, state = [], START
    for next_state, text in contents:
        closing, opening = spelled_border(spec, state % UNLEARNED, next_state % UNLEARNED)
        pieces += [piece for piece, _ in closing + opening] + [text]
        state = next_state
    return "".join(pieces)


def spelled_border(spec: Specification, before: int, behind: int) -> tuple[list[Piece], list[Piece]]:
    """Return what closes a content of the kind ``before``, and what opens one of the kind ``behind``."""
    return _closing(spec, before, behind), _opening(spec, before, behind)


def _closing(spec: Specification, before: int, behind: int) -> list[Piece]:
    if before == START:
        return [(spec.begin, 0)]
    if before == SYSTEM:
        return [(system_frame(spec).closes + system_frame(spec).after, 0)]
    if before == USER:
        return [(spec.user.closes + spec.user.after, 0)]
    pieces = []
    if before != TEXT:
        pieces.append((tool_frame(spec, before).closes, int(before == PYTHON)))
    if behind not in PARTS:
        last = behind == END and spec.finish is not None
        pieces += [(spec.assistant.closes, 1), (spec.finish or "" if last else spec.assistant.after, 0)]
    return pieces


def _opening(spec: Specification, before: int, behind: int) -> list[Piece]:
    if behind == END:
        return []
    if behind == SYSTEM:
        return [((spec.user.opens if spec.merge_system else "") + system_frame(spec).opens, 0)]
    if behind == USER:
        return [(_user_opening(spec, before), 0)]
    pieces = []
    if before not in PARTS:
        pieces.append((spec.assistant.opens, 0))
    if before not in PARTS and behind != PROMPT:
        pieces.append((spec.assistant.says, 1))
    if behind in (PYTHON, OUTPUT):
        pieces.append((tool_frame(spec, behind).opens, int(behind == PYTHON)))
    return pieces


def _user_opening(spec: Specification, before: int) -> str:
    default = ""
    if before == START and spec.default_system is not None:
        frame = system_frame(spec)
        default = frame.opens + spec.default_system + frame.closes + frame.after
    if spec.merge_system:
        return "" if before == SYSTEM else spec.user.opens + default
    return default + spec.user.opens


def stripped_neighbors(spec: Specification) -> frozenset[int]:
    """Return the neighbors whose text loses its surrounding white space."""
    parts = {part + learned for part in PARTS for learned in (0, UNLEARNED)}
    of_role = {"system": {SYSTEM}, "user": {USER}, "assistant": parts}
    return frozenset().union(*(of_role[role] for role in spec.strip))


def system_frame(spec: Specification) -> Frame:
    """Return the frame of a system message. Raises ConversationError in a format without one."""
    if spec.system is None:
        raise ConversationError(
            "the conversation has a system message, and this chat format has no place for it; "
            "put its text into the first user message"
        )
    return spec.system


def tool_frame(spec: Specification, kind: int) -> Frame:
    """Return the frame of a calculator call or answer. Raises ConversationError in a format without them."""
    frame = spec.python if kind == PYTHON else spec.python_output
    if frame is None:
        raise ConversationError(
            "the conversation calls the calculator, and this chat format has no place for it; "
            "choose 'picollm' or 'nanochat', or write the calculation as text"
        )
    return frame
