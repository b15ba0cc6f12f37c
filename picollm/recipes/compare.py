"""Base versus SFT on the recipe's questions: what did fine-tuning change, and what not?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from picollm import paths
from picollm.chat.conversation import Conversation
from picollm.checkpoint import Checkpoint
from picollm.data.documents import open_corpus
from picollm.eval.compare import Limits, compare
from picollm.eval.comparison import Comparison, SourceOverlap, StageTime
from picollm.eval.prompts import Prompt, load_prompts
from picollm.eval.report import read_comparison, write_report
from picollm.progress import SILENT, Progress
from picollm.recipes.config import Recipe
from picollm.recipes.conversations import held_out
from picollm.recipes.stage import Stage, peak_rss_mib
from picollm.tasks.registry import load_task

_OVERLAP = ("rows", "found", "whole", "texts", "grams")
_TITLES = {"pretrain": "base training", "sft": "fine-tuning"}


def locate(name: str) -> Path | str:
    """Return where the checkpoint ``name`` is: the shipped base under ``pico-base``, else the name itself."""
    return paths.PICO_BASE if name == "pico-base" else name


def compare_checkpoints(
    recipe: Recipe,
    base_name: str,
    sft_name: str,
    out: Path,
    *,
    prompts_file: Path | None = None,
    data_root: Path | None = None,
    allow_format_mismatch: bool = False,
    progress: Progress = SILENT,
) -> Comparison:
    """Compare two checkpoints, write the report into ``out`` and return the comparison.

    Raises:
        CheckpointError: One of the two cannot be loaded.
        InputError: They do not belong together, or the recipe names an unknown task.
    """
    base, sft = (
        Checkpoint.load(locate(name), allow_format_mismatch=allow_format_mismatch)
        for name in (base_name, sft_name)
    )
    prompts = load_prompts(prompts_file) if prompts_file else load_prompts()
    stage = Stage(
        out,
        {
            "compare": recipe.compare,
            "base": base.weights_sha256,
            "sft": sft.weights_sha256,
            "prompts": [dataclasses.asdict(prompt) for prompt in prompts],
            "data_root": data_root,
        },
    )
    if stage.finished():
        progress.note(f"compare: {out} is up to date")
        return read_comparison(out)
    with stage.running():
        comparison = _measure(recipe, base, sft, prompts, data_root, progress)
        write_report(comparison, out)
    return comparison


def _measure(
    recipe: Recipe,
    base: Checkpoint,
    sft: Checkpoint,
    prompts: list[Prompt],
    data_root: Path | None,
    progress: Progress,
) -> Comparison:
    part = recipe.compare
    tasks = [load_task(name, "test", data_root=data_root, seed=recipe.seed) for name in part.tasks]
    corpus = open_corpus(
        recipe.pretrain.sources, data_root=data_root, seed=recipe.seed, num_validation=part.num_documents
    )
    comparison = compare(
        base,
        sft,
        tasks=tasks,
        prompts=prompts,
        conversations=_held_out(recipe, base, sft, data_root, progress),
        texts=corpus.validation,
        limits=Limits(part.limit, part.base_limit, part.limits, part.max_tokens),
        seed=recipe.seed,
        stages=(),
        progress=progress,
    )
    own = StageTime("comparison", comparison.seconds, peak_rss_mib())
    stages = (*_recorded(base), *_recorded(sft), own)
    return dataclasses.replace(comparison, stages=stages, overlaps=_overlaps(sft))


def _held_out(
    recipe: Recipe, base: Checkpoint, sft: Checkpoint, data_root: Path | None, progress: Progress
) -> dict[str, list[Conversation]]:
    if sft.format is None:
        return {}
    context = min(each.model.config.max_position_embeddings for each in (base, sft))
    return held_out(recipe, data_root, sft.format, context, progress)


def _overlaps(checkpoint: Checkpoint) -> tuple[SourceOverlap, ...]:
    """Return the test rows that the checkpoint's record says its training data hold."""
    return tuple(
        SourceOverlap(source["name"], each["file"], *(each[key] for key in _OVERLAP))
        for source in checkpoint.record.data
        for each in source.get("overlap", ())
    )


def _recorded(checkpoint: Checkpoint) -> list[StageTime]:
    """Return what the checkpoint's record says its stage took, marked where that was another run."""
    record = checkpoint.record
    if record.stage not in _TITLES or "seconds" not in record.measured:
        return []
    title = _TITLES[record.stage]
    if checkpoint.path == paths.PICO_BASE:
        title += " (shipped, once)"
    return [StageTime(title, record.measured["seconds"], record.measured.get("peak_rss_mib"))]
