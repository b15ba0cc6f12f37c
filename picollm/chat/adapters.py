"""Conversations as people have them: the layouts of rows that are understood, and how each is recognized.

A layout only renames: what a row says becomes the canonical schema of :mod:`picollm.chat.conversation`, whose
rules then apply. No text is changed, trimmed or dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from picollm.chat.conversation import Conversation
from picollm.errors import ConversationError, nearest

_SHAREGPT_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant"}
_SHAREGPT_ROLES |= dict.fromkeys(("assistant", "chatgpt", "model", "bot", "bard", "bing"), "assistant")


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to write a conversation; ``convert`` turns a row that ``fits`` into canonical messages."""

    looks: str
    fits: Callable[[Any], bool]
    convert: Callable[[Any], Any]


def recognize(row: Any) -> str:
    """Return the name of the layout that ``row`` is written in, one of ``LAYOUTS``.

    >>> recognize({"conversations": [{"from": "human", "value": "Hi"}]})
    'sharegpt'

    Raises:
        ConversationError: it is written in none of them.
    """
    for name, layout in LAYOUTS.items():
        if layout.fits(row):
            return name
    found = f"fields {', '.join(map(str, row))}" if isinstance(row, Mapping) else f"a {type(row).__name__}"
    known = "; ".join(f"{name} {layout.looks}" for name, layout in LAYOUTS.items())
    raise ConversationError(f"not a conversation: {found}; expected one of: {known}")


def conversation_from_row(row: Any, layout: str | None = None) -> Conversation:
    """Return the conversation of a row of a data set, in ``layout`` or in the one it is recognized to have.

    Raises:
        ConversationError: the row does not fit, or breaks the rules of a conversation.
    """
    name = recognize(row) if layout is None else layout
    if name not in LAYOUTS:
        raise ConversationError(f"no layout is called {name!r}; {nearest(name, LAYOUTS)}")
    if not LAYOUTS[name].fits(row):
        raise ConversationError(f"not in the layout {name!r}; expected {LAYOUTS[name].looks}")
    return Conversation.from_dict({"messages": LAYOUTS[name].convert(row)})


def _has_list(row: Any, key: str) -> bool:
    return isinstance(row, Mapping) and _is_list(row.get(key))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _has(row: Any, *keys: str) -> bool:
    return isinstance(row, Mapping) and all(row.get(key) is not None for key in keys)


def _is_sharegpt(row: Any) -> bool:
    return _has_list(row, "conversations") and all(
        isinstance(turn, Mapping) and "from" in turn for turn in row["conversations"]
    )


def _from_sharegpt(row: Any) -> list[Any]:
    messages = _system(row)
    for index, turn in enumerate(row["conversations"]):
        speaker = turn["from"]
        if not isinstance(speaker, str) or speaker not in _SHAREGPT_ROLES:
            known = ", ".join(_SHAREGPT_ROLES)
            raise ConversationError(f"message {index}: unknown speaker {speaker!r}; expected one of {known}")
        weight = {} if turn.get("weight") is None else {"weight": turn["weight"]}
        messages.append({"role": _SHAREGPT_ROLES[speaker], "content": turn.get("value"), **weight})
    return messages


def _from_instruction(row: Any, context: str, answer: str) -> list[Any]:
    question = row["instruction"]
    if row.get(context):
        question = f"{question}\n\n{row[context]}"
    messages = _system(row)
    for index, pair in enumerate(row.get("history") or ()):
        if not _is_list(pair) or len(pair) != 2:
            raise ConversationError(f"history, entry {index}: {pair!r:.40}; expected question and answer")
        messages += [_said("user", pair[0]), _said("assistant", pair[1])]
    return [*messages, _said("user", question), _said("assistant", row[answer])]


def _from_prompt(row: Any, answer: str) -> list[Any]:
    prompt, completion = row["prompt"], row[answer]
    if _is_list(prompt) != _is_list(completion):
        raise ConversationError(
            f"prompt and {answer} differ in kind; expected two strings or two lists of messages"
        )
    if not _is_list(prompt):
        return [*_system(row), _said("user", prompt), _said("assistant", completion)]
    # What stands in the prompt is not learned, whoever says it.
    given = [
        {**message, "weight": 0}
        if isinstance(message, Mapping) and message.get("role") == "assistant"
        else message
        for message in prompt
    ]
    return [*given, *completion]


def _system(row: Mapping[str, Any]) -> list[Any]:
    return [_said("system", row["system"])] if row.get("system") else []


def _said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


LAYOUTS: dict[str, Layout] = {
    "messages": Layout(
        '{"messages": [{"role", "content"}, ...]}',
        lambda row: _has(row, "messages"),
        lambda row: row["messages"],  # which the schema checks, and says best what is wrong
    ),
    "list": Layout('[{"role", "content"}, ...]', _is_list, list),
    "sharegpt": Layout('{"conversations": [{"from", "value"}, ...]}', _is_sharegpt, _from_sharegpt),
    "conversations": Layout(
        '{"conversations": [{"role", "content"}, ...]}',
        lambda row: _has_list(row, "conversations"),
        lambda row: [*_system(row), *row["conversations"]],
    ),
    "alpaca": Layout(
        '{"instruction", "input", "output"}',
        lambda row: _has(row, "instruction", "output"),
        lambda row: _from_instruction(row, "input", "output"),
    ),
    "dolly": Layout(
        '{"instruction", "context", "response"}',
        lambda row: _has(row, "instruction", "response"),
        lambda row: _from_instruction(row, "context", "response"),
    ),
    "prompt-completion": Layout(
        '{"prompt", "completion"}',
        lambda row: _has(row, "prompt", "completion"),
        lambda row: _from_prompt(row, "completion"),
    ),
    "prompt-response": Layout(
        '{"prompt", "response"}',
        lambda row: _has(row, "prompt", "response"),
        lambda row: _from_prompt(row, "response"),
    ),
}
"""Layouts in the order in which they are tried."""
