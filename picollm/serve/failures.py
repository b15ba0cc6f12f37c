"""What can be wrong with a request, in OpenAI's shape: ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

from picollm.errors import ContextError, ConversationError, PicoError
from picollm.infer.params import SamplingParams

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_MEMBER = re.compile(r"str|int|float|bool|list\[.*\]")
_SAMPLING_FIELDS = frozenset(SamplingParams.__dataclass_fields__)


class Refusal(PicoError):
    """A request that is answered with an error status, naming the field that is to blame."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.http_status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


class ClientGone(Exception):
    """The client closed its connection: there is nobody to answer."""


def busy(message: str, retry_after_s: float) -> Refusal:
    """Return the refusal of a request that may come back later."""
    seconds = str(max(1, math.ceil(retry_after_s)))
    return Refusal(message, status=429, code="server_busy", headers={"Retry-After": seconds})


def from_error(error: PicoError) -> Refusal:
    """Return ``error`` as a refusal; which field it is about follows from its kind."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ContextError):
        return Refusal(str(error), param="messages", code="context_length_exceeded")
    if isinstance(error, ConversationError):
        return Refusal(str(error), param="messages", code="invalid_conversation")
    first = str(error).split(" ", 1)[0]
    return Refusal(str(error), status=error.http_status, param=first if first in _SAMPLING_FIELDS else None)


def from_validation(errors: Sequence[Mapping[str, Any]]) -> Refusal:
    """Return what pydantic found as a refusal that names the deepest field of the first complaint."""
    first = max(errors, key=lambda error: len(_path(error["loc"])))
    param = _spelled(_path(first["loc"]))
    if first["type"] == "extra_forbidden":
        return Refusal(
            f"{param} is not supported here; leave it out.", param=param, code="unsupported_parameter"
        )
    if first["type"] == "missing":
        return Refusal(f"{param} is missing.", param=param, code="missing_parameter")
    if first["type"] == "json_invalid":
        return Refusal("the body is not JSON.", code="invalid_json")
    reason = str(first["msg"]).removeprefix("Value error, ")
    return Refusal(f"{param or 'the body'}: {reason}.", param=param or None, code="invalid_value")


def _path(loc: Sequence[str | int]) -> list[str | int]:
    """Return a place in the body without pydantic's names for the members of a union."""
    return [step for step in loc[1:] if isinstance(step, int) or not _MEMBER.fullmatch(step)]


def _spelled(path: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def error_body(refusal: Refusal) -> dict[str, Any]:
    """Return the JSON object that tells a client of ``refusal``."""
    default = "server_error" if refusal.http_status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": str(refusal),
            "type": _TYPES.get(refusal.http_status, default),
            "param": refusal.param,
            "code": refusal.code,
        }
    }


def dumps(value: Any) -> bytes:
    """Return ``value`` as compact JSON in UTF-8; a lone surrogate, which UTF-8 cannot say, becomes ``?``."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


class Json(JSONResponse):
    """A response of one JSON value."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return dumps(content)


def error_response(refusal: Refusal) -> Json:
    """Return the response that tells a client of ``refusal``."""
    return Json(error_body(refusal), refusal.http_status, refusal.headers)
