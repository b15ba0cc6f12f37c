"""A reply is the same however it is computed: cached, batched, in pieces, beside whom, from which prefix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from picollm.chat.conversation import Conversation, Message, Part
from picollm.chat.decode import TextDelta, ToolCall
from picollm.chat.format import ChatFormat
from picollm.checkpoint import Checkpoint
from picollm.errors import ContextError, InputError
from picollm.infer.engine import Engine, many_slots
from picollm.infer.params import SamplingParams
from picollm.infer.request import Reply
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.progress import SILENT
from picollm.record import Record
from picollm.tokenizer import Tokenizer

GREEDY = SamplingParams(temperature=0, max_tokens=24)
SAMPLED = SamplingParams(temperature=1.2, top_k=40, max_tokens=24, seed=5)


def says(*texts: str) -> Conversation:
    """Return a conversation of alternating turns, the user's first."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return Conversation.from_dict({"messages": messages})


CHATS = [says("the cat " * n) for n in (1, 9, 3, 3, 20, 2)] + [says("what", "it is 5", "and the dog?")]


def uncached(checkpoint: Checkpoint, prompt: list[int], length: int) -> list[int]:
    """Return the greedy continuation, the whole text computed anew for every token."""
    ids = list(prompt)
    for _ in range(length):
        logits = checkpoint.model(torch.tensor(ids), torch.arange(len(ids)))
        ids.append(int(logits[-1].argmax()))
    return ids[len(prompt) :]


def prompt_of(checkpoint: Checkpoint, conversation: Conversation) -> list[int]:
    assert checkpoint.format is not None
    return checkpoint.format.render_for_completion(conversation)


@pytest.mark.parametrize("settings", [{}, {"num_slots": 2}, {"num_slots": 3, "max_step_tokens": 7}])
def test_greedy_replies_equal_the_uncached_model(checkpoint: Checkpoint, settings: dict[str, int]) -> None:
    replies = Engine(checkpoint, **settings).complete_many(CHATS, GREEDY)
    for conversation, reply in zip(CHATS, replies, strict=True):
        prompt = prompt_of(checkpoint, conversation)
        assert reply.ids == uncached(checkpoint, prompt, len(reply.ids))
        assert reply.num_prompt_tokens == len(prompt)


@pytest.mark.parametrize("params", [GREEDY, SAMPLED, replace(SAMPLED, top_k=0, repetition_penalty=1.2)])
def test_a_reply_does_not_depend_on_its_neighbors(checkpoint: Checkpoint, params: SamplingParams) -> None:
    together = Engine(checkpoint, num_slots=4).complete_many(CHATS, params)
    alone = [Engine(checkpoint, num_slots=1).complete(c, params) for c in CHATS]
    backwards = Engine(checkpoint, num_slots=3, max_step_tokens=16).complete_many(CHATS[::-1], params)[::-1]
    assert [r.ids for r in together] == [r.ids for r in alone] == [r.ids for r in backwards]


@pytest.mark.parametrize("model_type", ["qwen3", "llama"])
def test_greedy_tokens_equal_transformers_generate(
    make_model: Callable[..., Model], tokenizer: Tokenizer, model_type: str
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = make_model(seed=3, model_type=model_type)
    config = dict(model.config.to_hf())
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), **config)).eval()
    theirs.load_state_dict(model.state_dict(), strict=False)
    prompts = [tokenizer.encode("the cat " * n) for n in (1, 5, 12)]
    engine = Engine(Checkpoint(model, tokenizer, None, Record("import"), Path()))
    for prompt, reply in zip(prompts, engine.complete_ids(prompts, GREEDY), strict=True):
        settings = {
            "max_new_tokens": len(reply.ids),
            "do_sample": False,
            "eos_token_id": None,
            "pad_token_id": 0,
        }
        expected = theirs.generate(torch.tensor([prompt]), **settings)
        assert reply.ids == expected[0, len(prompt) :].tolist()


def test_seeds_reproduce_and_differ(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint)
    first, second, other = (engine.complete(CHATS[0], replace(SAMPLED, seed=seed)).ids for seed in (1, 1, 2))
    assert first == second != other


def test_samples_are_the_replies_of_consecutive_seeds(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint)
    samples = engine.complete_samples(CHATS[1], 3, SAMPLED)
    alone = [engine.complete(CHATS[1], replace(SAMPLED, seed=5 + i)) for i in range(3)]
    assert [r.ids for r in samples] == [r.ids for r in alone]
    assert len({tuple(r.ids) for r in samples}) == 3
    assert [r.num_cached_tokens for r in samples] == [0] + 2 * [samples[0].num_prompt_tokens - 1]


