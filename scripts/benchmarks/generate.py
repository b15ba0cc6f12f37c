"""Greedy generation against ``transformers.generate`` with its cache: same weights, float32, two threads.

``vs_transformers_1``: one request, 128 prompt tokens and 128 new ones. ``vs_transformers_16``: sixteen
requests that arrive together, prompts and replies of 32 to 256 tokens; transformers gets them as one batch,
padded on the left and run until the longest reply is done. Only the tokens that were asked for count, on both
sides.

The two sides take turns, and a ratio is the median over the rounds, because a shared machine changes its
speed from minute to minute. Each round checks that both wrote the same tokens.
"""

from __future__ import annotations

import random
import string
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from picollm.checkpoint import Checkpoint
from picollm.infer.engine import Engine
from picollm.infer.params import SamplingParams
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.record import Record
from picollm.tokenizer import Tokenizer

# Three query heads to one of keys, as the published small models of this kind have; 12.6 M parameters.
SHAPE = ModelConfig(8192, 384, 1024, 6, 6, num_key_value_heads=2)
NUM_ROUNDS = 5


def run() -> dict[str, Any]:
    """Return the ratios and one row per side and setting."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        return _run()
    finally:
        torch.set_num_threads(threads)


def _run() -> dict[str, Any]:
    rng = random.Random(0)
    checkpoint, theirs = both_sides(_tokenizer())
    one = [(_ids(rng, 128), 128)]
    many = [(_ids(rng, rng.randint(32, 256)), rng.randint(32, 256)) for _ in range(16)]
    ratios, rows = {}, []
    for requests in (one, many):
        num_tokens = sum(length for _, length in requests)
        seconds: dict[str, list[float]] = {"picollm": [], "transformers": []}
        same = []
        for round_number in range(NUM_ROUNDS + 1):
            # A fresh engine: prompts read in the round before must not be found in its cache.
            ours, our_seconds = _timed(_ours, Engine(checkpoint), requests)
            others, their_seconds = _timed(by_transformers, theirs, requests)
            same.append(ours == others)
            if round_number:  # the first round warms both sides up
                seconds["picollm"].append(our_seconds)
                seconds["transformers"].append(their_seconds)
        pairs = zip(seconds["transformers"], seconds["picollm"], strict=True)
        ratios[f"vs_transformers_{len(requests)}"] = median(theirs_s / ours_s for theirs_s, ours_s in pairs)
        for side, taken in seconds.items():
            speeds = {
                "tokens_per_s": round(num_tokens / median(taken)),
                "best": round(num_tokens / min(taken)),
            }
            rows.append({"side": side, "requests": len(requests), **speeds, "same_tokens": all(same)})
    return {"ratios": ratios, "rows": rows}


def both_sides(tokenizer: Tokenizer) -> tuple[Checkpoint, Any]:
    """Return our checkpoint and transformers' model, with the same random weights."""
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(Qwen3Config(**SHAPE.to_hf())).eval()
    model = Model(SHAPE)
    model.load_state_dict({k: v for k, v in theirs.state_dict().items() if k != "lm_head.weight"})
    model.eval().requires_grad_(False)
    return Checkpoint(model, tokenizer, None, Record("import"), Path()), theirs


def _tokenizer() -> Tokenizer:
    """Return a tokenizer of exactly the model's vocabulary, without special tokens that would end a reply."""
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(9000)]
    return Tokenizer.train([" ".join(words)] * 2, SHAPE.vocab_size)


def _ids(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(SHAPE.vocab_size) for _ in range(length)]


def _timed(side: Any, *arguments: Any) -> tuple[list[list[int]], float]:
    start = time.perf_counter()
    replies = side(*arguments)
    return replies, time.perf_counter() - start


def _ours(engine: Engine, requests: list[tuple[list[int], int]]) -> list[list[int]]:
    params = [SamplingParams(temperature=0, max_tokens=length) for _, length in requests]
    return [reply.ids for reply in engine.complete_ids([prompt for prompt, _ in requests], params)]


@torch.inference_mode()
def by_transformers(theirs: Any, requests: list[tuple[list[int], int]]) -> list[list[int]]:
    """Return the new tokens of all requests, each a prompt and a number of tokens, as one padded batch."""
    width = max(len(prompt) for prompt, _ in requests)
    padding = [width - len(prompt) for prompt, _ in requests]
    out = theirs.generate(
        torch.tensor([[0] * pad + prompt for pad, (prompt, _) in zip(padding, requests, strict=True)]),
        attention_mask=torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding]),
        max_new_tokens=max(length for _, length in requests),
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return [row[width : width + length].tolist() for row, (_, length) in zip(out, requests, strict=True)]
