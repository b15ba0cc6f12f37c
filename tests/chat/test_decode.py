"""Sampled ids become words once they are certain, calls of the calculator, and a finished message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from picollm.chat.conversation import Conversation, Message, Part
from picollm.chat.decode import TextDelta, ToolCall, TurnEnd
from picollm.chat.format import ChatFormat
from picollm.chat.format_specification import SPECIFICATIONS
from picollm.errors import InputError
from picollm.tokenizer import Tokenizer

Make = Callable[[str], ChatFormat]


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_a_rendered_reply_comes_back_in_whole_characters(name: str, make_format: Make) -> None:
    fmt = make_format(name)
    reply = Message("assistant", "Na\u00efve \U0001f600\u65e5\u672c. ")
    prompt = fmt.render_for_completion(Conversation([Message("user", "x")]))
    ids = fmt.render_conversation(Conversation([Message("user", "x"), reply])).ids[len(prompt) :]
    decoder = fmt.turn_decoder()
    deltas = [event.text for i in ids for event in decoder.feed(i) if isinstance(event, TextDelta)]
    assert decoder.message == reply and decoder.ended == "end" and "".join(deltas) == reply.text
    assert not any("\ufffd" in delta for delta in deltas)
    assert decoder.feed(ids[0]) == []  # nothing counts after the end


def test_half_a_character_waits_and_is_replaced_only_at_the_end(make_format: Make) -> None:
    fmt = make_format("picollm")
    ids = [i for i in range(256, -1, -1) if fmt.tokenizer.token_bytes(i) in (b"\xc3", b"\xa9")]
    first, second = sorted(ids, key=lambda i: fmt.tokenizer.token_bytes(i), reverse=True)
    decoder = fmt.turn_decoder()
    assert decoder.feed(first) == [] and decoder.feed(second) == [TextDelta("\u00e9")]
    assert decoder.feed(first) == [] and decoder.flush() == [TextDelta("\ufffd")]
    assert decoder.ended is None and decoder.message.text == "\u00e9\ufffd"


def test_a_call_is_reported_when_it_is_complete_and_its_answer_fed(make_format: Make) -> None:
    fmt = make_format("picollm")
    reply = Message("assistant", [Part("python", "2+3"), Part("python_output", "5"), Part("text", "Five.")])
    prompt = fmt.render_for_completion(Conversation([Message("user", "x")]))
    ids = fmt.render_conversation(Conversation([Message("user", "x"), reply])).ids[len(prompt) :]
    answer = fmt.render_tool_output("5")
    start = next(n for n in range(len(ids)) if ids[n : n + len(answer)] == answer)
    decoder = fmt.turn_decoder()
    events = [event for i in ids[:start] for event in decoder.feed(i)]
    assert events == [ToolCall("2+3")]
    assert [event for i in answer for event in decoder.feed(i)] == []
    rest = [event for i in ids[start + len(answer) :] for event in decoder.feed(i)]
    assert "".join(e.text for e in rest if isinstance(e, TextDelta)) == "Five." and rest[-1] == TurnEnd("end")
    assert decoder.message == reply


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_what_opens_anothers_turn_ends_a_reply(name: str, make_format: Make) -> None:
    fmt = make_format(name)
    foreign = sorted(fmt.control_ids - fmt.stop_ids)
    calls = {fmt.specification.python.opens} if fmt.specification.python else set()
    for token in foreign:
        if fmt.tokenizer.decode([token]) in calls:
            continue
        decoder = fmt.turn_decoder()
        events = [event for i in [*fmt.tokenizer.encode(" Hi there"), token] for event in decoder.feed(i)]
        assert events[-1] == TurnEnd("foreign_role") and decoder.ended == "foreign_role"
        assert decoder.message.text.strip() == "Hi there"


def test_an_answer_without_a_call_is_somebody_elses(make_format: Make) -> None:
    fmt = make_format("picollm")
    decoder = fmt.turn_decoder()
    assert decoder.feed(fmt.render_tool_output("5")[0]) == [TurnEnd("foreign_role")]
    with pytest.raises(InputError, match="does not exist"):
        fmt.turn_decoder().feed(10**6)


@pytest.mark.parametrize("name", sorted(set(SPECIFICATIONS) - {"plain"}))
def test_a_tokenizer_that_begins_every_text_with_a_space_gives_no_space_to_a_reply(
    name: str, shared_data: Path
) -> None:
    plain = Tokenizer.load(shared_data / "checkpoints/tinystories-656k")
    fmt = ChatFormat.named(name, plain.with_special_tokens(ChatFormat.required_tokens(name)))
    asked = {"role": "user", "content": "Tell me a story"}
    for text in ("Once upon a time.", " Two spaces here"):
        told = Conversation.from_dict({"messages": [asked, {"role": "assistant", "content": text}]})
        prompt = fmt.render_for_completion(Conversation.from_dict({"messages": [asked]}))
        decoder = fmt.turn_decoder()
        for token_id in fmt.render_conversation(told).ids[len(prompt) :]:
            decoder.feed(token_id)
        decoder.flush()
        assert decoder.message.text == text
