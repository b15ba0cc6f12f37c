"""What a client sends back as text becomes what the model wrote."""

from __future__ import annotations

import pytest

from picollm import Checkpoint, Conversation, Message
from picollm.chat.conversation import Part
from picollm.infer.request import Reply
from picollm.serve.memory import ReplyMemory

CALLED = [Part("python", "2+3"), Part("python_output", "5"), Part("text", "it is 5")]
ASKED = Conversation([Message("user", "what is 2+3?")])


def written_reply(checkpoint: Checkpoint) -> Reply:
    """Return a reply with a calculator call, in tokens that no tokenizer would choose: a byte each."""
    fmt, tokenizer = checkpoint.format, checkpoint.tokenizer
    whole = Conversation(
        [
            *ASKED.messages,
            Message(
                "assistant", [Part("python", "2+3"), Part("python_output", "5"), Part("text", "it is 5")]
            ),
        ]
    )
    prompt = fmt.render_for_completion(ASKED)
    canonical = fmt.render_conversation(whole).ids[len(prompt) :]
    ids = []
    for token_id in canonical:
        if token_id in fmt.control_ids:
            ids.append(token_id)
        else:
            ids += [tokenizer.encode(chr(byte))[0] for byte in tokenizer.token_bytes(token_id)]
    assert ids != canonical
    return Reply(whole.messages[-1], ids, "stop", len(prompt))


def goes_on(content: object) -> Conversation:
    return Conversation([*ASKED.messages, Message("assistant", content), Message("user", "and the cat?")])


def test_the_next_prompt_has_the_ids_that_were_written(checkpoint: Checkpoint) -> None:
    fmt, reply = checkpoint.format, written_reply(checkpoint)
    prompt = fmt.render_for_completion(ASKED)
    memory = ReplyMemory(fmt)
    memory.remember(ASKED, prompt, reply)
    with_parts = goes_on(reply.parts)
    canonical = fmt.render_for_completion(with_parts)
    behind = fmt.render_for_completion(with_parts)[canonical.index(fmt.end_id) + 1 :]
    for content in (reply.text, reply.parts):
        restored, ids = memory.next_prompt(goes_on(content))
        assert restored == with_parts
        assert ids == [*prompt, *reply.ids, *behind]


def test_another_conversation_gets_nothing(checkpoint: Checkpoint) -> None:
    fmt, reply = checkpoint.format, written_reply(checkpoint)
    memory = ReplyMemory(fmt)
    memory.remember(ASKED, fmt.render_for_completion(ASKED), reply)
    for other in (
        goes_on("it is 6"),
        goes_on([Part("python", "1+4"), Part("text", "it is 5")]),
        Conversation([Message("system", "x"), *goes_on(reply.text).messages]),
    ):
        assert memory.next_prompt(other) == (other, fmt.render_for_completion(other))


def test_a_reply_that_was_cut_keeps_its_parts_only(checkpoint: Checkpoint) -> None:
    fmt, whole = checkpoint.format, written_reply(checkpoint)
    memory = ReplyMemory(fmt)
    memory.remember(ASKED, [1, 2], Reply(whole.message, whole.ids[:-1], "length", 2))
    restored, ids = memory.next_prompt(goes_on(whole.text))
    assert restored.messages[1] == whole.message
    assert ids == fmt.render_for_completion(restored)


def test_an_empty_reply_is_not_kept(checkpoint: Checkpoint) -> None:
    memory = ReplyMemory(checkpoint.format)
    memory.remember(ASKED, [1], Reply(Message("assistant", ""), [checkpoint.format.end_id], "stop", 1))
    assert memory.next_prompt(ASKED)[0] == ASKED


def test_the_oldest_are_forgotten(checkpoint: Checkpoint) -> None:
    fmt, reply = checkpoint.format, written_reply(checkpoint)
    prompt = fmt.render_for_completion(ASKED)
    memory = ReplyMemory(fmt, max_tokens=3 * len([*prompt, *reply.ids]))
    asked = [Conversation([Message("user", f"what is 2+3? {i}")]) for i in range(5)]
    for conversation in asked:
        memory.remember(conversation, prompt, reply)
    back = [
        Conversation([*c.messages, Message("assistant", reply.text), Message("user", "x")]) for c in asked
    ]
    kept = [memory.next_prompt(c)[0].messages[1] == reply.message for c in back]
    assert kept == [False, False, True, True, True]


@pytest.mark.parametrize("stream", [False, True])
def test_over_the_api_turn_two_starts_with_what_turn_one_wrote(server, prompts_seen, stream: bool) -> None:
    create = server.client().chat.completions.create
    messages = [{"role": "user", "content": f"what is the dog {stream}"}]
    for seed in range(100):  # until a reply of this random model ends as replies should
        asked = {"model": "sft", "messages": messages, "seed": seed, "max_tokens": 99, "stream": stream}
        got = create(**asked)
        if stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in got)
        else:
            text = got.choices[0].message.content
        first = prompts_seen[-1]
        if first.finish_reason == "stop" and text:
            break
    assert first.finish_reason == "stop"
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "go on"}]
    create(model="sft", messages=messages, max_tokens=1)
    assert prompts_seen[-1].prompt_ids[: len(first.ids)] == first.ids
