"""``/v1/completions``: plain text or token ids, continued; with ``echo`` and ``logprobs``, scored.

The form of base models and of evaluation harnesses: what follows a prompt, without any chat format.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from picollm.infer.request import Reply
from picollm.infer.sampling import TokenLogprob
from picollm.serve.answers import finish_reason, head, text_logprobs, usage
from picollm.serve.failures import Json, Refusal, dumps
from picollm.serve.prompt_logprobs import prompt_logprobs
from picollm.serve.respond import EventStream, all_replies, event
from picollm.serve.schema import CompletionBody
from picollm.serve.service import Served, Service
from picollm.serve.worker import Update

DEFAULT_MAX_TOKENS = 16

_Logprobs = Sequence[TokenLogprob | None]


async def completions(service: Service, body: CompletionBody, request: Request) -> Response:
    """Answer one call. Raises PicoError for whatever is wrong with it."""
    served = service.model(body.model)
    prompts = [_prompt_ids(served, prompt) for prompt in body.prompts]
    _check(body, prompts, served.engine.context_length)
    read = await _read_prompts(served, body, prompts)
    if body.max_tokens == 0:
        return _answer(served, body, prompts, read, [])
    params = body.params(service.max_tokens(body.max_tokens, served, DEFAULT_MAX_TOKENS), body.logprobs)
    requests = [served.engine.new_completion_request(ids, each) for ids in prompts for each in params]
    call = service.open(served, requests, streams=bool(body.stream))

    def close() -> None:
        service.close(served, call)

    updates = service.updates(served, call)
    if body.stream:
        return EventStream(_chunks(served, body, prompts, updates), close)
    return _answer(served, body, prompts, read, await all_replies(request, updates, close))


def _prompt_ids(served: Served, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        if served.format is not None:
            return served.format.render_completion_prompt(prompt)
        return served.tokenizer.encode(prompt)
    size = served.tokenizer.vocab_size
    wrong = next((token_id for token_id in prompt if not 0 <= token_id < size), None)
    if wrong is not None:
        raise Refusal(f"prompt holds {wrong}, which is no id of this vocabulary of {size}.", param="prompt")
    return prompt


def _check(body: CompletionBody, prompts: list[list[int]], context: int) -> None:
    if not prompts or not all(prompts):
        raise Refusal("prompt is empty; expected at least one token.", param="prompt")
    if body.max_tokens == 0 and not body.echo:
        raise Refusal("max_tokens is 0; expected at least 1, or echo.", param="max_tokens")
    if body.stream and body.echo and (body.logprobs is not None or body.max_tokens == 0):
        raise Refusal("echo with logprobs is not streamed; leave one of them out.", param="stream")
    longest, room = max(map(len, prompts)), int(body.max_tokens != 0)
    if longest + room > context:
        raise Refusal(
            f"the prompt is {longest} tokens and the context {context}: {longest + room - context} too many"
            f"{' to go on' if room else ''}.",
            param="prompt",
            code="context_length_exceeded",
        )


async def _read_prompts(
    served: Served, body: CompletionBody, prompts: list[list[int]]
) -> list[_Logprobs] | None:
    """Return how likely each prompt was, where asked for."""
    num_top = body.logprobs
    if not body.echo or num_top is None:
        return None
    model, size = served.engine.model, served.tokenizer.vocab_size
    return [
        await served.worker.run(lambda ids=ids: prompt_logprobs(model, ids, size, num_top))  # type: ignore[misc]
        for ids in prompts
    ]


def _answer(
    served: Served,
    body: CompletionBody,
    prompts: list[list[int]],
    read: list[_Logprobs] | None,
    replies: list[Reply],
) -> Json:
    n = body.n or 1
    choices = []
    for index in range(len(prompts) * n):
        ids, number = prompts[index // n], index // n
        reply = replies[index] if replies else None
        written, text = (reply.ids, reply.text) if reply else ([], "")
        shown = _text(served, body.prompts[number]) if body.echo else ""
        logprobs = None
        if body.logprobs is not None:
            known = [*(read[number] if read else []), *((reply.logprobs or []) if reply else [])]
            logprobs = text_logprobs(served.tokenizer, [*(ids if read else []), *written], known)
        choices.append(
            {
                "index": index,
                "text": shown + text,
                "logprobs": logprobs,
                "finish_reason": finish_reason(reply) if reply else "length",
            }
        )
    beginning = head("text_completion", "cmpl", served.name, served.fingerprint)
    return Json({**beginning, "choices": choices, "usage": usage(sum(map(len, prompts)), replies)})


def _text(served: Served, prompt: str | list[int]) -> str:
    if isinstance(prompt, str):
        return prompt
    special = frozenset(served.tokenizer.special_tokens.values())
    return served.tokenizer.decode([token_id for token_id in prompt if token_id not in special])


async def _chunks(
    served: Served, body: CompletionBody, prompts: list[list[int]], updates: AsyncIterator[list[Update]]
) -> AsyncIterator[bytes]:
    """Yield the events of a stream."""
    first = head("text_completion", "cmpl", served.name, served.fingerprint)

    def chunk(index: int, text: str, logprobs: Any = None, reason: str | None = None) -> bytes:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        return event(dumps({**first, "choices": [choice]}))

    n = body.n or 1
    replies: list[Reply] = []
    offsets: dict[int, int] = {}
    if body.echo:
        for index in range(len(prompts) * n):
            yield chunk(index, _text(served, body.prompts[index // n]))
    async for batch in updates:
        for index, pieces, logprobs, reply in batch:
            text = "".join(piece.text for piece in pieces)
            told = None
            if body.logprobs is not None:
                ids = [one.id for one in logprobs]
                told = text_logprobs(served.tokenizer, ids, logprobs, offsets.get(index, 0))
                offsets[index] = offsets.get(index, 0) + len(text)
            if text or logprobs:
                yield chunk(index, text, told)
            if reply is not None:
                replies.append(reply)
                yield chunk(index, "", None, finish_reason(reply))
    if body.include_usage:
        cost = usage(sum(map(len, prompts)), replies)
        yield event(dumps({**first, "choices": [], "usage": cost}))
