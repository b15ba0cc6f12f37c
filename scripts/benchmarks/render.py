"""Rendering with loss masks against transformers, and against a bare tiktoken loop over the same contents.

All sides have one vocabulary and one process, and take turns over slices of the conversations; what counts is
CPU time. Two workers are measured on the clock. The conversations are those of ``chat/mix`` and GSM8K in a
directory ``../shared/data`` in the published layouts where there is one, else the package's own.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import tiktoken

from picollm.chat.conversation import Conversation
from picollm.chat.format import ChatFormat
from picollm.fast_bpe import QWEN2_PATTERN, bytes_of_symbol
from picollm.tasks.registry import load_task
from picollm.tokenizer import Tokenizer

NUM_CONVERSATIONS = 2000
VOCAB_SIZE = 8192
SLICE = 100
ROUNDS_OF_TWO = 5
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def run() -> dict[str, Any]:
    talks = {name: list(conversations(name, NUM_CONVERSATIONS)) for name in ("mix", "gsm8k")}
    tokenizer = train(itertools.chain(*talks.values()))
    fmt = ChatFormat.named("picollm", tokenizer)
    rows = [compare(name, fmt, each) for name, each in talks.items()]
    two = two_workers(fmt, list(itertools.chain(*talks.values())))
    lowest = {key: min(row[key] for row in rows) for key in ("vs_transformers", "vs_tiktoken_loop")}
    return {"ratios": {**lowest, "two_workers": two}, "rows": rows}


def conversations(name: str, limit: int) -> Iterator[Conversation]:
    """Return real conversations where they lie, else those that the package generates."""
    task, folder = ("smoltalk", "chat/mix") if name == "mix" else (name, "gsm8k/main")
    location = SHARED / folder if SHARED.is_dir() else None
    rows = load_task(task, "train", location=location, limit=limit)
    return (rows[index] for index in range(min(limit, len(rows))))


def train(talks: Iterator[Conversation]) -> Tokenizer:
    texts = (part.text for talk in talks for message in talk.messages for part in message.parts)
    return Tokenizer.train(texts, VOCAB_SIZE, ChatFormat.required_tokens("picollm"))


def compare(name: str, fmt: ChatFormat, talks: Sequence[Conversation]) -> dict[str, Any]:
    from transformers import PreTrainedTokenizerFast

    peer = PreTrainedTokenizerFast(tokenizer_object=fmt.tokenizer._backend)
    plain = bare_twin(fmt.tokenizer)
    template = fmt.chat_template
    sides: dict[str, Callable[[Any], object]] = {
        "picollm": fmt.render_conversation,
        "transformers": lambda messages: peer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        ),
        "tiktoken_loop": lambda texts: [plain.encode_ordinary(text) for text in texts],
    }
    inputs: dict[str, list[Any]] = {
        "picollm": list(talks),
        "transformers": [talk.to_dict()["messages"] for talk in talks],
        "tiktoken_loop": [[part.text for m in talk.messages for part in m.parts] for talk in talks],
    }
    seconds = dict.fromkeys(sides, 0.0)
    for start in range(-SLICE, len(talks), SLICE):  # the first slice twice: once to warm up
        for side, render in sides.items():
            items = inputs[side][max(0, start) : max(0, start) + SLICE]
            begin = time.process_time()
            for item in items:
                render(item)
            seconds[side] += (time.process_time() - begin) if start >= 0 else 0.0
    rates = {f"{side}_per_cpu_s": round(len(talks) / spent) for side, spent in seconds.items()}
    ours = seconds["picollm"]
    return {
        "set": name,
        "conversations": len(talks),
        **rates,
        "vs_transformers": seconds["transformers"] / ours,
        "vs_tiktoken_loop": seconds["tiktoken_loop"] / ours,
    }


def bare_twin(tokenizer: Tokenizer) -> tiktoken.Encoding:
    """Return tiktoken with the merges of ``tokenizer`` and nothing else."""
    vocabulary = tokenizer._backend.get_vocab(with_added_tokens=False)
    ranks = {bytes_of_symbol(symbol): token_id for symbol, token_id in vocabulary.items()}
    return tiktoken.Encoding("bare", pat_str=QWEN2_PATTERN, mergeable_ranks=ranks, special_tokens={})


def two_workers(fmt: ChatFormat, talks: list[Conversation]) -> float:
    """Return how much sooner two processes are done than one, each with its own conversations."""
    context = multiprocessing.get_context("fork")
    workers = []
    for part in (talks[0::2], talks[1::2]):
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, fmt, part), daemon=True)
        process.start()
        workers.append((process, here))
    best = {1: float("inf"), 2: float("inf")}
    for _ in range(ROUNDS_OF_TWO):
        for count in (1, 2):
            begin = time.perf_counter()
            for at_once in [workers] if count == 2 else [[worker] for worker in workers]:
                for _, pipe in at_once:
                    pipe.send(True)
                for _, pipe in at_once:
                    pipe.recv()
            best[count] = min(best[count], time.perf_counter() - begin)
    for process, pipe in workers:
        pipe.send(False)
        process.join()
    return best[1] / best[2]


def serve(pipe: Connection, fmt: ChatFormat, talks: list[Conversation]) -> None:
    while pipe.recv():
        pipe.send(sum(len(fmt.render_conversation(talk).ids) for talk in talks))
