"""Stop strings across token borders, half characters, forced tool output, and why a reply ended."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picollm.chat.conversation import Message, Part
from picollm.chat.decode import TextDelta, ToolCall, TurnEnd
from picollm.chat.format import ChatFormat
from picollm.infer.params import SamplingParams
from picollm.infer.request import PlainDecoder, Request, StopStrings
from picollm.tokenizer import Tokenizer
from picollm.tools.calculator import calculate

CONTEXT = 100


def shown(request: Request) -> str:
    return "".join(e.text for e in request.take_events() if isinstance(e, TextDelta))


def write(request: Request, ids: list[int]) -> Request:
    for id in ids:
        if request.finish_reason:
            break
        request.append(id, None, CONTEXT)
    return request


def plain(tokenizer: Tokenizer, **params: object) -> Request:
    return Request([1, 2], SamplingParams(temperature=0, **params), PlainDecoder(tokenizer))


def chat(chat_format: ChatFormat, **params: object) -> Request:
    def answer(expression: str) -> list[int]:
        return chat_format.render_tool_output(calculate(expression))

    return Request([1, 2], SamplingParams(temperature=0, **params), chat_format.turn_decoder(), answer)


def reply_ids(chat_format: ChatFormat, *parts: Part) -> list[int]:
    """Return what a model would have to sample to say ``parts`` and end its turn."""
    from picollm.chat.conversation import Conversation

    question = Message("user", "?")
    whole = chat_format.render_conversation(Conversation([question, Message("assistant", parts)]))
    return whole.ids[len(chat_format.render_for_completion(Conversation([question]))) :]


@settings(deadline=None)
@given(
    st.text("abE N", max_size=30),
    st.lists(st.text("abEN", min_size=1, max_size=4), min_size=1, max_size=3),
    st.data(),
)
def test_stop_strings_in_any_pieces_equal_a_search_in_the_whole(
    text: str, stop: list[str], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    finder, out, stopped = StopStrings(stop), "", False
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        given_out, stopped = finder.feed(text[start:end])
        out += given_out
        if stopped:
            break
    # The first place where a stop string is complete ends the text; at that moment the earliest beginning
    # counts.
    ends = [at + len(s) for s in stop if (at := text.find(s)) >= 0]
    assert stopped == bool(ends)
    if not stopped:
        assert out + finder.release() == text
    else:
        assert text.startswith(out)
        assert any(text.startswith(s, len(out)) for s in stop)
        assert not any(s in out for s in stop)


def test_a_stop_string_across_tokens_ends_the_reply_in_front_of_it(tokenizer: Tokenizer) -> None:
    ids = [id for c in "a ENd EN" for id in tokenizer.encode(c)] + tokenizer.encode("D after")
    request = plain(tokenizer, stop="END")
    write(request, ids)
    assert request.finish_reason == "stop"
    assert request.reply().text == shown(request) == "a ENd "


def test_what_was_held_back_for_a_stop_string_is_shown_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the EN")
    request = write(plain(tokenizer, stop="END", max_tokens=len(ids)), ids)
    assert (request.finish_reason, shown(request), request.reply().text) == ("length", "the EN", "the EN")


def test_half_characters_wait_and_broken_ones_become_replacement_characters(tokenizer: Tokenizer) -> None:
    first, second = (
        next(i for i in range(256) if tokenizer.token_bytes(i) == bytes([b])) for b in "ü".encode()
    )
    request = write(plain(tokenizer), [first])
    assert shown(request) == ""
    write(request, [second])
    assert shown(request) == "ü"
    write(request, [first])
    request.finish("cancelled")
    assert shown(request) == "�"
    assert request.reply().text == "ü�"


def test_raw_completion_ends_at_any_special_token(tokenizer: Tokenizer, chat_format: ChatFormat) -> None:
    request = write(plain(tokenizer), [*tokenizer.encode("the"), chat_format.bos_id, 5])
    assert request.finish_reason == "stop"
    assert request.reply().text == "the"
    assert request.reply().ids[-1] == chat_format.bos_id


def test_stop_token_ids_end_a_reply_without_their_text(tokenizer: Tokenizer) -> None:
    the, cat = tokenizer.encode("the"), tokenizer.encode(" cat")
    request = write(plain(tokenizer, stop_token_ids=[cat[0]]), [*the, *cat])
    assert request.finish_reason == "stop"
    assert request.reply().text == "the"


def test_a_chat_reply_ends_by_its_own_token(chat_format: ChatFormat) -> None:
    request = write(chat(chat_format), reply_ids(chat_format, Part("text", "the cat")))
    assert request.take_events()[-1] == TurnEnd("end")
    assert request.reply().message == Message("assistant", "the cat")
    assert request.finish_reason == "stop"


def test_speaking_for_the_user_is_a_reason_of_its_own(chat_format: ChatFormat) -> None:
    opening = chat_format.tokenizer.special_id(ChatFormat.required_tokens("picollm")[3])
    request = write(chat(chat_format), [*chat_format.tokenizer.encode("the"), opening])
    assert request.finish_reason == "foreign_role"
    assert request.reply().text == "the"


PARTS = (Part("text", "so "), Part("python", "2*5.0"), Part("python_output", "10"), Part("text", " cats"))


def sampled_ids(chat_format: ChatFormat) -> tuple[list[int], list[int]]:
    """Return what the model samples before, and what after, the calculator's answer."""
    whole = reply_ids(chat_format, *PARTS)
    forced = chat_format.render_tool_output("10")
    at = next(i for i in range(len(whole)) if whole[i : i + len(forced)] == forced)
    return whole[:at], whole[at + len(forced) :]


