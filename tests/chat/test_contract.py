"""The contract of the chat format, on random conversations and against transformers."""

from __future__ import annotations

import itertools
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from picollm.chat.conversation import Conversation, Message, Part
from picollm.chat.decode import TextDelta, ToolCall, TurnEnd
from picollm.chat.format import ChatFormat
from picollm.data import primer
from picollm.tasks.registry import load_task
from picollm.tokenizer import Tokenizer


@cache
def fmt() -> ChatFormat:
    documents = itertools.islice(primer.documents(0), 400)
    return ChatFormat.named("picollm", Tokenizer.train(documents, 600, ChatFormat.required_tokens("picollm")))


@cache
def control_tokens() -> tuple[str, ...]:
    return tuple(fmt().tokenizer.special_tokens)


plain = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
hostile = st.lists(
    st.one_of(
        plain,
        st.sampled_from(["<|", "|>", "\n", " ", "\0"]),
        st.deferred(lambda: st.sampled_from(control_tokens())),
    ),
    min_size=1,
    max_size=4,
).map("".join)
call = st.tuples(hostile, hostile).map(lambda c: [Part("python", c[0]), Part("python_output", c[1])])


def assistant(text: st.SearchStrategy[str]) -> st.SearchStrategy[Message]:
    with_call = st.tuples(text, call, text).map(lambda p: [Part("text", p[0]), *p[1], Part("text", p[2])])
    return st.builds(Message, st.just("assistant"), st.one_of(text, with_call))


def conversations(text: st.SearchStrategy[str]) -> st.SearchStrategy[Conversation]:
    exchange = st.tuples(st.builds(Message, st.just("user"), text), assistant(text))
    system = st.lists(st.builds(Message, st.just("system"), text), max_size=1)
    turns = st.lists(exchange, min_size=1, max_size=3).map(lambda pairs: [m for pair in pairs for m in pair])
    return st.tuples(system, turns).map(lambda parts: Conversation([*parts[0], *parts[1]]))


@settings(max_examples=300, deadline=None)
@given(conversations(hostile))
def test_parsing_gives_back_every_character_and_text_is_never_control(conversation: Conversation) -> None:
    rendered = fmt().render_conversation(conversation)
    assert len(rendered.ids) == len(rendered.loss_mask)
    assert fmt().parse(rendered.ids) == conversation
    control = set(fmt().tokenizer.special_tokens.values())
    expected = 1 + sum(2 + 2 * sum(p.type != "text" for p in m.parts) for m in conversation.messages)
    assert sum(token_id in control for token_id in rendered.ids) == expected


@settings(max_examples=200, deadline=None)
@given(conversations(hostile))
def test_supervised_is_what_the_assistant_says_its_calls_and_its_ends(conversation: Conversation) -> None:
    tokenizer = fmt().tokenizer
    expected = []
    for message in conversation.messages:
        if message.role != "assistant":
            continue
        for part in message.parts:
            if part.type == "text":
                expected += tokenizer.encode(part.text)
            elif part.type == "python":
                marks = [tokenizer.special_id(t) for t in control_tokens() if "python" in t]
                expected += [marks[0], *tokenizer.encode(part.text), marks[1]]
        expected.append(fmt().end_id)
    ids, mask = fmt().render_conversation(conversation)
    assert [token_id for token_id, bit in zip(ids, mask, strict=True) if bit] == expected


@settings(max_examples=200, deadline=None)
@given(conversations(hostile))
def test_the_prompt_is_what_training_saw_before_the_reply(conversation: Conversation) -> None:
    ids, mask = fmt().render_conversation(conversation)
    prompt = fmt().render_for_completion(Conversation(conversation.messages[:-1]))
    assert ids[: len(prompt)] == prompt
    assert not mask[len(prompt) - 1] and mask[len(prompt)]


@settings(max_examples=100, deadline=None)
@given(st.lists(conversations(hostile), max_size=4))
def test_a_batch_is_its_conversations_one_by_one(batch: list[Conversation]) -> None:
    assert fmt().render_batch(batch) == [fmt().render_conversation(c) for c in batch]


@settings(max_examples=100, deadline=None)
@given(conversations(hostile))
def test_decoding_a_reply_token_by_token_gives_the_message(conversation: Conversation) -> None:
    prompt = fmt().render_for_completion(Conversation(conversation.messages[:-1]))
    ids = fmt().render_conversation(conversation).ids[len(prompt) :]
    decoder = fmt().turn_decoder()
    events = [event for token_id in ids for event in decoder.feed(token_id)]
    reply = conversation.messages[-1]
    assert decoder.message == reply and decoder.ended == "end"
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == reply.text
    calls = [part.text for part in reply.parts if part.type == "python"]
    assert [e.expression for e in events if isinstance(e, ToolCall)] == calls
    assert events[-1] == TurnEnd("end")


def test_another_roles_opening_ends_a_reply() -> None:
    decoder = fmt().turn_decoder()
    user_starts = (
        fmt().render_conversation(Conversation([Message("user", "x"), Message("assistant", "y")])).ids[1]
    )
    events = [e for token_id in [*fmt().tokenizer.encode("Hi"), user_starts] for e in decoder.feed(token_id)]
    assert decoder.ended == "foreign_role" and events[-1] == TurnEnd("foreign_role")
    assert decoder.message.text == "Hi"


@pytest.mark.parametrize("task", ["smoltalk", "identity", "mmlu", "gsm8k", "spelling_bee"])
def test_transformers_renders_the_template_to_the_same_ids_and_mask(task: str) -> None:
    own = fmt()
    theirs = PreTrainedTokenizerFast(tokenizer_file=None, tokenizer_object=own.tokenizer._backend)
    rows = load_task(task, "train")
    for index in range(0, len(rows), max(1, len(rows) // 60)):
        conversation = rows[index]
        found = theirs.apply_chat_template(
            conversation.to_dict()["messages"],
            chat_template=own.chat_template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        rendered = own.render_conversation(conversation)
        assert list(found["input_ids"]) == rendered.ids
        assert list(found["assistant_masks"]) == rendered.loss_mask


def test_weight_zero_keeps_a_reply_out_of_the_loss() -> None:
    messages = [
        Message("user", "a"),
        Message("assistant", "b", 0),
        Message("user", "c"),
        Message("assistant", "d"),
    ]
    ids, mask = fmt().render_conversation(Conversation(messages))
    assert fmt().tokenizer.decode([i for i, bit in zip(ids, mask, strict=True) if bit]).startswith("d")
