"""Scores in less time: many word problems at once, and multiple choice without padding.

``gsm8k_vs_one_by_one``: GSM8K test problems with up to 256 new tokens in one process, against the same engine
answering one problem after the other; ``gsm8k_vs_transformers``: against ``transformers.generate`` with its
cache, one problem after the other (``NUM_ALONE`` of them). ``mmlu_vs_padded``: MMLU's test questions by the
letters' logits, against transformers with the same weights in batches of 16, padded on the left, as its
``forward`` is called without options; ``mmlu_vs_padded_last``: the same, told to compute the last logits
only. 12.6 M parameters,
float32, two threads.

Both sides get the same prompts in the chat format. The quick run takes a part of the rows (``NUM_QUICK``),
and of these only ``NUM_ALONE`` problems one by one; ``--full`` takes all 660 problems and 6,835 questions on
both sides, which is an hour. Rows are those of ``../shared/data``, or $PICOLLM_TEST_DATA; without them the
primer's.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import torch

from picollm.chat.format import ChatFormat
from picollm.eval.answers import ask
from picollm.infer.engine import Engine
from picollm.infer.params import SamplingParams
from picollm.tasks.registry import load_task
from picollm.tasks.task import Task
from picollm.tokenizer import Tokenizer
from scripts.benchmarks.generate import SHAPE, both_sides, by_transformers

NUM_QUICK = {"gsm8k": 128, "mmlu": 512}
NUM_ALONE = 6
NUM_SLOTS = 128
BATCH = 16
NEW_TOKENS = 256


def run(full: bool = False) -> dict[str, Any]:
    """Return the ratios and one row per side and task."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tasks = [_task(name, full) for name in ("gsm8k", "mmlu")]
        checkpoint, theirs = both_sides(_tokenizer(tasks))
        assert checkpoint.format is None
        checkpoint = dataclasses.replace(checkpoint, format=ChatFormat.named("picollm", checkpoint.tokenizer))
        problems, problem_rows = _problems(checkpoint, theirs, tasks[0], full)
        questions, question_rows = _questions(Engine(checkpoint), theirs, tasks[1])
        return {
            "ratios": {**problems, **questions},
            "rows": problem_rows + question_rows,
        }
    finally:
        torch.set_num_threads(threads)


def _task(name: str, full: bool) -> Task:
    root = Path(os.environ.get("PICOLLM_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    task = load_task(name, "test", data_root=root if root.is_dir() else None)
    if not full:
        # Spread over the whole set: MMLU lies there subject by subject.
        step = max(1, len(task) // NUM_QUICK[name])
        task.rows = task.rows.select(range(0, len(task), step)[: NUM_QUICK[name]])
    return task


def _tokenizer(tasks: list[Task]) -> Tokenizer:
    """Return a tokenizer of the model's vocabulary, made from the questions themselves."""
    texts = [task.prompt(index).messages[-1].text for task in tasks for index in range(len(task))]
    return Tokenizer.train(texts * 2, SHAPE.vocab_size, ChatFormat.required_tokens("picollm"))


def _problems(
    checkpoint: Any, theirs: Any, task: Task, full: bool
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return how many times as many tokens per second all problems together give as each alone."""
    params = SamplingParams(temperature=0, max_tokens=NEW_TOKENS)
    # The longest first, as an evaluation asks them.
    prompts = sorted(
        (task.prompt(index) for index in range(len(task))), key=lambda prompt: -len(prompt.messages[-1].text)
    )
    alone = prompts if full else prompts[:: max(1, len(prompts) // NUM_ALONE)][:NUM_ALONE]
    Engine(checkpoint).complete_many(prompts[:2], dataclasses.replace(params, max_tokens=8))  # warms up
    single = Engine(checkpoint, num_slots=1)
    start = time.perf_counter()
    one_by_one = [single.complete(prompt, params) for prompt in alone]
    middle = time.perf_counter()
    together = Engine(checkpoint, num_slots=NUM_SLOTS).complete_many(prompts, params)
    end = time.perf_counter()
    render = checkpoint.format.render_for_completion
    others = [by_transformers(theirs, [(render(prompt), NEW_TOKENS)])[0] for prompt in alone[:NUM_ALONE]]
    rows, rates = [], []
    for way, replies, seconds in (
        (f"{NUM_SLOTS} at a time", [reply.ids for reply in together], end - middle),
        ("one by one", [reply.ids for reply in one_by_one], middle - start),
        ("transformers, one by one", others, time.perf_counter() - end),
    ):
        num = sum(map(len, replies))
        rates.append(num / seconds)
        row = {"task": "gsm8k", "way": way, "problems": len(replies), "tokens_per_s": round(rates[-1])}
        rows.append({**row, "seconds": round(seconds, 1), "tokens": num})
    names = ("gsm8k_vs_one_by_one", "gsm8k_vs_transformers")
    return {name: rates[0] / rate for name, rate in zip(names, rates[1:], strict=True)}, rows


def _questions(engine: Engine, theirs: Any, task: Task) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return how many times as fast the packed way is as the padded ones, and whether they agree."""
    prompts = [engine.format.render_for_completion(task.prompt(index)) for index in range(len(task))]
    letters = [task.letters(index) or [] for index in range(len(task))]
    for last in (False, True):
        _padded(theirs, engine, prompts[:BATCH], letters[:BATCH], last)
    list(ask(engine, task, range(BATCH), "chat", 1))
    ways = {
        "packed": lambda: [given.text for _, given in ask(engine, task, range(len(task)), "chat", 1)],
        "padded": lambda: _padded(theirs, engine, prompts, letters, last=False),
        "padded_last": lambda: _padded(theirs, engine, prompts, letters, last=True),
    }
    seconds, chosen = {}, {}
    for way, answer in ways.items():
        start = time.perf_counter()
        chosen[way] = answer()
        seconds[way] = time.perf_counter() - start
    rows = [
        {
            "task": "mmlu",
            "way": way,
            "questions": len(prompts),
            "prompt_tokens_per_s": round(sum(map(len, prompts)) / taken),
            "seconds": round(taken, 1),
            "same_letters": sum(map(str.__eq__, chosen[way], chosen["packed"])),
        }
        for way, taken in seconds.items()
    ]
    return {f"mmlu_vs_{way}": seconds[way] / seconds["packed"] for way in list(ways)[1:]}, rows


@torch.inference_mode()
def _padded(
    theirs: Any, engine: Engine, prompts: list[list[int]], letters: list[list[str]], last: bool
) -> list[str]:
    chosen = []
    told = {"logits_to_keep": 1} if last else {}
    for first in range(0, len(prompts), BATCH):
        some = prompts[first : first + BATCH]
        width = max(map(len, some))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in some])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in some])
        logits = theirs(ids, attention_mask=mask, **told).logits[:, -1]
        for row, options in zip(logits, letters[first : first + BATCH], strict=True):
            candidates = [engine.tokenizer.encode(letter)[0] for letter in options]
            chosen.append(options[int(row[candidates].argmax())])
    return chosen
