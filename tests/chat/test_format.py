"""What holds for every format and every text; thousands of cases each with --hypothesis-profile=thorough."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picollm.chat.conversation import Conversation, Message, Part
from picollm.chat.format import ChatFormat, Rendered
from picollm.chat.format_specification import SPECIFICATIONS, Specification
from picollm.errors import ConversationError, InputError
from picollm.tokenizer import Tokenizer

THOROUGH = settings.default.max_examples != 100
several = settings() if THOROUGH else settings(max_examples=250, deadline=None)
few = settings() if THOROUGH else settings(max_examples=40, deadline=None)
Make = Callable[[str], ChatFormat]

# Formats that separate turns by nothing but text cannot tell such text of a user's from their own.
SEPARATED_BY_TOKENS = [name for name in SPECIFICATIONS if name not in ("llama2", "plain")]
CONTROL = sorted({token for spec in SPECIFICATIONS.values() for token in spec.tokens})
pieces = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.sampled_from(CONTROL),
    st.sampled_from(CONTROL).map(lambda token: token[: len(token) // 2]),
    st.sampled_from(CONTROL).map(lambda token: token.replace("<", "\uff1c").replace("|", "\u01c0")),
    st.sampled_from(["\0", "\n", " ", "  ", "\r\n", "\u200b", "</", "|>", "user\n", "\u2028"]),
)
texts = st.lists(pieces, min_size=1, max_size=4).map("".join)


@st.composite
def talks(draw: Any, tools: bool = False) -> Conversation:
    messages = [Message("system", draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        reply: list[Part] = [Part("text", draw(texts))]
        if tools and draw(st.booleans()):
            reply += [
                Part("python", draw(texts)),
                Part("python_output", draw(texts)),
                Part("text", draw(texts)),
            ]
        messages += [
            Message("user", draw(texts)),
            Message("assistant", reply, draw(st.sampled_from([0, 1, 1]))),
        ]
    return Conversation(messages)


def merged(conversation: Conversation, spec: Specification) -> Conversation:
    """Return ``conversation`` as a format without system turns is meant to give it back."""
    system, first, *others = conversation.messages
    if not spec.merge_system or spec.system is None or system.role != "system":
        return conversation
    text = spec.system.opens + system.text + spec.system.closes + spec.system.after + first.text
    return Conversation([Message("user", text), *others])


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_the_contract(name: str, make_format: Make) -> None:
    fmt = make_format(name)

    @several
    @given(talks(tools=fmt.has_tools))
    def check(conversation: Conversation) -> None:
        rendered = fmt.render_conversation(conversation)
        assert len(rendered.ids) == len(rendered.loss_mask)
        if name in SEPARATED_BY_TOKENS:
            parsing_gives_back_every_character_and_weight(fmt, conversation, rendered)
        no_text_makes_a_control_token(fmt, conversation, rendered)
        supervised_is_what_the_assistant_says_its_calls_and_its_end(fmt, conversation, rendered)
        the_prompt_is_the_beginning_of_the_render(fmt, conversation, rendered)

    check()


def parsing_gives_back_every_character_and_weight(
    fmt: ChatFormat, conversation: Conversation, rendered: Rendered
) -> None:
    assert fmt.parse(*rendered) in (conversation, merged(conversation, fmt.specification))


def no_text_makes_a_control_token(fmt: ChatFormat, conversation: Conversation, rendered: Rendered) -> None:
    harmless = Conversation(
        Message(m.role, [Part(p.type, "x") for p in m.parts], m.weight) for m in conversation.messages
    )
    found, expected = (
        [token for token in ids if token in fmt.control_ids]
        for ids in (rendered.ids, fmt.render_conversation(harmless).ids)
    )
    assert found == expected


def supervised_is_what_the_assistant_says_its_calls_and_its_end(
    fmt: ChatFormat, conversation: Conversation, rendered: Rendered
) -> None:
    spec = fmt.specification
    learned = b"".join(fmt.tokenizer.token_bytes(i) for i, bit in zip(*rendered, strict=True) if bit)
    said = ""
    for message in conversation.messages:
        if message.role == "assistant" and message.weight:
            said += spec.assistant.says
            for part in message.parts:
                if part.type == "python" and spec.python:
                    said += spec.python.opens + part.text + spec.python.closes
                elif part.type == "text":
                    said += part.text
            said += spec.assistant.closes
    # A header that is text can share a token with the first characters of a reply (both "\n" in ChatML).
    assert learned == said.encode() or (has_text_header(fmt) and len(learned) >= len(said))


def the_prompt_is_the_beginning_of_the_render(
    fmt: ChatFormat, conversation: Conversation, rendered: Rendered
) -> None:
    prompt = fmt.render_for_completion(Conversation(conversation.messages[:-1]))
    if rendered.ids[: len(prompt)] != prompt:  # the one exception, which every template shares
        assert has_text_header(fmt) and conversation.messages[-1].parts[0].text[0].isspace()
        header = next(n for n, token in enumerate(reversed(prompt)) if token in fmt.control_ids)
        assert rendered.ids[: len(prompt) - header] == prompt[:-header]
        assert fmt.tokenizer.decode(rendered.ids).startswith(fmt.tokenizer.decode(prompt))


def has_text_header(fmt: ChatFormat) -> bool:
    """Return whether text, and not a special token, stands directly before a reply."""
    return fmt.specification.assistant.opens not in fmt.tokenizer.special_tokens


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_a_prompt_is_the_beginning_where_a_reply_begins_with_a_word(name: str, make_format: Make) -> None:
    fmt = make_format(name)
    talk = [Message("system", "S"), Message("user", "\nWhat? "), Message("assistant", "That.")]
    prompt = fmt.render_for_completion(Conversation(talk[:-1]))
    ids, mask = fmt.render_conversation(Conversation(talk))
    assert ids[: len(prompt)] == prompt and not any(mask[: len(prompt)]) and all(mask[len(prompt) : -1])


@few
@given(st.lists(talks(tools=True), max_size=4))
def test_batches_and_threads_change_nothing(batch: list[Conversation]) -> None:
    fmt = shared_format()
    one_by_one = [fmt.render_conversation(conversation) for conversation in batch]
    assert fmt.render_batch(batch) == one_by_one
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fmt.render_conversation, batch)) == one_by_one


def shared_format() -> ChatFormat:
    global _shared
    if _shared is None:
        tokenizer = Tokenizer.train(["Hello there, how are you? 2 + 3 = 5.\n"] * 9, 320)
        required = ChatFormat.required_tokens("picollm")
        _shared = ChatFormat.named("picollm", tokenizer.with_special_tokens(required))
    return _shared


_shared: ChatFormat | None = None


def test_a_megabyte_of_one_character() -> None:
    fmt = shared_format()
    for character in ("a", " "):
        talk = Conversation([Message("user", character * 1_000_000), Message("assistant", "x")])
        assert fmt.parse(fmt.render_conversation(talk).ids) == talk


def test_what_a_format_has_no_place_for(make_format: Make) -> None:
    fmt = make_format("chatml")
    call = [Part("python", "2+3"), Part("python_output", "5")]
    with pytest.raises(ConversationError, match="no place for it; choose"):
        fmt.render_conversation(Conversation([Message("user", "x"), Message("assistant", call)]))
    with pytest.raises(ConversationError, match="no place for it"):
        fmt.render_tool_output("5")
    with pytest.raises(ConversationError, match="last message is from the assistant; expected the user"):
        fmt.render_for_completion(Conversation([Message("user", "x"), Message("assistant", "y")]))


def test_a_name_and_a_tokenizer_that_do_not_fit(base: Tokenizer) -> None:
    with pytest.raises(InputError, match="no chat format is called 'martian'; expected one of picollm"):
        ChatFormat.named("martian", base)
    with pytest.raises(InputError, match=r"the tokenizer lacks .*im_start.*with_special_tokens"):
        ChatFormat.named("chatml", base)


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_a_record_rebuilds_the_format(name: str, make_format: Make) -> None:
    fmt = make_format(name)
    again = ChatFormat.from_record(fmt.to_record(), fmt.tokenizer)
    assert again.fingerprint == fmt.fingerprint and again.specification == fmt.specification
    assert Specification.from_dict(fmt.specification.to_dict()) == fmt.specification


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_ids_that_are_no_rendering_are_refused(name: str, make_format: Make) -> None:
    fmt = make_format(name)
    ids = fmt.render_conversation(Conversation([Message("user", "Hi"), Message("assistant", "Yo")])).ids
    for broken in ([], [fmt.end_id], [*ids, fmt.end_id, fmt.end_id], [fmt.end_id, *ids]):
        with pytest.raises(ConversationError, match="message"):
            fmt.parse(broken)
