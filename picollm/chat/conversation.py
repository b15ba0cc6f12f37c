"""A conversation: who said what, checked once when it is made, so that nothing later has to ask.

The canonical schema, everywhere::

    {"messages": [
        {"role": "system", "content": "Be brief."},                        # optional, only here
        {"role": "user", "content": "What is 2 + 3?"},
        {"role": "assistant", "content": [                                 # a string, or a list of parts
            {"type": "python", "text": "2 + 3"},                           # the calculator is called ...
            {"type": "python_output", "text": "5"},                        # ... and answers
            {"type": "text", "text": "It is 5."}]},
    ]}

An assistant message may carry ``"weight": 0`` to stay out of the loss (OpenAI's fine-tuning convention).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from picollm.errors import ConversationError

Role = Literal["system", "user", "assistant"]
PartType = Literal["text", "python", "python_output"]

ROLES: tuple[str, ...] = get_args(Role)
PART_TYPES: tuple[str, ...] = get_args(PartType)


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of one message: words, a call of the calculator, or its answer."""

    type: PartType
    text: str

    def __post_init__(self) -> None:
        if self.type not in PART_TYPES:
            raise ConversationError(
                f"unknown part type {self.type!r}; expected one of {', '.join(PART_TYPES)}"
            )
        _require_text(self.text)

    def to_dict(self) -> dict[str, str]:
        """Return the part in the canonical schema."""
        return {"type": self.type, "text": self.text}


