"""Does a chat model answer a later turn as well as a first one, when every turn asks for something else?

    .venv/bin/python -m scripts.turns runs/sft

Each conversation asks four test questions of four tasks in random order, greedily, and keeps the model's own
replies; a turn is right when its task says so and the reply ended by itself. The same questions come in
every run.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import tyro

from picollm.chat.conversation import Conversation, Message
from picollm.checkpoint import Checkpoint
from picollm.cli.console import print_table
from picollm.eval.score import wilson_interval
from picollm.infer.engine import Engine
from picollm.infer.params import SamplingParams
from picollm.tasks.registry import load_task

TASKS = ("facts", "identity", "gsm8k", "spelling", "spelling_bee")
NUM_TURNS = 4


def main(checkpoint: tyro.conf.Positional[Path], conversations: int = 150, seed: int = 7) -> None:
    """Ask, and print how many answers of each turn and of each task were right."""
    engine, rng = Engine(Checkpoint.load(checkpoint), num_slots=64), random.Random(seed)
    tasks = {name: load_task(name, "test") for name in TASKS}
    rows = {name: range(len(task)) for name, task in tasks.items()}
    # Only what fine-tuning asked for: the other groups are another experiment.
    rows["facts"] = [i for i in rows["facts"] if str(tasks["facts"].group(i)).startswith("A")]
    plans = [
        [(name, rng.choice(rows[name])) for name in rng.sample(TASKS, NUM_TURNS)]
        for _ in range(conversations)
    ]
    said: list[tuple[Message, ...]] = [() for _ in plans]
    right: dict[str, list[bool]] = defaultdict(list)
    for turn in range(NUM_TURNS):
        asked = [
            Conversation((*history, tasks[plan[turn][0]].prompt(plan[turn][1]).messages[-1]))
            for history, plan in zip(said, plans, strict=True)
        ]
        replies = engine.complete_many(asked, SamplingParams(temperature=0, max_tokens=96))
        said = [(*c.messages, reply.message) for c, reply in zip(asked, replies, strict=True)]
        for plan, reply in zip(plans, replies, strict=True):
            name, index = plan[turn]
            is_right = tasks[name].check(index, reply.message) and reply.finish_reason == "stop"
            right[f"turn {turn + 1}"].append(is_right)
            right[f"{name}, {'later turns' if turn else 'first turn'}"].append(is_right)
    table = []
    for label, found in sorted(right.items()):
        low, high = wilson_interval(sum(found), len(found))
        table.append((label, str(len(found)), f"{sum(found) / len(found):.0%} ({low:.0%}–{high:.0%})"))
    print_table("% right (95% interval)", ("what", "answers", "right"), table)


if __name__ == "__main__":
    tyro.cli(main)