def test_a_chat_over_several_turns_reuses_its_cache_and_changes_nothing(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, num_slots=2)
    texts, before = ["the cat sat on the mat"], 0
    for _ in range(4):
        conversation = says(*texts)
        prompt = prompt_of(checkpoint, conversation)
        reply = engine.complete(conversation, GREEDY)
        assert before <= reply.num_cached_tokens < len(prompt)
        assert reply.ids == Engine(checkpoint).complete(conversation, GREEDY).ids
        texts += [reply.text or "5", "and the dog"]
        before = len(prompt)


def test_streamed_text_is_the_replys_text(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint)
    for conversation in CHATS:
        assert "".join(engine.stream(conversation, SAMPLED)) == engine.complete(conversation, SAMPLED).text


def test_a_closed_stream_leaves_nothing_behind(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint)
    stream = engine.stream(CHATS[4], replace(GREEDY, max_tokens=200))
    next(stream)
    assert engine.is_busy
    stream.close()
    assert not engine.is_busy


def test_interleaved_streams_do_not_disturb_each_other(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint)
    one, other = (engine.stream(CHATS[i], SAMPLED) for i in (1, 4))
    pieces = [next(one), next(other)]
    rest = engine.complete(CHATS[0], SAMPLED)
    assert pieces[0] + "".join(one) == engine.complete(CHATS[1], SAMPLED).text
    assert pieces[1] + "".join(other) == engine.complete(CHATS[4], SAMPLED).text
    assert rest.ids == Engine(checkpoint).complete(CHATS[0], SAMPLED).ids


def test_requests_join_and_leave_at_every_step(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint, num_slots=3)
    requests = [engine.new_request(c, replace(GREEDY, max_tokens=3 + 5 * i)) for i, c in enumerate(CHATS)]
    cancelled = requests[3]
    waiting = list(requests)
    while waiting or engine.is_busy:
        if waiting:
            engine.submit(waiting.pop(0))
        engine.step()
        if len(cancelled.reply_ids) == 2:
            engine.cancel(cancelled)
    assert cancelled.reply().finish_reason == "cancelled"
    for request in requests:
        assert request.reply_ids == uncached(checkpoint, request.prompt_ids, len(request.reply_ids))


def test_a_cancelled_request_that_never_ran_has_an_empty_reply(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint)
    request = engine.submit(engine.new_request(CHATS[0], GREEDY))
    engine.cancel(request)
    assert request.reply() == Reply(Message("assistant", ""), [], "cancelled", len(request.prompt_ids))
    assert engine.step() == []


def test_logprobs_equal_the_models(checkpoint: Checkpoint) -> None:
    reply = Engine(checkpoint).complete(CHATS[1], replace(SAMPLED, logprobs=2))
    prompt = prompt_of(checkpoint, CHATS[1])
    ids = torch.tensor(prompt + reply.ids)
    expected = checkpoint.model(ids, torch.arange(len(ids))).log_softmax(-1)[len(prompt) - 1 : -1]
    assert reply.logprobs is not None
    for row, found in zip(expected, reply.logprobs, strict=True):
        assert found is not None
        assert found.logprob == pytest.approx(row[found.id].item(), abs=1e-4)
        assert [logprob for _, logprob in found.top] == pytest.approx(row.topk(2).values.tolist(), abs=1e-4)


def test_scores_are_log_probabilities_of_the_next_token(checkpoint: Checkpoint) -> None:
    prompts = [prompt_of(checkpoint, c) for c in CHATS]
    for prompt, (one, other) in zip(prompts, Engine(checkpoint).score(prompts, [3, 4]), strict=True):
        expected = checkpoint.model(torch.tensor(prompt), torch.arange(len(prompt)))[-1].log_softmax(-1)
        assert [one, other] == pytest.approx(expected[3:5].tolist(), abs=1e-4)


def test_a_reply_ends_where_the_context_does(checkpoint: Checkpoint) -> None:
    prompt = checkpoint.tokenizer.encode("the cat")
    model = checkpoint.model
    reply = Engine(checkpoint).complete_ids([prompt], replace(GREEDY, max_tokens=10**6))[0]
    assert reply.finish_reason in ("length", "stop")
    assert len(prompt) + len(reply.ids) <= model.config.max_position_embeddings


