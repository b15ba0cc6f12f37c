"""The bodies of requests: OpenAI's fields as far as we have what they ask for, and nothing else.

A field that we do not know is refused by its name, never ignored. ``null`` is what clients send for a field
they do not use, so it is always allowed; and so are the values of ``NEUTRAL``, which ask for nothing.
What a number may be is decided by ``SamplingParams``, what a conversation may be by ``Conversation``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from picollm.chat.conversation import Conversation, PartType, Role
from picollm.errors import ConversationError
from picollm.infer.params import SamplingParams
from picollm.serve.failures import Refusal

NEUTRAL: Mapping[str, Any] = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "tools": [],
    "functions": [],
    "tool_choice": "none",
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "store": False,
    "metadata": {},
    "best_of": 1,
    "suffix": "",
}
MAX_CHOICES, MAX_TOP_LOGPROBS, MAX_STOPS = 16, 20, 16


def _document_neutral(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = {"type": "null"}
    for name, value in NEUTRAL.items():
        schema["properties"][name] = {"enum": [None, value], "description": "Accepted as it does nothing."}


class Body(BaseModel):
    """An object whose every field means something here."""

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, given: Any) -> Any:
        return {k: v for k, v in given.items() if v is not None} if isinstance(given, dict) else given


class PartBody(Body):
    """A stretch of a message; ``python`` and ``python_output`` are the calculator's call and its answer."""

    type: PartType
    text: str


class MessageBody(Body):
    """One turn. The parts of a reply may stand in ``content``, or beside its text in ``parts``."""

    role: Role
    content: str | list[PartBody] | None = None
    parts: list[PartBody] | None = Field(None, description="What a reply of this server had in `parts`.")
    weight: int | None = None

    def to_dict(self, index: int) -> dict[str, Any]:
        """Return the message in the canonical schema."""
        content = self.content if isinstance(self.content, str) else _dicts(self.content)
        if self.parts is not None:
            words = "".join(part.text for part in self.parts if part.type == "text")
            if content not in (None, words):
                where = f"messages[{index}].parts"
                raise Refusal(f"{where}: their text is not that of content.", param=where)
            content = _dicts(self.parts)
        return {"role": self.role, "content": content, "weight": self.weight}


def _dicts(parts: list[PartBody] | None) -> list[dict[str, str]] | None:
    return None if parts is None else [part.model_dump() for part in parts]


def conversation_of(messages: list[MessageBody], max_messages: int) -> Conversation:
    """Return what was sent as a conversation. Raises Refusal or ConversationError."""
    if len(messages) > max_messages:
        raise Refusal(
            f"{len(messages)} messages; this server reads at most {max_messages}.", param="messages"
        )
    rows = [message.to_dict(index) for index, message in enumerate(messages)]
    try:
        return Conversation.from_dict({"messages": rows})
    except ConversationError as error:
        raise Refusal(f"messages: {error}.", param="messages", code="invalid_conversation") from error


class StreamOptions(Body):
    """How a stream ends."""

    include_usage: bool | None = None


class Sampling(Body):
    """The fields that both ways to ask for text have in common."""

    model_config = ConfigDict(json_schema_extra=_document_neutral)

    model: str | None = Field(None, description="One of /v1/models; by default the first.")
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="Accepted, and not used.")

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {k: v for k, v in given.items() if not (k in NEUTRAL and _same(v, NEUTRAL[k]))}

    @model_validator(mode="after")
    def _fields_fit(self) -> Sampling:
        if self.stream_options is not None and not self.stream:
            raise Refusal("stream_options needs stream to be true.", param="stream_options")
        if isinstance(self.stop, list) and len(self.stop) > MAX_STOPS:
            raise Refusal(f"stop has {len(self.stop)} strings; at most {MAX_STOPS}.", param="stop")
        return self

    @property
    def include_usage(self) -> bool:
        """Return whether a stream ends with what it cost."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def params(self, max_tokens: int, num_logprobs: int | None) -> list[SamplingParams]:
        """Return the parameters of each of the ``n`` replies. Raises InputError."""
        given = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop")
        named = {name: value for name in given if (value := getattr(self, name)) is not None}
        return [
            SamplingParams(
                max_tokens=max_tokens,
                logprobs=num_logprobs,
                seed=None if self.seed is None else self.seed + index,
                **named,
            )
            for index in range(self.n or 1)
        ]


def _same(value: Any, neutral: Any) -> bool:
    """Return whether a value asks for nothing; 0 and 0.0 do, False for a number does not."""
    return bool(value == neutral) and isinstance(value, bool) == isinstance(neutral, bool)


class ChatBody(Sampling):
    """The body of ``/v1/chat/completions``."""

    messages: list[MessageBody]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)

    @model_validator(mode="after")
    def _chat_fields_fit(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise Refusal("top_logprobs needs logprobs to be true.", param="top_logprobs")
        both = self.max_tokens, self.max_completion_tokens
        if None not in both and both[0] != both[1]:
            raise Refusal(
                f"max_tokens is {both[0]} and max_completion_tokens {both[1]}; expected one of them.",
                param="max_tokens",
            )
        return self

    @property
    def num_logprobs(self) -> int | None:
        """Return how many alternatives to report beside each token, None for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Sampling):
    """The body of ``/v1/completions``; a prompt is text, or token ids that are taken as they are."""

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)

    @property
    def prompts(self) -> list[str | list[int]]:
        """Return one or several prompts as a list."""
        given: Any = self.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            return [given]
        return list(given)


class TokenizeBody(Body):
    """The body of ``/tokenize``."""

    model: str | None = None
    prompt: str = Field(description="Text; it never becomes a control token.")
    return_token_strs: bool | None = None


class RenderBody(Body):
    """The body of ``/render``."""

    model: str | None = None
    messages: list[MessageBody]
    for_completion: bool | None = Field(
        None, description="Return the prompt of the next reply instead, as the engine would get it."
    )