def test_the_calculators_answer_becomes_forced_tokens_of_the_same_reply(chat_format: ChatFormat) -> None:
    before, after = sampled_ids(chat_format)
    request = write(chat(chat_format, logprobs=0), before)
    assert request.ids[2:] == before + chat_format.render_tool_output("10")
    write(request, after)
    reply = request.reply()
    assert reply.message.parts == PARTS
    assert reply.ids == reply_ids(chat_format, *PARTS)
    assert ToolCall("2*5.0") in request.take_events()
    assert reply.logprobs is not None
    assert len(reply.logprobs) == len(reply.ids)


def test_without_a_tool_a_call_stays_unanswered(chat_format: ChatFormat) -> None:
    before, after = sampled_ids(chat_format)
    request = chat(chat_format)
    request.run_tool = None
    write(request, [*before, *after])
    assert [p.type for p in request.reply().parts] == ["text", "python", "text"]


@pytest.mark.parametrize("room", [0, 1, 2])
def test_an_answer_that_does_not_fit_ends_the_reply_in_front_of_it(
    chat_format: ChatFormat, room: int
) -> None:
    before, _ = sampled_ids(chat_format)
    request = write(chat(chat_format, max_tokens=len(before) + room), before)
    assert request.finish_reason == "length"
    assert request.reply().ids == before
    assert request.reply().parts[-1].type == "python"


def test_a_stop_string_after_a_tool_call_cuts_only_the_last_words(chat_format: ChatFormat) -> None:
    before, after = sampled_ids(chat_format)
    request = write(chat(chat_format, stop=["at"]), [*before, *after])
    assert request.finish_reason == "stop"
    assert request.reply().parts == (*PARTS[:3], Part("text", " c"))


@pytest.mark.parametrize(("max_tokens", "context", "length"), [(5, 100, 5), (50, 10, 8)])
def test_a_reply_ends_at_its_limit_or_the_contexts(
    tokenizer: Tokenizer, max_tokens: int, context: int, length: int
) -> None:
    request = plain(tokenizer, max_tokens=max_tokens)
    for _ in range(length):
        assert request.finish_reason is None
        request.append(60, None, context)
    assert request.finish_reason == "length"
    assert len(request.reply().ids) == length
