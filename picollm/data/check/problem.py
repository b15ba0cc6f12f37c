"""What can be wrong with a row, and whether it would damage training."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from picollm.chat.conversation import ROLES, Conversation, Message
from picollm.errors import ConversationError


class Problem(Enum):
    """A kind of problem: its ``title``, and whether it is ``damaging``, so that a check fails on it."""

    UNREADABLE = ("row cannot be read", True)
    SCHEMA = ("breaks the schema", True)
    EMPTY = ("empty turn", True)
    ORDER = ("roles out of order", True)
    NO_PLACE = ("no place in the chat format", True)
    ROUND_TRIP = ("does not come back from its tokens", True)
    UNSUPERVISED = ("nothing supervised", True)
    END = ("learned turn without a supervised end", True)
    EVALUATION = ("text of an evaluation set", True)
    BLANK = ("nothing but white space in a turn", False)
    CONTROL = ("spells a control token", False)
    TOO_LONG = ("longer than the limit", False)
    DUPLICATE = ("exact duplicate of an earlier row", False)
    NEAR_DUPLICATE = ("near duplicate of an earlier row", False)

    def __init__(self, title: str, damaging: bool) -> None:
        self.title, self.damaging = title, damaging


class Finding(NamedTuple):
    """One problem of one row; ``row`` counts from the start of whatever was examined together."""

    problem: Problem
    row: int
    text: str


def diagnose(row: Mapping[str, Any], error: ConversationError) -> list[tuple[Problem, str]]:
    """Return everything that is wrong with a row that ``error`` refused, which names the first thing only."""
    found: list[tuple[Problem, str]] = []
    items = row.get("messages")
    if not isinstance(items, list):
        return [(Problem.SCHEMA, str(error))]
    for index, item in enumerate(items):
        try:
            message = Message.from_dict(item)
        except ConversationError as wrong:
            found.append((Problem.SCHEMA, f"message {index}: {wrong}"))
        else:
            if not message.parts:
                found.append((Problem.EMPTY, f"message {index} ({message.role}) is empty"))
    roles: list[Any] = [item.get("role") if isinstance(item, dict) else None for item in items]
    if all(isinstance(role, str) and role in ROLES for role in roles):
        try:
            Conversation(Message(role, "anything") for role in roles)
        except ConversationError as wrong:
            found.append((Problem.ORDER, str(wrong)))
    return found or [(Problem.SCHEMA, str(error))]
