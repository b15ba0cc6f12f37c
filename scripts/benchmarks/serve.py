"""The server against the bare engine: same model, same requests, float32, one thread for the model.

``vs_engine_16``: tokens per second of 16 streaming clients, over those of an engine that gets the same 16
requests at once. ``first_token_16``: the median time to the first token of those clients, over that of the
engine. ``idle_overhead_ms`` (a row): what one request of one token to an idle server takes longer than in the
engine.

Engine and server live in one process of their own and take turns, the clients in this one; a ratio is the
median over the rounds. The ``_cpu`` ratio divides by the processor time of that process instead of the clock.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import string
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

NUM_CLIENTS, NUM_TOKENS, NUM_ROUNDS = 16, 64, 5
PROMPT_TOKENS = 96


def run() -> dict[str, Any]:
    """Return the ratios and a row for each figure."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    port = ours.recv()
    try:
        return _measure(ours, port)
    finally:
        ours.send(("stop", 0))
        process.join(30)


def _measure(child: Connection, port: int) -> dict[str, Any]:
    def ask(what: str, seed: int) -> Any:
        child.send((what, seed))
        return child.recv()

    rounds: list[dict[str, float]] = []
    for number in range(NUM_ROUNDS + 1):
        engine = ask("engine", 1000 + number)
        before = ask("cpu", 0)
        started = time.perf_counter()
        answers = asyncio.run(_clients(port, 1000 + number))
        seconds = time.perf_counter() - started
        cpu = ask("cpu", 0) - before
        assert sum(count for _, count in answers) == NUM_CLIENTS * NUM_TOKENS
        first = median(first for first, _ in answers)
        single = ask("single", number)
        over_http = asyncio.run(_single(port, number))
        if number:  # the first round warms both sides up
            rounds.append(
                {
                    "vs_engine_16": engine["seconds"] / seconds,
                    "vs_engine_16_cpu": engine["cpu"] / cpu,
                    "first_token_16": first / engine["first"],
                    "server_tokens_per_s": NUM_CLIENTS * NUM_TOKENS / seconds,
                    "engine_tokens_per_s": NUM_CLIENTS * NUM_TOKENS / engine["seconds"],
                    "first_token_ms": first * 1000,
                    "engine_first_token_ms": engine["first"] * 1000,
                    "idle_overhead_ms": (over_http - single) * 1000,
                }
            )
    medians = {name: round(median(each[name] for each in rounds), 3) for name in rounds[0]}
    ratios = {name: medians[name] for name in ("vs_engine_16", "vs_engine_16_cpu", "first_token_16")}
    return {"ratios": ratios, "rows": [{name: value} for name, value in medians.items()]}


def _texts(seed: int, count: int) -> list[str]:
    """Return prompts of about ``PROMPT_TOKENS`` letters, each its own token, that share no beginning."""
    rng = random.Random(seed)
    return ["".join(rng.choices(string.ascii_letters, k=PROMPT_TOKENS)) for _ in range(count)]


# -- clients


async def _clients(port: int, seed: int) -> list[tuple[float, int]]:
    """Return, for each client, seconds to its first token and the number of tokens it was sent."""
    return list(await asyncio.gather(*(_stream(port, text) for text in _texts(seed, NUM_CLIENTS))))


async def _stream(port: int, text: str) -> tuple[float, int]:
    body = _body(text, NUM_TOKENS) | {"stream": True, "stream_options": {"include_usage": True}}
    started = time.perf_counter()
    reader, writer = await _post(port, body)
    first, got = 0.0, b""
    while piece := await reader.read(65536):
        got += piece
        if not first and b'"content":"' in got.replace(b'"content":""', b""):
            first = time.perf_counter() - started
    writer.close()
    usage = json.loads(got.rsplit(b"data: {", 1)[1].split(b"\n", 1)[0].join([b"{", b""]))["usage"]
    return first, usage["completion_tokens"]