def test_a_prompt_too_long_for_the_context_says_by_how_much(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint)
    prompt = [9] * 256
    assert len(engine.complete_ids([prompt[1:]], GREEDY)[0].ids) == 1
    with pytest.raises(ContextError, match="256 tokens and the context 256: 1 too many to begin a reply"):
        engine.complete_ids([prompt], GREEDY)
    with pytest.raises(ContextError, match="3 too many"):
        engine.score([[9] * 259], [1])
    with pytest.raises(InputError, match="no tokens"):
        engine.complete_ids([[]], GREEDY)
    for unknown in (-1, 10**6):
        with pytest.raises(InputError, match=f"token {unknown} of the prompt is not in the vocabulary"):
            engine.complete_ids([[unknown]], GREEDY)
    assert not engine.is_busy


def test_other_bad_input_is_one_clear_line(checkpoint: Checkpoint) -> None:
    base = Engine(replace(checkpoint, format=None))
    with pytest.raises(InputError, match="no chat format"):
        base.complete(CHATS[0])
    assert base.complete_ids([[5, 6]], GREEDY)[0].text is not None
    with pytest.raises(InputError, match="2 sampling parameters for 1 prompts"):
        base.complete_ids([[5]], [GREEDY, GREEDY])
    with pytest.raises(InputError, match="num_slots is 0"):
        Engine(checkpoint, num_slots=0)


def test_replies_arrive_as_they_finish_with_their_index(checkpoint: Checkpoint) -> None:
    engine = Engine(checkpoint)
    params = [replace(GREEDY, max_tokens=n) for n in (9, 2, 5)]
    order = [index for index, _ in engine.as_completed(CHATS[:3], params)]
    together = engine.complete_many(CHATS[:3], params, SILENT)
    assert sorted(order) == [0, 1, 2]
    assert [len(r.ids) for r in together] <= [9, 2, 5]


@pytest.fixture(scope="module")
def calculating(tokenizer: Tokenizer, chat_format: ChatFormat) -> Checkpoint:
    """A model trained until it knows two worked answers by heart, their calculator calls included."""
    torch.manual_seed(0)
    model = Model(ModelConfig(tokenizer.vocab_size, 32, 64, 2, 2), seed=0)
    rendered = [chat_format.render_conversation(c) for c in WORKED]
    ids = torch.tensor([id for r in rendered for id in r.ids])
    positions = torch.cat([torch.arange(len(r.ids)) for r in rendered])
    wanted = torch.tensor([bit for r in rendered for bit in r.loss_mask]).nonzero().flatten()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = F.cross_entropy(model(ids, positions, select=wanted - 1), ids[wanted])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    return Checkpoint(model.eval().requires_grad_(False), tokenizer, chat_format, Record("sft"), Path())


def worked(question: str, expression: str, result: str) -> Conversation:
    answer = [Part("python", expression), Part("python_output", result), Part("text", f"it is {result}")]
    return Conversation([Message("user", question), Message("assistant", answer)])


WORKED = [worked("what is 12*34?", "12*34", "408"), worked("cats in the dog", "2+3*1.0", "5")]
QUESTIONS = [Conversation(c.messages[:1]) for c in WORKED]


def test_a_calculators_result_is_forced_into_the_reply(calculating: Checkpoint) -> None:
    replies = Engine(calculating).complete_many([*QUESTIONS, *QUESTIONS], GREEDY)
    assert [r.message for r in replies] == [c.messages[1] for c in WORKED] * 2
    assert calculating.format is not None
    whole = calculating.format.render_conversation(WORKED[0]).ids
    assert replies[0].ids == whole[replies[0].num_prompt_tokens :]


def test_another_tool_or_none_may_answer(calculating: Checkpoint) -> None:
    reply = Engine(calculating, tools=lambda expression: f"{expression}=5").complete(QUESTIONS[0], GREEDY)
    assert reply.parts[:2] == (Part("python", "12*34"), Part("python_output", "12*34=5"))
    silent = Engine(calculating, tools=None).complete(QUESTIONS[0], GREEDY)
    assert "python_output" not in [part.type for part in silent.parts]


def test_a_stream_has_the_words_and_its_request_the_calls(calculating: Checkpoint) -> None:
    engine = Engine(calculating)
    assert "".join(engine.stream(QUESTIONS[0], GREEDY)) == "it is 408"
    request = engine.submit(engine.new_request(QUESTIONS[0], GREEDY))
    events: list[Any] = []
    while engine.is_busy:
        for moved in engine.step():
            events += moved.take_events()
    assert events[0] == ToolCall("12*34")
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == request.reply().text


def test_long_contexts_get_fewer_slots() -> None:
    def slots(context: int) -> int:
        with torch.device("meta"):
            return many_slots(Model(ModelConfig(64, 32, 48, 16, 4, max_position_embeddings=context)))

    # 16 layers x 32 numbers x 4 bytes, keys and values: 4 KiB a token.
    assert [slots(1024), slots(8192), slots(1_000_000)] == [128, 64, 16]
