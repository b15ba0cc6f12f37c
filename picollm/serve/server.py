"""A socket, and the application behind it until somebody says stop."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable, Collection

import uvicorn

from picollm.errors import InputError, UnavailableError
from picollm.serve.app import create_app
from picollm.serve.service import Service


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_exposure(host: str, api_key: str | None, open_to_all: bool) -> None:
    """Raise InputError for a public address without a key, unless told that everybody may come in."""
    if not (is_loopback(host) or api_key or open_to_all):
        raise InputError(
            f"{host} can be reached from other machines and there is no API key. Set PICOLLM_API_KEY or pass "
            "--api-key, or pass --open-to-all if that is meant."
        )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        UnavailableError: the port is taken, or the address is not this machine's.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port is {port}; expected 0 to 65535.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UnavailableError(
            f"cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}). Choose another with --port, "
            "or stop what uses it."
        ) from error


def serve(
    service: Service,
    listening: socket.socket,
    *,
    api_key: str | None = None,
    cors_origins: Collection[str] = (),
    shutdown_s: float = 10.0,
    on_start: Callable[[], None] = lambda: None,
) -> None:
    """Answer requests on ``listening`` until SIGINT or SIGTERM.

    Then no more are let in; those that are open may end within ``shutdown_s`` and get an error after that.
    """
    host = str(listening.getsockname()[0])
    # Without a key, what keeps web pages of other sites out is that they must call us by our own name.
    hosts = None if api_key or not is_loopback(host) else {"localhost", "127.0.0.1", "::1", host}
    app = create_app(service, api_key=api_key, hosts=hosts, cors_origins=cors_origins)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(shutdown_s) + 2,
    )
    Server(config, service, shutdown_s, on_start).run(sockets=[listening])


class Server(uvicorn.Server):
    """uvicorn, which gives open calls a deadline when it is told to stop."""

    def __init__(
        self, config: uvicorn.Config, service: Service, shutdown_s: float, on_start: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._service = service
        self._shutdown_s = shutdown_s
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let no more in, and give open calls up at the deadline."""
        deadline = asyncio.get_running_loop().call_later(self._shutdown_s, self._service.give_up)
        await super().shutdown(sockets)
        deadline.cancel()
