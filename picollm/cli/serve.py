"""``picollm serve``: a checkpoint behind OpenAI's API, and a page to chat with it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from picollm import paths
from picollm.cli.chat import AllowMismatch, open_base, open_chat
from picollm.cli.console import console
from picollm.errors import InputError

if TYPE_CHECKING:
    from picollm.checkpoint import Checkpoint


def serve(
    checkpoint: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(help="default: runs/sft")] = None,
    host: Annotated[str, tyro.conf.arg(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, tyro.conf.arg(help="0 takes a free one")] = 8008,
    name: Annotated[
        str | None, tyro.conf.arg(help="the model's name for clients; default: its folder")
    ] = None,
    base: Annotated[
        str | None,
        tyro.conf.arg(help="base checkpoint for the side-by-side view, or none; default: what it came from"),
    ] = None,
    api_key: Annotated[str | None, tyro.conf.arg(help="ask for this key; better: $PICOLLM_API_KEY")] = None,
    open_to_all: Annotated[bool, tyro.conf.arg(help="allow a public address without a key")] = False,
    cors_origins: Annotated[
        tuple[str, ...], tyro.conf.arg(help="web origins whose pages may call the API")
    ] = (),
    slots: Annotated[int, tyro.conf.arg(help="replies written at the same time")] = 16,
    max_waiting: Annotated[int, tyro.conf.arg(help="requests that wait; more get 429")] = 128,
    max_tokens: Annotated[int | None, tyro.conf.arg(help="longest reply a request may ask for")] = None,
    max_open_tokens: Annotated[
        int | None, tyro.conf.arg(help="prompt and reply tokens of all open requests")
    ] = None,
    shutdown_s: Annotated[float, tyro.conf.arg(help="time for open replies to end after Ctrl-C")] = 10.0,
    allow_format_mismatch: AllowMismatch = False,
) -> None:
    """Serve a checkpoint: OpenAI's API under /v1, and a chat page at /."""
    paths.bound_kernel_caches()  # every prompt has a length of its own, and a kernel is kept for each
    from picollm.serve.server import check_exposure, listen
    from picollm.serve.server import serve as run
    from picollm.serve.service import Limits, Served, Service

    limits = Limits(max_tokens=max_tokens, max_waiting=max_waiting, max_open_tokens=max_open_tokens)
    key = api_key or paths.environment("PICOLLM_API_KEY")
    check_exposure(host, key, open_to_all)
    if shutdown_s < 0:
        raise InputError(f"shutdown_s is {shutdown_s}; expected 0 or more.")
    with listen(host, port) as listening:
        loaded = open_chat(checkpoint, allow_format_mismatch)
        models = [Served(name or _name(checkpoint, loaded), loaded, num_slots=slots)]
        parent = None if base == "none" else open_base(loaded, base)
        if parent is not None:
            models.append(Served(_base_name(models[0].name, parent), parent, num_slots=slots))
        address = listening.getsockname()

        def announce() -> None:
            shown = f"[{address[0]}]" if ":" in address[0] else address[0]
            names = " and ".join(served.name for served in models)
            console.print(f"{names} at http://{shown}:{address[1]}  (Ctrl-C stops)", markup=False)

        # uvicorn ends well on Ctrl-C and then raises it again, for programs that go on.
        with suppress(KeyboardInterrupt):
            run(
                Service(models, limits),
                listening,
                api_key=key,
                cors_origins=cors_origins,
                shutdown_s=shutdown_s,
                on_start=announce,
            )


def _name(given: str | None, checkpoint: Checkpoint) -> str:
    """Return a Hub id as it is, and of a path its last part."""
    if given is not None and not Path(given).exists():
        return given
    return checkpoint.path.resolve().name


def _base_name(name: str, base: Checkpoint) -> str:
    own = base.path.resolve().name
    return own if own != name else f"{own}-base"
