"""A real server on a loopback socket, around a small model with random weights."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
import uvicorn

from picollm.chat.format import ChatFormat
from picollm.checkpoint import Checkpoint
from picollm.infer.request import Request
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.record import Record
from picollm.serve.app import create_app
from picollm.serve.server import listen
from picollm.serve.service import Limits, Served, Service
from picollm.tokenizer import Tokenizer

TEXTS = ["the cat sat on the mat and the dog ran", "what is 2+3? it is 5", "über größe naïve 12*34"] * 20


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 320, ChatFormat.required_tokens("picollm"))


@pytest.fixture(scope="session")
def make_checkpoint(tokenizer: Tokenizer) -> Callable[..., Checkpoint]:
    """Return a maker of checkpoints whose every weight is random; such a model writes varied text."""

    def make(seed: int = 0, stage: str = "sft", has_format: bool = True) -> Checkpoint:
        shape = {"num_key_value_heads": 2, "max_position_embeddings": 256}
        model = Model(ModelConfig(tokenizer.vocab_size, 32, 48, 2, 4, **shape))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.3, generator=generator)
        chat_format = ChatFormat.named("picollm", tokenizer) if has_format else None
        model.eval().requires_grad_(False)
        return Checkpoint(model, tokenizer, chat_format, Record(stage), Path())

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Checkpoint]) -> Checkpoint:
    return make_checkpoint()


@dataclass
class Running:
    """A server that answers at ``url``."""

    url: str
    service: Service
    server: uvicorn.Server
    clients: list[openai.OpenAI] = field(default_factory=list)

    def client(self, **options: object) -> openai.OpenAI:
        """Return the official client, without retries: a test wants to see the first answer."""
        options = {"api_key": "none", "max_retries": 0, "timeout": 60, **options}
        self.clients.append(openai.OpenAI(base_url=f"{self.url}/v1", **options))
        return self.clients[-1]


@contextmanager
def running(service: Service, **options: object) -> Iterator[Running]:
    """Run a server in a thread while the block lasts."""
    listening: socket.socket = listen("127.0.0.1", 0)
    app = create_app(service, **options)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    started = threading.Event()
    begin = server.startup

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await begin(sockets)
        started.set()

    server.startup = startup  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    assert started.wait(20)
    found = Running(f"http://127.0.0.1:{listening.getsockname()[1]}", service, server)
    try:
        yield found
    finally:
        for client in found.clients:
            client.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="session", name="running")
def running_fixture() -> Callable[..., Any]:
    """Return ``running``, for tests that need a server of their own."""
    return running


@pytest.fixture(scope="session")
def server(make_checkpoint: Callable[..., Checkpoint]) -> Iterator[Running]:
    """Return a server with an SFT model, a base model, and a base model without a format."""
    models = [
        Served("sft", make_checkpoint(), num_slots=4),
        Served("base", make_checkpoint(seed=1, stage="pretrain"), num_slots=4),
        Served("plain", make_checkpoint(seed=2, stage="import", has_format=False), num_slots=4),
    ]
    with running(Service(models, Limits(max_waiting=32))) as found:
        yield found


@pytest.fixture
def post(server: Running) -> Callable[..., tuple[int, Any]]:
    """Return a function that posts JSON as it is, right or wrong, and returns status and body."""

    def post(path: str, body: object) -> tuple[int, Any]:
        request = urllib.request.Request(
            server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return post


@pytest.fixture
def prompts_seen(server: Running, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Return the requests that reach the engine's door from now on."""
    seen: list[Request] = []
    for served in server.service.models.values():
        submit = served.engine.submit
        monkeypatch.setattr(served.engine, "submit", lambda r, submit=submit: seen.append(r) or submit(r))
    return seen


@pytest.fixture
def never_ends(monkeypatch: pytest.MonkeyPatch) -> Callable[[Served], None]:
    """Return a function that makes a model's replies as long as they may be, 50 tokens a second at most."""

    def never_ends(served: Served) -> None:
        decoder, step = served.format.turn_decoder, served.engine.step
        control_ids = served.format.control_ids

        def endless():
            found = decoder()
            feed = found.feed
            found.feed = lambda token_id: [] if token_id in control_ids else feed(token_id)
            return found

        def slowly():
            time.sleep(0.02)
            return step()

        monkeypatch.setattr(served.format, "turn_decoder", endless)
        monkeypatch.setattr(served.engine, "step", slowly)

    return never_ends
