"""The bodies of responses: OpenAI's objects, with ``parts`` beside the text of a reply."""

from __future__ import annotations

import codecs
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from picollm.chat.conversation import Part
from picollm.infer.request import Reply
from picollm.infer.sampling import TokenLogprob
from picollm.tokenizer import Tokenizer

Finish = Literal["stop", "length"]


class ErrorDetail(BaseModel):
    """What went wrong, and with which field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every response that is no success."""

    error: ErrorDetail


class PartAnswer(BaseModel):
    """A stretch of a reply."""

    type: Literal["text", "python", "python_output"]
    text: str


class MessageAnswer(BaseModel):
    """A reply: its text, and its parts where it used the calculator."""

    role: Literal["assistant"]
    content: str
    parts: list[PartAnswer]


class ChoiceAnswer(BaseModel):
    """One of the replies."""

    index: int
    message: MessageAnswer
    logprobs: dict[str, Any] | None
    finish_reason: Finish


class TextChoiceAnswer(BaseModel):
    """One of the continuations."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Finish


class UsageAnswer(BaseModel):
    """What a request cost, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatAnswer(BaseModel):
    """The response of ``/v1/chat/completions``."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[ChoiceAnswer]
    usage: UsageAnswer


class CompletionAnswer(BaseModel):
    """The response of ``/v1/completions``."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str | None
    choices: list[TextChoiceAnswer]
    usage: UsageAnswer


class ModelAnswer(BaseModel):
    """A model that can be asked for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    stage: str
    format: str | None
    system_fingerprint: str | None
    max_model_len: int


class ModelsAnswer(BaseModel):
    """The response of ``/v1/models``."""

    object: Literal["list"]
    data: list[ModelAnswer]


class TokenizeAnswer(BaseModel):
    """The response of ``/tokenize``."""

    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class RenderAnswer(BaseModel):
    """The response of ``/render``; per token: id, loss mask bit, text, message index, is a control token."""

    ids: list[int]
    loss_mask: list[int]
    tokens: list[str]
    messages: list[int]
    special: list[int]
    format: str
    fingerprint: str


class HealthAnswer(BaseModel):
    """The response of ``/health``."""

    status: Literal["ok"]
    models: list[str]
    requests: int


def head(kind: str, prefix: str, model: str, fingerprint: str | None) -> dict[str, Any]:
    """Return the fields that every answer and every chunk of one stream begin with."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint,
    }


def finish_reason(reply: Reply) -> Finish:
    """Return why a reply ended, in OpenAI's words; to begin somebody else's turn is to come to an end."""
    return "length" if reply.finish_reason == "length" else "stop"


def usage(num_prompt_tokens: int, replies: Iterable[Reply]) -> dict[str, int]:
    """Return what a call cost; the prompt of several choices is read, and counted, once."""
    completion = sum(len(reply.ids) for reply in replies)
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": num_prompt_tokens + completion,
    }


def part_dicts(parts: Sequence[Part]) -> list[dict[str, str]]:
    """Return parts in the canonical schema."""
    return [part.to_dict() for part in parts]


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """Return a token's text; one that is no text alone as ``bytes:\\xe2``, as OpenAI writes it."""
    raw = tokenizer.token_bytes(token_id)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def chat_logprobs(tokenizer: Tokenizer, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return log-probabilities in the form of chat completions."""

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        raw = list(tokenizer.token_bytes(token_id))
        return {"token": token_text(tokenizer, token_id), "logprob": logprob, "bytes": raw}

    return {
        "content": [
            {**entry(one.id, one.logprob), "top_logprobs": [entry(*top) for top in one.top]}
            for one in logprobs
        ],
        "refusal": None,
    }


def text_logprobs(
    tokenizer: Tokenizer, ids: Sequence[int], logprobs: Sequence[TokenLogprob | None], offset: int = 0
) -> dict[str, Any]:
    """Return log-probabilities in the form of completions; the chosen token is always among the likely."""
    tokens = [token_text(tokenizer, token_id) for token_id in ids]
    special_ids = frozenset(tokenizer.special_tokens.values())
    utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
    offsets = []
    for token_id in ids:
        offsets.append(offset)
        if token_id not in special_ids:
            offset += len(utf8.decode(tokenizer.token_bytes(token_id)))
    return {
        "tokens": tokens,
        "token_logprobs": [None if one is None else one.logprob for one in logprobs],
        "top_logprobs": [
            None
            if one is None
            else {token_text(tokenizer, i): p for i, p in reversed([*one.top, (one.id, one.logprob)])}
            for one in logprobs
        ],
        "text_offset": offsets,
    }
