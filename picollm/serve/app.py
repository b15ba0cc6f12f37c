"""The HTTP application: which path is answered by what, and how errors look."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from picollm import __version__
from picollm.errors import PicoError
from picollm.serve import answers, chat, completions
from picollm.serve.failures import (
    ClientGone,
    Json,
    Refusal,
    error_response,
    from_error,
    from_validation,
)
from picollm.serve.gate import Gate
from picollm.serve.metrics import CONTENT_TYPE
from picollm.serve.page import load_page
from picollm.serve.schema import ChatBody, CompletionBody, RenderBody, TokenizeBody, conversation_of
from picollm.serve.service import Service

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": answers.ErrorBody, "description": "The request, its key or its size is refused."},
    "5XX": {"model": answers.ErrorBody, "description": "The server is shutting down, or failed."},
}
_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}
_TEXT: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
_HTML: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}


def create_app(
    service: Service,
    *,
    api_key: str | None = None,
    hosts: Collection[str] | None = None,
    cors_origins: Collection[str] = (),
) -> ASGIApp:
    """Return the ASGI application around ``service``.

    Args:
        service: what is served; the application starts and stops it.
        api_key: what clients must send as a bearer token; None lets everybody in.
        hosts: the host names that requests may be addressed to; None for any.
        cors_origins: the web origins whose pages may call the API; none by default.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            service.give_up()
            service.stop()

    app = FastAPI(
        title="picoLLM",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        responses=_ERRORS,
    )
    _add_openai_routes(app, service)
    _add_own_routes(app, service)
    _add_error_handlers(app)
    gated: ASGIApp = Gate(
        app,
        limits=service.limits,
        metrics=service.metrics,
        paths={route.path for route in app.routes if hasattr(route, "path")},
        api_key=api_key,
        hosts=hosts,
    )
    if cors_origins:
        gated = CORSMiddleware(
            gated,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return gated


def _add_openai_routes(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/chat/completions",
        responses={200: {"model": answers.ChatAnswer, "content": _STREAM}},
        response_class=Json,
    )
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        """Answer a conversation."""
        return await chat.chat_completions(service, body, request)

    @app.post(
        "/v1/completions",
        responses={200: {"model": answers.CompletionAnswer, "content": _STREAM}},
        response_class=Json,
    )
    async def text_completions(body: CompletionBody, request: Request) -> Response:
        """Continue plain text or token ids."""
        return await completions.completions(service, body, request)

    @app.get("/v1/models", responses={200: {"model": answers.ModelsAnswer}}, response_class=Json)
    async def models() -> Response:
        """List what can be asked for."""
        return Json({"object": "list", "data": [_model(service, name) for name in service.models]})

    @app.get("/v1/models/{name:path}", responses={200: {"model": answers.ModelAnswer}}, response_class=Json)
    async def model(name: str) -> Response:
        """Describe one model."""
        return Json(_model(service, service.model(name).name))


def _model(service: Service, name: str) -> dict[str, Any]:
    served = service.models[name]
    return {
        "id": name,
        "object": "model",
        "created": served.started_at,
        "owned_by": "picollm",
        "stage": served.stage,
        "format": None if served.format is None else served.format.name,
        "system_fingerprint": served.fingerprint,
        "max_model_len": served.engine.context_length,
    }


def _add_own_routes(app: FastAPI, service: Service) -> None:
    page = load_page()

    @app.post("/tokenize", responses={200: {"model": answers.TokenizeAnswer}}, response_class=Json)
    async def tokenize(body: TokenizeBody) -> Response:
        """Turn text into token ids."""
        served = service.model(body.model)
        ids = served.tokenizer.encode(body.prompt)
        found = {"tokens": ids, "count": len(ids), "max_model_len": served.engine.context_length}
        if body.return_token_strs:
            found["token_strs"] = [answers.token_text(served.tokenizer, token_id) for token_id in ids]
        return Json(found)

    @app.post("/render", responses={200: {"model": answers.RenderAnswer}}, response_class=Json)
    async def render(body: RenderBody) -> Response:
        """Show a conversation as the model sees it."""
        served = service.model(body.model)
        conversation = conversation_of(body.messages, service.limits.max_messages)
        return Json(chat.rendered(served, conversation, bool(body.for_completion)))

    @app.get("/health", responses={200: {"model": answers.HealthAnswer}}, response_class=Json)
    async def health() -> Response:
        """Say that the server lives."""
        return Json({"status": "ok", "models": list(service.models), "requests": service.num_requests()})

    @app.get("/metrics", responses={200: {"content": _TEXT}}, response_class=Response)
    async def metrics() -> Response:
        """Report counters for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/", responses={200: {"content": _HTML}}, response_class=Response)
    async def index() -> Response:
        """Return the chat page."""
        return Response(page.html, media_type="text/html; charset=utf-8", headers=page.headers)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(PicoError)
    async def on_error(_: Request, error: PicoError) -> Response:
        return error_response(from_error(error))

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> Response:
        return error_response(from_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        said = {
            404: f"no such path: {request.url.path}; /openapi.json lists them.",
            405: f"{request.method} is not for {request.url.path}.",
            400: "the body is not JSON in UTF-8.",
        }.get(error.status_code, str(error.detail))
        return error_response(Refusal(said, status=error.status_code, headers=error.headers))

    @app.exception_handler(ClientGone)
    async def on_gone(_: Request, __: ClientGone) -> Response:
        return Response(status_code=499)  # nobody reads it; the metrics count it

    @app.exception_handler(Exception)
    async def on_defect(_: Request, __: Exception) -> Response:
        # The server logs the traceback; the client learns that it was not its fault.
        return error_response(Refusal("the server failed; its log says why.", status=500))