async def _single(port: int, seed: int) -> float:
    """Return the median seconds of a request of one token, on an idle server."""
    times = []
    for text in _texts(seed, 9):
        started = time.perf_counter()
        reader, writer = await _post(port, _body(text, 1))
        await reader.read()
        times.append(time.perf_counter() - started)
        writer.close()
    return median(times)


def _body(text: str, max_tokens: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": max_tokens}


async def _post(port: int, body: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    writer.write(
        f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    )
    return reader, writer


# -- the process with the model


def _serve(parent: Connection) -> None:
    import torch
    import uvicorn

    from picollm.serve.app import create_app
    from picollm.serve.server import Server, listen
    from picollm.serve.service import Served, Service

    torch.set_num_threads(1)
    checkpoint = _checkpoint()
    service = Service([Served("model", checkpoint, num_slots=NUM_CLIENTS)])
    listening = listen("127.0.0.1", 0)

    def started() -> None:
        parent.send(listening.getsockname()[1])

    config = uvicorn.Config(create_app(service), log_level="warning", access_log=False)
    server = Server(config, service, 1.0, started)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    answers: dict[str, Callable[[int], Any]] = {
        "engine": lambda seed: _engine(checkpoint, seed),
        "single": lambda seed: _engine_single(checkpoint, seed),
        "cpu": lambda _: time.process_time(),
    }
    while (asked := parent.recv())[0] != "stop":
        parent.send(answers[asked[0]](asked[1]))
    server.should_exit = True
    thread.join()


def _checkpoint() -> Any:
    """Return a random model that never ends a reply, with a tokenizer whose letters are tokens."""
    import torch

    from picollm.chat.format import ChatFormat
    from picollm.checkpoint import Checkpoint
    from picollm.model.config import ModelConfig
    from picollm.model.llama import Model
    from picollm.record import Record
    from picollm.tokenizer import Tokenizer

    tokenizer = Tokenizer.train([string.ascii_letters], 300, ChatFormat.required_tokens("picollm"))
    model = (
        Model(ModelConfig(8192, 384, 1024, 6, 6, max_position_embeddings=1024)).eval().requires_grad_(False)
    )
    with torch.no_grad():
        model.lm_head_weight.normal_(generator=torch.Generator().manual_seed(0))
        model.lm_head_weight[list(tokenizer.special_tokens.values())] = 0  # a logit of 0 is never the largest
        for layer in model.model.layers:  # untrained layers write nothing; these do
            for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                weight.normal_(0.0, 0.02, generator=torch.Generator().manual_seed(1))
    return Checkpoint(model, tokenizer, ChatFormat.named("picollm", tokenizer), Record("sft"), Path())


def _requests(engine: Any, seed: int, count: int, max_tokens: int) -> list[Any]:
    from picollm.chat.conversation import Conversation, Message
    from picollm.infer.params import SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    asked = [Conversation([Message("user", text)]) for text in _texts(seed, count)]
    return [engine.new_request(conversation, replace(params)) for conversation in asked]


def _engine(checkpoint: Any, seed: int) -> dict[str, float]:
    from picollm.infer.engine import Engine

    engine = Engine(checkpoint, num_slots=NUM_CLIENTS)
    started, cpu = time.perf_counter(), time.process_time()
    requests = _requests(engine, seed, NUM_CLIENTS, NUM_TOKENS)
    for request in requests:
        engine.submit(request)
    first: dict[int, float] = {}
    while engine.is_busy:
        for request in engine.step():
            first.setdefault(id(request), time.perf_counter() - started)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert sum(len(request.reply_ids) for request in requests) == NUM_CLIENTS * NUM_TOKENS
    return {"seconds": seconds, "cpu": cpu, "first": median(first.values())}


def _engine_single(checkpoint: Any, seed: int) -> float:
    from picollm.infer.engine import Engine

    engine, times = Engine(checkpoint, num_slots=NUM_CLIENTS), []
    for _ in range(9):
        seed += 100
        started = time.perf_counter()
        [request] = _requests(engine, seed, 1, 1)
        engine.submit(request)
        while engine.is_busy:
            engine.step()
        times.append(time.perf_counter() - started)
    return median(times)
