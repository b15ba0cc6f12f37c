"""Likelihood tasks against full logits: the same endings win, and too long texts lose examples first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from picollm.checkpoint import Checkpoint
from picollm.data.rows import rows_of
from picollm.errors import InputError
from picollm.eval.answers import ask
from picollm.eval.evaluate import evaluate
from picollm.infer.engine import Engine
from picollm.tasks.core import CoreTask, Setting

ROWS = [{"query": f"Is {i} even?", "choices": ["yes", "no it is", "so"], "gold": i % 3} for i in range(6)]


def task_of(rows: list[dict[str, object]], kind: str = "choice", num_examples: int = 1) -> CoreTask:
    return CoreTask("core/mine", rows_of(rows, "mine"), Setting("mine", kind, num_examples, " ", 0.25))  # type: ignore[arg-type]


def log_probabilities(checkpoint: Checkpoint, context: str, ending: str) -> list[float]:
    """Return the log-probability of each token of ``ending``, from one full pass."""
    assert checkpoint.format is not None
    ids = checkpoint.format.render_completion_prompt(context + ending)
    start = len(checkpoint.format.render_completion_prompt(context.rstrip()))
    with torch.no_grad():
        rows = checkpoint.model(torch.tensor(ids), torch.arange(len(ids))).log_softmax(-1)
    return [rows[place - 1, ids[place]].item() for place in range(start, len(ids))]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_the_most_likely_ending_by_its_mean_wins(checkpoint: Checkpoint) -> None:
    task = task_of(ROWS)
    found = dict(ask(Engine(checkpoint), task, range(6), "completion", 8))
    for index in range(6):
        means = [mean(log_probabilities(checkpoint, *option)) for option in task.options(index)]
        assert found[index].choice == means.index(max(means))
        assert found[index].text == ROWS[index]["choices"][found[index].choice or 0]  # type: ignore[index]
    score = evaluate(Engine(checkpoint), task, form="completion")
    assert score.num_right == sum(found[i].choice == i % 3 for i in range(6))
    assert (score.chance, score.num_shortened) == (0.25, 0)
    foreign = evaluate(Engine(replace(checkpoint, format=None)), task, form="completion")
    assert foreign.num == 6


def test_an_only_ending_must_be_what_greedy_decoding_writes(checkpoint: Checkpoint) -> None:
    assert checkpoint.format is not None
    ids = checkpoint.format.render_completion_prompt("one two")
    with torch.no_grad():
        best = checkpoint.model(torch.tensor(ids), torch.arange(len(ids)))[-1].argmax()
    written = checkpoint.tokenizer.decode([int(best)])
    rows = [{"context": "one two", "continuation": ending} for ending in (written, "seven eight")]
    task = CoreTask("core/mine", rows_of(rows, "mine"), Setting("mine", "text", 0, ""))
    found = dict(ask(Engine(checkpoint), task, range(2), "completion", 8))
    assert [found[i].choice for i in range(2)] == [0, None]


def test_examples_are_dropped_before_a_question_is(checkpoint: Checkpoint) -> None:
    rows = [dict(ROWS[0], query="long " * 40), dict(ROWS[1], query="long " * 60), *ROWS[2:4]]
    found = dict(ask(Engine(checkpoint), task_of(rows, num_examples=3), range(4), "completion", 8))
    assert found[0].num_dropped > 0 and not found[0].too_long
    longer = task_of([*ROWS[:3], dict(ROWS[3], query="long " * 400)], num_examples=0)
    score = evaluate(Engine(checkpoint), longer, form="completion")
    assert (score.num, score.num_too_long, score.num_shortened) == (4, 1, 0)
    with pytest.raises(InputError, match="is plain text"):
        evaluate(Engine(checkpoint), longer)
