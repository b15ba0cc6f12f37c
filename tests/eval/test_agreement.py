"""transformers, on the exported directory with the chat template, answers as the engine does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from picollm.checkpoint import Checkpoint
from picollm.errors import InputError
from picollm.eval.agreement import Transformers, agreement
from picollm.eval.answers import ask
from picollm.infer.engine import Engine
from picollm.model.llama import Model
from picollm.recipes.config import Recipe
from picollm.record import Record
from picollm.tasks.registry import load_task


@pytest.fixture
def saved(
    checkpoint: Checkpoint, make_model: Callable[[int], Model], tmp_path: Path
) -> Callable[[int], Checkpoint]:
    """Return what opens a model of random weights from a directory, as any program would."""

    def save(seed: int) -> Checkpoint:
        directory = tmp_path / str(seed)
        Checkpoint.save(directory, make_model(seed), checkpoint.tokenizer, checkpoint.format, Record("sft"))
        return Checkpoint.load(directory)

    return save


@pytest.mark.filterwarnings("ignore")
def test_letters_and_replies_are_the_same(saved: Callable[[int], Checkpoint]) -> None:
    opened, task = saved(1), load_task("mmlu", "test")
    other, engine = Transformers(opened), Engine(opened, num_slots=4)
    letters = agreement(engine, other, task, range(30), max_tokens=1)
    assert letters.num == letters.num_same >= 20 and letters.different == ()
    assert len({given.text for _, given in ask(engine, task, range(30), "chat", 1)}) > 1
    replies = agreement(engine, other, load_task("facts", "test"), range(5), max_tokens=24)
    assert replies.num == replies.num_same == 5


@pytest.mark.filterwarnings("ignore")
def test_another_model_is_found_out(saved: Callable[[int], Checkpoint]) -> None:
    opened, foreign = saved(1), saved(2)
    engine, other = Engine(opened), Transformers(foreign)
    for name in ("mmlu", "facts"):
        assert agreement(engine, other, load_task(name, "test"), range(6), max_tokens=4).different


@pytest.mark.filterwarnings("ignore")
def test_the_calculator_answers_on_both_sides(story: tuple[Path, Recipe]) -> None:
    checkpoint = Checkpoint.load(story[0] / "sft")
    task = load_task("gsm8k", "test")
    assert (
        agreement(Engine(checkpoint), Transformers(checkpoint), task, range(3), max_tokens=40).num_same == 3
    )


def test_without_a_format_there_is_nothing_to_compare(checkpoint: Checkpoint) -> None:
    with pytest.raises(InputError, match="no chat format"):
        Transformers(replace(checkpoint, format=None))
