"""``/v1/completions``: continuation, and scoring as evaluation harnesses do it."""

from __future__ import annotations

import openai
import pytest
import torch

from picollm import Engine, SamplingParams

GREEDY = {"temperature": 0.0, "max_tokens": 12}


def test_text_and_ids_are_continued_as_by_the_engine(server, checkpoint) -> None:
    ids = checkpoint.format.render_completion_prompt("the cat")
    ours = Engine(checkpoint).complete_ids([ids], SamplingParams(**GREEDY))[0]
    client = server.client()
    for prompt in ("the cat", ids, ["the cat"], [ids]):
        got = client.completions.create(model="sft", prompt=prompt, **GREEDY)
        assert got.choices[0].text == ours.text
    stream = client.completions.create(model="sft", prompt="the cat", stream=True, echo=True, **GREEDY)
    assert "".join(chunk.choices[0].text for chunk in stream) == "the cat" + ours.text


def test_several_prompts_and_choices_keep_their_order(server, checkpoint) -> None:
    prompts = ["the cat", "what is", "über"]
    got = server.client().completions.create(model="sft", prompt=prompts, n=2, **GREEDY)
    fmt, engine = checkpoint.format, Engine(checkpoint)
    alone = [
        engine.complete_ids([fmt.render_completion_prompt(text)], SamplingParams(**GREEDY))[0].text
        for text in prompts
        for _ in range(2)
    ]
    assert [choice.text for choice in got.choices] == alone


def test_echo_with_logprobs_scores_a_prompt_as_the_model_does(server, checkpoint) -> None:
    text = "the cat sat on über"
    ids = checkpoint.format.render_completion_prompt(text)
    with torch.inference_mode():
        logits = checkpoint.model(torch.tensor(ids), torch.arange(len(ids)))
    expected = logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]].tolist()
    for max_tokens in (0, 1):
        got = server.client().completions.create(
            model="sft", prompt=ids, echo=True, logprobs=1, max_tokens=max_tokens, temperature=0
        )
        logprobs = got.choices[0].logprobs
        assert logprobs.token_logprobs[0] is None
        assert logprobs.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=1e-4)
        assert len(logprobs.tokens) == len(ids) + max_tokens
        assert got.choices[0].text.startswith(text)
        for token, top in list(zip(logprobs.tokens, logprobs.top_logprobs, strict=True))[1:]:
            assert token in top and len(top) <= 2
        shown = checkpoint.tokenizer.decode(ids[1:])
        for token, start in zip(logprobs.tokens[1:4], logprobs.text_offset[1:4], strict=True):
            assert shown[start:].startswith(token)


def test_a_model_without_a_chat_format_completes_text(server, post) -> None:
    status, found = post("/v1/completions", {"model": "plain", "prompt": "the cat", "max_tokens": 3})
    assert status == 200 and found["system_fingerprint"] is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, None),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1, 99999]}, "prompt"),
        ({"prompt": "x" * 3000}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 50}, "logprobs"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1, "stream": True}, "stream"),
    ],
)
def test_what_is_wrong_is_named(post, fields, param) -> None:
    status, found = post("/v1/completions", {"prompt": "the cat", "max_tokens": 2, **fields})
    if param is None:  # an empty text has a beginning all the same, in a format with one
        assert status == 200
    else:
        assert status == 400 and found["error"]["param"] == param, found


def test_a_prompt_that_is_too_long_says_by_how_many_tokens(server) -> None:
    with pytest.raises(openai.BadRequestError, match="45 too many"):
        server.client().completions.create(model="sft", prompt=[5] * 300, max_tokens=1)
