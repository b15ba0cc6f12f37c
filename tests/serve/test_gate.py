"""What is refused before anything reads it: strangers, foreign pages, and bodies that are too much."""

from __future__ import annotations

import json
import socket
from http.client import HTTPConnection

import openai
import pytest

from picollm.errors import InputError, UnavailableError
from picollm.serve.gate import _depth, _hostname
from picollm.serve.server import check_exposure, is_loopback, listen
from picollm.serve.service import Limits, Served, Service

JSON = {"Content-Type": "application/json"}
CHAT = json.dumps({"messages": [{"role": "user", "content": "the cat"}], "max_tokens": 1})


@pytest.fixture(scope="module")
def strict(make_checkpoint, running):
    """Return a server that asks for a key, knows its own name only, and reads short bodies."""
    limits = Limits(max_body_bytes=2000, max_depth=8, body_timeout_s=0.5)
    service = Service([Served("sft", make_checkpoint(), num_slots=1)], limits)
    options = {"api_key": "secret", "hosts": {"127.0.0.1"}, "cors_origins": ("https://mine.example",)}
    with running(service, **options) as found:
        yield found


def ask(server, method: str, path: str, body: object = None, **headers: str):
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, path, body, {"Authorization": "Bearer secret", **headers})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_without_the_key_nothing_but_the_page_and_health_is_open(strict) -> None:
    for path, expected in [
        ("/", 200),
        ("/health", 200),
        ("/v1/models", 401),
        ("/metrics", 401),
        ("/no", 401),
    ]:
        status, _, body = ask(strict, "GET", path, Authorization="Bearer wrong")
        assert status == expected
        if expected == 401:
            assert json.loads(body)["error"]["code"] == "invalid_api_key"
    assert ask(strict, "POST", "/v1/chat/completions", CHAT, **JSON, Authorization="")[0] == 401
    assert ask(strict, "POST", "/v1/chat/completions", CHAT, **JSON)[0] == 200
    with pytest.raises(openai.AuthenticationError):
        strict.client(api_key="wrong").models.list()
    assert strict.client(api_key="secret").models.list().data


def test_another_host_name_is_refused(strict) -> None:
    assert ask(strict, "GET", "/health", Host="evil.example")[0] == 421
    assert ask(strict, "GET", "/health", Host="127.0.0.1:99")[0] == 200


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (CHAT, {"Content-Type": "text/plain"}, 415),
        (CHAT, {}, 415),
        ("x" * 2001, JSON, 413),
        (iter([b"x" * 1500, b"x" * 1500]), JSON, 413),
        ("[" * 9, JSON, 400),
        ("{" * 500, JSON, 400),
        ("", JSON, 400),
        (b"\xff\xfe", JSON, 400),
        ("nul", JSON, 400),
        ("[]", JSON, 400),
        ('{"messages": ' + "9" * 1900 + "}", JSON, 400),
        ('{"messages": NaN}', JSON, 400),
    ],
)
def test_a_body_that_is_none_is_refused(strict, body, headers, status) -> None:
    found, _, text = ask(strict, "POST", "/v1/chat/completions", body, **headers)
    assert found == status and json.loads(text)["error"]["message"]


def test_a_body_that_does_not_come_is_not_waited_for(strict) -> None:
    host, port = strict.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer secret\r\nContent-Length: 99\r\n\r\n{"
        )
        assert b" 408 " in connection.recv(999)


def test_only_named_origins_may_call_from_their_pages(strict, server) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    allowed = "Access-Control-Allow-Origin"
    mine = ask(strict, "OPTIONS", "/v1/chat/completions", Origin="https://mine.example", **asked)
    assert mine[0] == 200 and mine[1][allowed] == "https://mine.example"
    assert ask(strict, "OPTIONS", "/v1/models", Origin="https://evil.example", **asked)[1][allowed] is None
    assert ask(server, "GET", "/v1/models", Origin="https://mine.example")[1][allowed] is None


def test_errors_of_the_paths_have_the_same_shape(server) -> None:
    for method, path, status in [("GET", "/nowhere", 404), ("GET", "/v1/completions", 405)]:
        found, _, body = ask(server, method, path)
        assert found == status and set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_no_text_is_kept_in_the_metrics(server, post) -> None:
    post("/v1/chat/completions", {"messages": [{"role": "user", "content": "zanzibar"}], "max_tokens": 1})
    text = ask(server, "GET", "/metrics")[2].decode()
    assert "picollm_tokens_total" in text and "zanzibar" not in text


def test_depth_is_counted_outside_of_strings() -> None:
    assert _depth(b'{"a": "[[[[", "b": [{}]}') == 3
    assert _depth(b'{"a": "\\"[[[", "b": 1}') == 1


def test_host_names() -> None:
    found = [_hostname(name) for name in (b"localhost:8008", b"[::1]:8008", b"LOCALHOST", b"", b"a:b:c")]
    assert found == ["localhost", "::1", "localhost", "", ""]


def test_a_public_address_needs_a_key_or_a_word() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(InputError, match="PICOLLM_API_KEY"):
            check_exposure(host, None, open_to_all=False)
        check_exposure(host, "key", open_to_all=False)
        check_exposure(host, None, open_to_all=True)


def test_a_port_in_use_is_said() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(UnavailableError, match="cannot listen on"):
        listen("127.0.0.1", first.getsockname()[1])


def test_a_defect_of_ours_has_the_same_shape(running, make_checkpoint, monkeypatch, capfd) -> None:
    service = Service([Served("sft", make_checkpoint(), num_slots=1)])
    monkeypatch.setattr(service, "num_requests", lambda: 1 / 0)
    with running(service) as found:
        status, _, body = ask(found, "GET", "/health")
    assert status == 500 and json.loads(body)["error"]["type"] == "server_error"
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_client_that_does_not_read_is_dropped(running, make_checkpoint) -> None:
    served = Served("sft", make_checkpoint(), num_slots=1)
    with running(Service([served], Limits(send_timeout_s=0.2))) as found:
        host, port = found.url.removeprefix("http://").split(":")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            connection.connect((host, int(port)))
            for _ in range(400):  # pages that nobody reads, on one connection
                connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert ask(found, "GET", "/health")[0] == 200
