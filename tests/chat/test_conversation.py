"""A conversation is checked once, when it is made; whatever is wrong is named in one line."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

import pytest

from picollm.chat.conversation import Conversation, Message, Part, format_messages
from picollm.errors import ConversationError

USER = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Hello."}
CALL, ANSWER = {"type": "python", "text": "2+3"}, {"type": "python_output", "text": "5"}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("Hi", "messages is a string; expected a list"),
        (7, "messages is a number; expected a list"),
        ({"0": USER}, "messages is a object; expected a list"),
        ([], "no messages; expected at least one user message"),
        (["Hi"], "message 0: a string; expected an object with role and content"),
        ([None], "message 0: a null; expected an object"),
        ([{"role": "narrator", "content": "x"}], "message 0: unknown role 'narrator'; expected one of system, user"),
        ([{"role": ["user"], "content": "x"}], "message 0: unknown role"),
        ([{"content": "x"}], "message 0: no role; expected"),
        ([{"role": "user"}], "message 0: no content; expected"),
        ([{**USER, "name": "Ann"}], "message 0: unknown field 'name'; expected role, content"),
        ([USER, REPLY, USER, USER], "message 3 is another user message; expected the assistant"),
        ([USER, REPLY, REPLY], "message 2 is another assistant message; expected the user"),
        ([REPLY, USER], "the first message is from the assistant; expected the user"),
        ([{"role": "user", "content": ""}, REPLY], r"message 0 \(user\) is empty; expected some content"),
        ([USER, {"role": "assistant", "content": []}], r"message 1 \(assistant\) is empty"),
        ([USER, {"role": "assistant", "content": 7}], "message 1: content is a number; expected a string or a list"),
        ([USER, {"role": "assistant", "content": True}], "message 1: content is a true or false"),
        ([USER, {"role": "assistant", "content": b"x"}], "message 1: content is a bytes"),
        ([USER, REPLY, {"role": "system", "content": "x"}], "message 2 is a system message; only message 0"),
        ([{"role": "system", "content": "x"}], "only a system message; expected a user message"),
        ([USER, {"role": "assistant", "content": [{"type": "image", "text": "x"}]}],
         "message 1: part 0: unknown part type 'image'; expected one of text, python, python_output"),
        ([USER, {"role": "assistant", "content": [{"type": "text"}]}], "message 1: part 0: .*expected an object with"),
        ([USER, {"role": "assistant", "content": ["x"]}], "message 1: part 0: string; expected an object"),
        ([{"role": "user", "content": [ANSWER]}], "message 0: a python_output part in a user message; only the"),
        ([USER, {"role": "assistant", "content": [ANSWER]}], "part 0: an answer of the calculator without a call"),
        ([USER, {"role": "assistant", "content": [{"type": "python", "text": ""}]}], "part 0: an empty calculator"),
        ([{**USER, "weight": 0}, REPLY], "message 0: weight 0 on a user message; only the assistant's"),
        ([USER, {**REPLY, "weight": 2}], "message 1: weight 2; expected 0 or 1"),
        ([USER, {**REPLY, "weight": True}], "message 1: weight True; expected 0 or 1"),
        ([{"role": "user", "content": "a\ud800"}], r"message 0: content holds the lone surrogate U\+D800 at character 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place_and_what_is_allowed(messages: Any, said: str) -> None:
    with pytest.raises(ConversationError, match=said) as refusal:
        Conversation.from_dict({"messages": messages})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("row", [None, 7, "x", [], {"text": "x"}, [USER]])
def test_what_is_no_conversation_at_all_is_refused(row: Any) -> None:
    with pytest.raises(ConversationError, match="without messages; expected"):
        Conversation.from_dict(row)


def test_the_canonical_schema_comes_back() -> None:
    spoken = [{"type": "text", "text": "It is "}, CALL, ANSWER, {"type": "text", "text": "5."}]
    messages = [
        {"role": "system", "content": " Be brief. "},
        USER,
        {"role": "assistant", "content": spoken},
        USER,
        {"role": "assistant", "content": "Bye", "weight": 0},
    ]
    conversation = Conversation.from_dict({"messages": messages, "source": "ignored"})
    assert conversation.to_dict() == {"messages": messages}
    assert conversation.messages[2].text == "It is 5."


def test_equal_messages_are_equal_objects() -> None:
    pieces = [Part("text", "4"), Part("text", ""), Part("text", "2")]
    assert (
        Message("assistant", pieces)
        == Message("assistant", "42")
        == Message("assistant", [Part("text", "42")])
    )
    assert hash(Message("assistant", pieces)) == hash(Message("assistant", "42"))


def test_the_linearization_of_the_lecture() -> None:
    messages = [{"role": "system", "content": "Be brief."}, USER, REPLY]
    readable = "System: Be brief.\nUser: Hi\nAssistant: Hello."
    assert (
        format_messages(messages)
        == format_messages(Conversation.from_dict({"messages": messages}))
        == readable
    )
    assert format_messages([USER], add_assistant_prompt=True) == "User: Hi\nAssistant:"
