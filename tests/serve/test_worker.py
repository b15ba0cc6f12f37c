"""Clients that go away, and a server that is full or stops."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import openai
import pytest

from picollm import Checkpoint
from picollm.serve.service import Limits, Served, Service

LONG = {"messages": [{"role": "user", "content": "what is the cat"}], "seed": 0}


@pytest.fixture
def full_server(make_checkpoint: Callable[..., Checkpoint], running) -> Iterator:
    """Return a server with one slot, and room for one request that waits."""
    served = Served("sft", make_checkpoint(), num_slots=1)
    with running(Service([served], Limits(max_waiting=1))) as found:
        yield found


@contextlib.contextmanager
def held(served: Served) -> Iterator[None]:
    """Keep the worker between two steps while the block lasts."""
    holding, go = threading.Event(), threading.Event()

    def hold() -> None:
        holding.set()
        go.wait(60)

    served.worker._inbox.put(hold)
    assert holding.wait(60)
    try:
        yield
    finally:
        go.set()


def connect(server, path: str, body: dict, read: bytes = b"") -> socket.socket:
    """Return a connection on which a request was sent, and the answer came as far as ``read``."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    got = b""
    while read not in got:
        got += connection.recv(65536)
    return connection


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_while_it_waits_frees_its_place(full_server, stream: bool) -> None:
    served = full_server.service.model(None)
    with held(served):
        first = connect(full_server, "/v1/chat/completions", {**LONG, "max_tokens": 3})
        second = connect(full_server, "/v1/chat/completions", {**LONG, "stream": stream})
        wait_until(lambda: len(full_server.service._open) == 2)
        call = list(full_server.service._open)[1]
        second.close()
        wait_until(lambda: call not in full_server.service._open)
    wait_until(lambda: full_server.service.num_requests() == 0)
    assert call.requests[0].reply_ids == [] and call.requests[0].finish_reason in (None, "cancelled")
    assert not served.engine.is_busy and b"200 OK" in first.recv(99)
    first.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_in_the_middle_frees_its_slot_before_the_next_step(
    full_server, stream: bool, monkeypatch, never_ends
) -> None:
    served, service = full_server.service.model(None), full_server.service
    never_ends(served)
    monkeypatch.setattr(served.engine, "context_length", 10**9)  # so that only going away can end it
    connection = connect(full_server, "/v1/chat/completions", {**LONG, "stream": stream, "max_tokens": 200})
    wait_until(lambda: bool(service._open) and len(next(iter(service._open)).requests[0].reply_ids) > 2)
    call = next(iter(service._open))
    with held(served):
        length = len(call.requests[0].ids)
        connection.close()
        wait_until(lambda: not service._open)
    wait_until(lambda: service.num_requests() == 0)
    assert call.requests[0].finish_reason == "cancelled" and len(call.requests[0].ids) == length
    assert not served.engine.is_busy


def test_a_full_server_says_when_to_come_back(full_server) -> None:
    client, served = full_server.client(), full_server.service.model(None)
    with held(served):
        open_ones = [
            connect(full_server, "/v1/chat/completions", {**LONG, "max_tokens": 2}) for _ in range(2)
        ]
        wait_until(lambda: len(full_server.service._open) == 2)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="sft", **LONG)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert client.models.list().data[0].id == "sft", "everything else still answers"
    for connection in open_ones:
        assert b"200 OK" in connection.recv(99)
        connection.close()
    assert client.chat.completions.create(model="sft", max_tokens=2, **LONG).usage.completion_tokens


@pytest.mark.parametrize(
    ("limits", "fields", "status"),
    [
        (Limits(max_tokens=8), {"max_tokens": 9}, 400),
        (Limits(max_tokens=8), {"max_tokens": 8}, 200),
        (Limits(max_open_tokens=20), {"max_tokens": 60}, 400),
        (Limits(max_open_tokens=60), {"max_tokens": 8}, 200),
        (Limits(max_messages=2), {"messages": LONG["messages"] * 3}, 400),
    ],
)
def test_limits_on_tokens_and_messages(make_checkpoint, running, limits, fields, status) -> None:
    service = Service([Served("sft", make_checkpoint(), num_slots=1)], limits)
    with (
        running(service) as server,
        connect(server, "/v1/chat/completions", {**LONG, **fields}) as connection,
    ):
        assert f" {status} ".encode() in connection.recv(99)


def test_without_a_word_a_reply_is_as_long_as_the_server_allows(make_checkpoint, running) -> None:
    served = Served("sft", make_checkpoint(), num_slots=1)
    with running(Service([served], Limits(max_tokens=5))) as server:
        got = server.client().chat.completions.create(model="sft", **LONG)
        assert got.usage.completion_tokens <= 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_stops_gives_up_what_is_open(full_server, stream: bool) -> None:
    client, service = full_server.client(), full_server.service
    failed: list[Exception] = []

    def ask() -> None:
        try:
            got = client.chat.completions.create(model="sft", stream=stream, **LONG)
            for _ in got:
                pass
        except openai.APIError as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    with held(service.model(None)):
        asking.start()
        wait_until(lambda: len(service._open) == 1)
        service.give_up()
        asking.join(60)
        assert "shutting down" in str(failed[0])
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            client.chat.completions.create(model="sft", **LONG)


def test_an_engine_that_fails_answers_with_an_error_and_goes_on(full_server, monkeypatch) -> None:
    client, served = full_server.client(), full_server.service.model(None)
    step = served.engine.step

    def broken():
        monkeypatch.setattr(served.engine, "step", step)
        raise MemoryError("no room")

    monkeypatch.setattr(served.engine, "step", broken)
    with pytest.raises(openai.InternalServerError, match="the engine failed"):
        client.chat.completions.create(model="sft", **LONG)
    assert client.chat.completions.create(model="sft", max_tokens=2, **LONG).choices
