"""``/v1/chat/completions``: a conversation in, replies out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from picollm.chat.conversation import Conversation, Part
from picollm.chat.inspect import Inspection
from picollm.infer.request import Reply
from picollm.serve.answers import chat_logprobs, finish_reason, head, part_dicts, token_text, usage
from picollm.serve.failures import Json, Refusal, dumps
from picollm.serve.respond import EventStream, all_replies, event
from picollm.serve.schema import ChatBody, conversation_of
from picollm.serve.service import Served, Service
from picollm.serve.worker import Call, Update


async def chat_completions(service: Service, body: ChatBody, request: Request) -> Response:
    """Answer one call. Raises PicoError for whatever is wrong with it."""
    served = service.model(body.model)
    asked = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    params = body.params(service.max_tokens(asked, served), body.num_logprobs)
    given = conversation_of(body.messages, service.limits.max_messages)
    conversation, requests = await service.chat_requests(served, given, params)
    call = service.open(served, requests, streams=bool(body.stream))

    def close() -> None:
        service.close(served, call)

    updates = service.updates(served, call, conversation)
    if body.stream:
        return EventStream(_chunks(served, body, call, updates), close)
    replies = await all_replies(request, updates, close)
    return Json(
        {
            **head("chat.completion", "chatcmpl", served.name, served.fingerprint),
            "choices": [_choice(served, body, index, reply) for index, reply in enumerate(replies)],
            "usage": usage(len(requests[0].prompt_ids), replies),
        }
    )


def rendered(served: Served, conversation: Conversation, for_completion: bool) -> dict[str, Any]:
    """Return a conversation token by token; or the prompt of its next reply, exactly as the engine gets it.

    Raises:
        Refusal: the model has no chat format.
    """
    memory, chat_format = served.memory, served.format
    if memory is None or chat_format is None:
        raise Refusal(f"{served.name} has no chat format; it is a base model.", param="model")
    if for_completion:
        ids = memory.next_prompt(conversation)[1]
        special = [int(token_id in chat_format.control_ids) for token_id in ids]
        texts = [token_text(served.tokenizer, token_id) for token_id in ids]
        mask, turns = [0] * len(ids), list[int]()
    else:
        inspection = Inspection.of(chat_format, conversation)
        tokens = inspection.tokens
        ids, mask = [token.id for token in tokens], [token.bit for token in tokens]
        texts, special = [token.visible for token in tokens], [int(token.special) for token in tokens]
        turns = [token.message for token in tokens]
    return {
        "ids": ids,
        "loss_mask": mask,
        "tokens": texts,
        "messages": turns,
        "special": special,
        "format": chat_format.name,
        "fingerprint": chat_format.fingerprint,
    }


def _choice(served: Served, body: ChatBody, index: int, reply: Reply) -> dict[str, Any]:
    logprobs = None
    if body.logprobs:
        written = [one for one in reply.logprobs or [] if one is not None]
        logprobs = chat_logprobs(served.tokenizer, _without_end(served, written, reply))
    message = {"role": "assistant", "content": reply.text, "parts": part_dicts(reply.parts)}
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": finish_reason(reply),
    }


def _without_end(served: Served, logprobs: list[Any], reply: Reply | None) -> list[Any]:
    """Leave out the token that ended the turn: it is no part of what was said."""
    stops = served.format.stop_ids if served.format is not None and reply is not None else frozenset()
    return logprobs[:-1] if logprobs and logprobs[-1].id in stops else logprobs


async def _chunks(
    served: Served, body: ChatBody, call: Call, updates: AsyncIterator[list[Update]]
) -> AsyncIterator[bytes]:
    """Yield a stream's events: per choice its role, its words as they come, why it ended; then usage."""
    first = head("chat.completion.chunk", "chatcmpl", served.name, served.fingerprint)
    beginning = dumps(first)[:-1]
    nothing = b',"usage":null}' if body.include_usage else b"}"

    def chunk(index: int, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return event(beginning + b',"choices":[' + dumps(choice) + b"]" + nothing)

    replies: dict[int, Reply] = {}
    begun: set[int] = set()
    async for batch in updates:
        events = []
        for update in batch:
            index, reply = update.choice, update.reply
            if index not in begun:
                begun.add(index)
                events.append(chunk(index, {"role": "assistant", "content": ""}))
            logprobs = None
            if body.logprobs:
                logprobs = chat_logprobs(
                    served.tokenizer, _without_end(served, update.logprobs, update.reply)
                )
            if update.pieces or (logprobs and logprobs["content"]):
                events.append(chunk(index, _delta(update.pieces), logprobs))
            if reply is not None:
                replies[index] = reply
                events.append(chunk(index, {}, None, finish_reason(reply)))
        yield b"".join(events)
    if body.include_usage:
        cost = usage(len(call.requests[0].prompt_ids), replies.values())
        yield event(dumps({**first, "choices": [], "usage": cost}))


def _delta(pieces: list[Part]) -> dict[str, Any]:
    """Return new words; ``parts`` too, in order, when some of what is new is no text."""
    content = "".join(piece.text for piece in pieces if piece.type == "text")
    if all(piece.type == "text" for piece in pieces):
        return {"content": content}
    return {"content": content, "parts": part_dicts(pieces)}
