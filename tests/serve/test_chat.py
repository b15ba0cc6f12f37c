"""``/v1/chat/completions`` with the official client, against the bare engine."""

from __future__ import annotations

import openai
import pytest

from picollm import Checkpoint, Conversation, Engine, SamplingParams

TALK = [{"role": "user", "content": "what is the cat"}]
SYSTEM = [{"role": "system", "content": "the dog"}, *TALK]


def engine_reply(checkpoint: Checkpoint, messages: list, **params: object):
    conversation = Conversation.from_dict({"messages": messages})
    return Engine(checkpoint).complete(conversation, SamplingParams(**params))


@pytest.mark.parametrize("messages", [TALK, SYSTEM])
@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.0},
        {"temperature": 1.0, "seed": 7, "top_p": 0.9},
        {"temperature": 0.8, "seed": 1, "stop": ["th"]},
    ],
)
def test_a_reply_is_the_engines(server, checkpoint, messages, params) -> None:
    ours = engine_reply(checkpoint, messages, max_tokens=40, **params)
    got = server.client().chat.completions.create(model="sft", messages=messages, max_tokens=40, **params)
    choice = got.choices[0]
    assert choice.message.content == ours.text
    assert choice.message.parts == [part.to_dict() for part in ours.parts]
    assert choice.finish_reason == ("length" if ours.finish_reason == "length" else "stop")
    assert got.usage.prompt_tokens == ours.num_prompt_tokens
    assert got.usage.completion_tokens == len(ours.ids)
    assert got.system_fingerprint == checkpoint.format.fingerprint


def test_a_stream_adds_up_to_the_same_reply(server) -> None:
    client = server.client()
    asked = {"model": "sft", "messages": TALK, "max_tokens": 60, "temperature": 0.0}
    whole = client.chat.completions.create(**asked)
    stream = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    choices = [chunk.choices[0] for chunk in stream if chunk.choices]
    assert choices[0].delta.role == "assistant"
    assert "".join(c.delta.content or "" for c in choices) == whole.choices[0].message.content
    assert [c.finish_reason for c in choices if c.finish_reason] == [whole.choices[0].finish_reason]
    assert stream[-1].usage == whole.usage and all(chunk.usage is None for chunk in stream[:-1])
    assert len({chunk.id for chunk in stream}) == 1


def test_several_choices_are_several_seeds(server, checkpoint) -> None:
    got = server.client().chat.completions.create(
        model="sft", messages=TALK, n=3, seed=5, max_completion_tokens=12, temperature=1.0
    )
    alone = [engine_reply(checkpoint, TALK, seed=5 + i, max_tokens=12).text for i in range(3)]
    assert [choice.message.content for choice in got.choices] == alone


def test_logprobs_are_the_engines(server, checkpoint) -> None:
    asked = {"temperature": 0.0, "max_tokens": 8}
    ours = engine_reply(checkpoint, TALK, logprobs=2, **asked)
    for stream in (False, True):
        got = server.client().chat.completions.create(
            model="sft", messages=TALK, logprobs=True, top_logprobs=2, stream=stream, **asked
        )
        parts = [chunk.choices[0] for chunk in got] if stream else got.choices
        entries = [entry for part in parts if part.logprobs for entry in part.logprobs.content]
        assert [e.logprob for e in entries] == pytest.approx([e.logprob for e in ours.logprobs], abs=1e-4)
        assert all(len(e.top_logprobs) == 2 and e.bytes for e in entries)


REFUSED = [
    ({"messages": []}, "messages"),
    ({}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "x", "name": "me"}]}, "messages[0].name"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0]",
    ),
    ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
    ({"messages": [*TALK, {"role": "assistant", "content": "x"}]}, "messages"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_k": -3}, "top_k"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"stop": [""]}, "stop"),
    ({"stop": ["a"] * 99}, "stop"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"frequency_penalty": 0.5}, "frequency_penalty"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"whatever": 1}, "whatever"),
    ({"Max-Tokens": 1}, "Max-Tokens"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=[str(fields)[:40] for fields, _ in REFUSED])
def test_what_is_wrong_is_named(server, post, fields, param) -> None:
    body = {"messages": TALK, "max_tokens": 2, **fields} if fields else {}
    status, found = post("/v1/chat/completions", body)
    assert status == 400 and found["error"]["param"].startswith(param), found
    assert found["error"]["message"] and found["error"]["type"] == "invalid_request_error"


def test_what_asks_for_nothing_is_no_error(server, post) -> None:
    neutral = {"frequency_penalty": 0, "presence_penalty": 0.0, "tools": None, "logit_bias": {}, "user": "me"}
    message = {**TALK[0], "tool_calls": None, "refusal": None}
    status, found = post("/v1/chat/completions", {"messages": [message], "max_tokens": 2, **neutral})
    assert status == 200, found


def test_a_conversation_that_is_too_long_says_by_how_many_tokens(server, checkpoint) -> None:
    long = [{"role": "user", "content": "cat " * 400}]
    length = len(checkpoint.format.render_for_completion(Conversation.from_dict({"messages": long})))
    with pytest.raises(openai.BadRequestError) as caught:
        server.client().chat.completions.create(model="sft", messages=long)
    assert caught.value.code == "context_length_exceeded"
    assert f"{length} tokens" in str(caught.value) and f"{length + 1 - 256} too many" in str(caught.value)


def test_models_are_told_apart(server) -> None:
    client = server.client()
    listed = client.models.list().data
    assert [model.id for model in listed] == ["sft", "base", "plain"]
    assert client.models.retrieve("base").stage == "pretrain"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt", messages=TALK)
    with pytest.raises(openai.BadRequestError, match="no chat format"):
        client.chat.completions.create(model="plain", messages=TALK)
    one, other = (
        client.chat.completions.create(model=name, messages=TALK, temperature=0, max_tokens=9)
        for name in ("sft", "base")
    )
    assert one.choices[0].message.content != other.choices[0].message.content