@dataclass(frozen=True, slots=True, init=False)
class Message:
    """What one role says in one turn, as parts; ``weight`` 0 keeps an assistant's turn out of the loss.

    Neighboring text parts are joined and empty ones dropped, so equal messages are equal objects.

    >>> Message("assistant", [Part("text", "4"), Part("text", "2")]) == Message("assistant", "42")
    True
    """

    role: Role
    parts: tuple[Part, ...]
    weight: int

    def __init__(
        self, role: Role, content: str | Sequence[Part | Mapping[str, Any]], weight: int = 1
    ) -> None:
        """Check and normalize. Raises ConversationError."""
        if role not in ROLES:
            raise ConversationError(f"unknown role {role!r}; expected one of {', '.join(ROLES)}")
        parts: tuple[Part, ...]
        if isinstance(content, str):
            parts = (Part("text", content),) if content else ()
        else:
            parts = _normalized(content)
        if role != "assistant":
            _require_plain(role, parts, weight)
        if weight not in (0, 1) or isinstance(weight, bool):
            raise ConversationError(f"weight {weight!r}; expected 0 or 1")
        object.__setattr__(self, "role", role)
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "weight", int(weight))

    @property
    def text(self) -> str:
        """The words of the message, without the calculator's calls and answers."""
        return "".join(part.text for part in self.parts if part.type == "text")

    @property
    def content(self) -> str | list[dict[str, str]]:
        """The message's ``content`` in the canonical schema: a string where there is only text."""
        if all(part.type == "text" for part in self.parts):
            return self.text
        return [part.to_dict() for part in self.parts]

    @classmethod
    def from_dict(cls, message: Mapping[str, Any]) -> Message:
        """Return the message of a dictionary in the canonical schema. Raises ConversationError."""
        if not isinstance(message, Mapping):
            raise ConversationError(f"a {_kind(message)}; expected an object with role and content")
        given = {key: value for key, value in message.items() if value is not None}
        unknown = given.keys() - {"role", "content", "weight"}
        if unknown:
            names = ", ".join(map(repr, sorted(map(str, unknown))))
            raise ConversationError(f"unknown field {names}; expected role, content and perhaps weight")
        for name in ("role", "content"):
            if name not in given:
                raise ConversationError(f"no {name}; expected an object with role and content")
        return cls(given["role"], given["content"], given.get("weight", 1))

    def to_dict(self) -> dict[str, Any]:
        """Return the message in the canonical schema."""
        message: dict[str, Any] = {"role": self.role, "content": self.content}
        return message if self.weight else {**message, "weight": 0}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in a legal order: perhaps a system message, then user and assistant in turn, user first."""

    messages: tuple[Message, ...]

    def __init__(self, messages: Iterable[Message]) -> None:
        """Check the order. Raises ConversationError, naming the message."""
        object.__setattr__(self, "messages", tuple(messages))
        if not self.messages:
            raise ConversationError("no messages; expected at least one user message")
        expected = "user"
        for index, message in enumerate(self.messages):
            _require_sayable(index, message)
            if message.role == "system" and index == 0:
                continue
            if message.role != expected:
                raise ConversationError(_wrong_order(index, message.role, expected))
            expected = "assistant" if expected == "user" else "user"
        if len(self.messages) == 1 and self.messages[0].role == "system":
            raise ConversationError("only a system message; expected a user message after it")

    @classmethod
    def from_dict(cls, conversation: Mapping[str, Any]) -> Conversation:
        """Return the conversation in ``conversation["messages"]``; other fields of the row are not looked at.

        Raises:
            ConversationError: it breaks the schema; the text names the message and what is allowed.
        """
        if not isinstance(conversation, Mapping) or "messages" not in conversation:
            raise ConversationError(
                f"a {_kind(conversation)} without messages; expected {{'messages': [...]}}"
            )
        rows = conversation["messages"]
        if isinstance(rows, str) or not isinstance(rows, Sequence):
            raise ConversationError(
                f"messages is a {_kind(rows)}; expected a list of objects with role and content"
            )
        messages = []
        for index, row in enumerate(rows):
            try:
                messages.append(Message.from_dict(row))
            except ConversationError as error:
                raise ConversationError(f"message {index}: {error}") from None
        return cls(messages)

    @classmethod
    def from_row(cls, row: Any, layout: str | None = None) -> Conversation:
        """Return the conversation of a data set's row in any layout of :mod:`picollm.chat.adapters`.

        Raises:
            ConversationError: the row is in no known layout, or breaks the schema.
        """
        from picollm.chat.adapters import conversation_from_row

        return conversation_from_row(row, layout)

    def to_dict(self) -> dict[str, Any]:
        """Return ``{"messages": [...]}`` in the canonical schema, the inverse of :meth:`from_dict`."""
        return {"messages": [message.to_dict() for message in self.messages]}


def format_messages(
    messages: Conversation | Iterable[Message | Mapping[str, Any]], add_assistant_prompt: bool = False
) -> str:
    r"""Return the lecture's readable linearization, a line per message; for people, not for models.

    >>> format_messages([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}])
    'User: Hi\nAssistant: Hello.'
    """
    if isinstance(messages, Conversation):
        messages = messages.messages
    lines = []
    for message in messages:
        if not isinstance(message, Message):
            message = Message.from_dict(message)
        lines.append(f"{message.role.capitalize()}: {''.join(part.text for part in message.parts)}")
    return "\n".join([*lines, "Assistant:"] if add_assistant_prompt else lines)


def _normalized(content: Any) -> tuple[Part, ...]:
    """Return ``content`` as parts, neighboring text joined; raises ConversationError naming the part."""
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise ConversationError(f"content is a {_kind(content)}; expected a string or a list of parts")
    parts: list[Part] = []
    for index, item in enumerate(content):
        try:
            part = item if isinstance(item, Part) else _part_from_dict(item)
        except ConversationError as error:
            raise ConversationError(f"part {index}: {error}") from None
        if part.type == "text" and parts and parts[-1].type == "text":
            parts[-1] = Part("text", parts[-1].text + part.text)
        elif part.type != "text" or part.text:
            parts.append(part)
    return tuple(parts)


def _part_from_dict(item: Any) -> Part:
    if not isinstance(item, Mapping) or {key for key, value in item.items() if value is not None} != {
        "type",
        "text",
    }:
        raise ConversationError(f"{_kind(item)}; expected an object with type and text, and nothing else")
    return Part(item["type"], item["text"])


def _require_plain(role: str, parts: tuple[Part, ...], weight: Any) -> None:
    tools = [part.type for part in parts if part.type != "text"]
    if tools:
        raise ConversationError(
            f"a {tools[0]} part in a {role} message; only the assistant uses the calculator"
        )
    if weight != 1:
        raise ConversationError(
            f"weight {weight!r} on a {role} message; only the assistant's turns are learned"
        )


def _require_text(text: Any) -> None:
    if not isinstance(text, str):
        raise ConversationError(f"content is a {_kind(text)}; expected a string")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise ConversationError(
                f"content holds the lone surrogate U+{code:04X} at character {error.start}; expected Unicode"
            ) from None


def _require_sayable(index: int, message: Message) -> None:
    """Raise ConversationError unless the parts of message ``index`` can stand in a conversation."""
    where = f"message {index} ({message.role})"
    if not message.parts:
        raise ConversationError(f"{where} is empty; expected some content")
    previous = "text"
    for number, part in enumerate(message.parts):
        if part.type == "python" and not part.text:
            raise ConversationError(
                f"{where}, part {number}: an empty calculator call; expected an expression"
            )
        if part.type == "python_output" and previous != "python":
            raise ConversationError(
                f"{where}, part {number}: an answer of the calculator without a call before it"
            )
        previous = part.type


def _wrong_order(index: int, role: str, expected: str) -> str:
    if role == "system":
        return f"message {index} is a system message; only message 0 may be one"
    found = (
        "the first message is from the assistant"
        if index == 0
        else f"message {index} is another {role} message"
    )
    return f"{found}; expected the {expected} (user and assistant alternate, user first)"


def _kind(value: Any) -> str:
    names = {
        dict: "object",
        str: "string",
        int: "number",
        float: "number",
        bool: "true or false",
        list: "list",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
