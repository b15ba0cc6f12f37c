"""The whole story in miniature: from a tokenizer to one reply, by the same recipes as the speedrun."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from picollm import Checkpoint, Conversation, Engine, SamplingParams
from picollm.checkpoint import verify
from picollm.eval.report import read_comparison
from picollm.recipes.compare import compare_checkpoints
from picollm.recipes.config import Recipe
from picollm.recipes.pretrain import pretrain
from picollm.recipes.sft import finetune
from picollm.recipes.tokenizer import train_tokenizer


def test_it_ends_with_a_model_that_replies(story: tuple[Path, Recipe]) -> None:
    runs, _ = story
    checkpoint = Checkpoint.load(runs / "sft")
    reply = Engine(checkpoint).complete(
        Conversation.from_dict({"messages": [{"role": "user", "content": "Hi"}]}),
        SamplingParams(max_tokens=5, temperature=0.0),
    )
    assert reply.finish_reason in ("stop", "length") and isinstance(reply.text, str)


def test_records_tell_where_everything_came_from(story: tuple[Path, Recipe]) -> None:
    runs, recipe = story
    base, sft = verify(runs / "base"), verify(runs / "sft")
    assert base.stage == "pretrain" and sft.stage == "sft"
    assert sft.parent == {"name": str(runs / "base"), "sha256": Checkpoint.load(runs / "base").weights_sha256}
    assert base.format == sft.format and sft.format is not None
    assert [source["task"] for source in sft.data] == [source.task for source in recipe.mixture]
    assert all(source["supervised_tokens"] > 0 and source["sha256"] for source in sft.data)
    assert base.curve[-1]["loss"] < base.curve[0]["loss"]


def test_the_report_compares_the_two(story: tuple[Path, Recipe]) -> None:
    runs, recipe = story
    comparison = read_comparison(runs / "report")
    assert [task.task for task in comparison.tasks] == list(recipe.compare.tasks)
    assert comparison.same_architecture and comparison.movement
    assert {stage.name for stage in comparison.stages} == {"base training", "fine-tuning", "comparison"}
    assert "<svg" in (runs / "report" / "report.html").read_text()


def test_running_again_changes_nothing(story: tuple[Path, Recipe]) -> None:
    runs, recipe = story
    files = [*(runs / "sft").iterdir(), *(runs / "base").iterdir(), runs / "report" / "report.html"]
    before = {path: path.stat().st_mtime_ns for path in files}
    train_tokenizer(recipe, runs / "tokenizer")
    pretrain(recipe, runs / "tokenizer", runs / "base")
    finetune(recipe, runs / "sft")
    compare_checkpoints(recipe, str(runs / "base"), str(runs / "sft"), runs / "report")
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_the_same_recipe_gives_the_same_weights(story: tuple[Path, Recipe], tmp_path: Path) -> None:
    runs, recipe = story
    finetune(recipe, tmp_path / "again")
    first, second = (
        Checkpoint.load(place).model.state_dict() for place in (runs / "sft", tmp_path / "again")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_format_without_calculator_keeps_the_words_around_its_calls(
    story: tuple[Path, Recipe], tmp_path: Path
) -> None:
    _, recipe = story
    plain = dataclasses.replace(recipe, sft=dataclasses.replace(recipe.sft, format="chatml"))
    record = finetune(plain, tmp_path / "chatml")
    checkpoint = Checkpoint.load(tmp_path / "chatml")
    assert checkpoint.format is not None and checkpoint.format.name == "chatml"
    assert all(source["supervised_tokens"] > 0 for source in record.data)
    compare_checkpoints(plain, recipe.sft.base, str(tmp_path / "chatml"), tmp_path / "report")
