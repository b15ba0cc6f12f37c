"""Teach a base model to chat: mixture -> conversations -> rendered tokens and masks -> the training loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from picollm import paths
from picollm.adapter import CONFIG as ADAPTER_CONFIG
from picollm.adapter import save_adapter
from picollm.chat.conversation import Conversation
from picollm.chat.format import ChatFormat
from picollm.checkpoint import Checkpoint, Record, grow_embeddings
from picollm.errors import InputError
from picollm.eval.bits import assistant_losses
from picollm.files import check_replaceable
from picollm.model.llama import Model
from picollm.model.lora import add_lora
from picollm.model.lora_config import Lora
from picollm.progress import SILENT, Progress
from picollm.recipes.config import Recipe
from picollm.recipes.conversations import evaluation_tasks, held_out, open_source, read_mixture
from picollm.recipes.stage import Stage
from picollm.tasks.task import Task
from picollm.train.batches import Batches
from picollm.train.config import TrainConfig
from picollm.train.distributed import Ranks, joined
from picollm.train.loop import train
from picollm.train.plan import Plan, batches_per_step
from picollm.train.plots import draw_curves
from picollm.train.sharding import check_shards
from picollm.train.tracking import Trackers

USUAL_FOR_IMPORTS = 1e-4


def finetune(
    recipe: Recipe,
    out: Path,
    *,
    data_root: Path | None = None,
    progress: Progress = SILENT,
    track: str | None = None,
    shard: bool = False,
    allow_format_mismatch: bool = False,
) -> Record:
    """Fine-tune the recipe's base on its mixture, save the chat model in ``out`` and return its record.

    With ``recipe.sft.lora`` what is saved is a LoRA adapter; it loads like a checkpoint as long as its base
    stays where it is. Under torchrun every process calls this, and the first one writes. ``track`` names a
    service that gets the metrics too; ``shard`` spreads the model over all processes;
    ``allow_format_mismatch`` takes a base whose format is not the installed one, and the record says so.

    Raises:
        InputError: The mixture is empty or names something unknown.
        CheckpointError: The base cannot be loaded.
        ContextError: A conversation is too long and the recipe says ``raise``.
        DivergedError: The loss exploded; the last good training state stays in ``out.run``.
    """
    if not recipe.mixture:
        raise InputError(
            f"recipe {recipe.name!r} has no [[mixture]] tables; expected one source of conversations or more."
        )
    name = recipe.sft.base
    place = paths.PICO_BASE if name == "pico-base" else name
    with joined(recipe.sft.train.device) as ranks:
        base = ranks.alike(lambda: Checkpoint.load(place, allow_format_mismatch=allow_format_mismatch))
        own_progress = progress if ranks.first else SILENT
        return _finetune(recipe, base, out, data_root, own_progress, ranks, track, shard)


def _finetune(
    recipe: Recipe,
    base: Checkpoint,
    out: Path,
    data_root: Path | None,
    progress: Progress,
    ranks: Ranks,
    track: str | None,
    shard: bool,
) -> Record:
    if shard:
        check_shards(ranks)

    def opened() -> list[Task]:
        check_replaceable(out)
        return [open_source(source, source.split, recipe, data_root) for source in recipe.mixture]

    tasks = ranks.alike(opened)
    rows = {source.label: len(task) for source, task in zip(recipe.mixture, tasks, strict=True)}
    stage = Stage(out, _inputs(recipe, base, tasks), rows=rows, ranks=ranks)
    if stage.finished():
        progress.note(f"sft: {out} is up to date")
        return Checkpoint.load(out).record

    stage.check()
    trackers = ranks.alike(lambda: Trackers.of(stage.run_dir, track, dataclasses.asdict(recipe), ranks.first))
    ready = ranks.alike(
        lambda: _prepare(recipe, base, tasks, out.parent / "cache", data_root, progress, ranks.size)
    )
    with stage.running() as measured:
        result = train(
            ready.model,
            ready.batches,
            ready.config,
            run_dir=stage.run_dir,
            validate=_validation(ready.format, ready.unseen) if ready.unseen else None,
            progress=progress,
            trackers=trackers,
            shard=shard,
            beside=stage.digest,
        )
        record = Record(
            stage="sft",
            config=dataclasses.asdict(recipe),
            seed=recipe.seed,
            data=ready.provenance,
            parent={"name": recipe.sft.base, "sha256": base.weights_sha256},
            added_tokens=_added_tokens(base, ready.format),
            format=ready.format.to_record(),
            curve=result.curve,
            measured={**measured(), **result.measured},
            allowed_mismatch=base.record.allowed_mismatch,
        )
        ranks.first_does(lambda: _save(out, stage, ready.model, base, ready.format, record, recipe.sft.lora))
    return record


@dataclass(frozen=True)
class _Ready:
    """All that a run needs."""

    model: Model
    format: ChatFormat
    batches: Batches
    config: TrainConfig
    unseen: dict[str, list[Conversation]]
    provenance: list[dict[str, Any]]


def _prepare(
    recipe: Recipe,
    base: Checkpoint,
    tasks: Sequence[Task],
    cache: Path,
    data_root: Path | None,
    progress: Progress,
    num_processes: int,
) -> _Ready:
    """Return what is trained on what; all that can be wrong shows, and a finished run is still there.

    What takes no time is looked at before the minutes of rendering.
    """
    part = recipe.sft
    model, fmt = _taught(base, recipe)
    context = model.config.max_position_embeddings
    batch_tokens = _budget(recipe, base, fmt, context, progress)
    config = _horizon(recipe, progress)
    unseen = held_out(recipe, data_root, fmt, context, progress)
    if part.train.keep == "best" and not unseen:
        raise InputError("keep is 'best', but no source has held-out conversations; use keep last.")
    reading = read_mixture(
        recipe,
        tasks,
        fmt,
        min(part.max_tokens, context),
        cache,
        evaluations=evaluation_tasks(recipe, data_root),
        progress=progress,
    )
    batches = Batches(reading.examples, batch_tokens, recipe.seed, reading.order(recipe), _turns(recipe))
    Plan.of(config, batches, num_processes)
    return _Ready(model, fmt, batches, config, unseen, reading.provenance)


def _save(
    out: Path,
    stage: Stage,
    model: Model,
    base: Checkpoint,
    fmt: ChatFormat,
    record: Record,
    lora: Lora | None,
) -> None:
    draw_curves(stage.run_dir, record.curve)
    if lora is None:
        Checkpoint.save(out, model, fmt.tokenizer, fmt, record, dtype=torch.bfloat16)
    else:
        save_adapter(out, model, lora, base.path, fmt, record)


def _inputs(recipe: Recipe, base: Checkpoint, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return all that decides what the chat model will be, and so not why a source or a stage is there."""
    mixture, stages = (
        [{name: value for name, value in dataclasses.asdict(each).items() if name != "why"} for each in some]
        for some in (recipe.mixture, recipe.stage)
    )
    return {
        "sft": {**dataclasses.asdict(recipe.sft), "train": recipe.sft.train.learning()},
        "mixture": mixture,
        "stages": stages,
        "seed": recipe.seed,
        "base": base.weights_sha256,
        "data": [task.rows.digest for task in tasks],
    }


def _budget(recipe: Recipe, base: Checkpoint, fmt: ChatFormat, context: int, progress: Progress) -> int:
    """Return the tokens of a batch; say where base or format overrule the recipe, or do not suit it."""
    part = recipe.sft
    if base.record.stage == "import" and part.train.learning_rate > USUAL_FOR_IMPORTS:
        progress.note(
            f"learning rate {part.train.learning_rate:g} is high for a model that was trained elsewhere; "
            "usual is 1e-5 to 5e-5 (--learning-rate)"
        )
    if not fmt.has_tools:
        progress.note(f"format {fmt.name} has no calculator: calls are left out, the words around them stay")
    if part.max_tokens > context:
        progress.note(f"max_tokens {part.max_tokens} is more than the context of the base: {context} it is")
    longest = min(part.max_tokens, context)
    if part.batch_tokens < longest:
        progress.note(
            f"batch_tokens {part.batch_tokens} is less than a conversation may have: {longest} it is"
        )
    batch_tokens = max(part.batch_tokens, longest)
    batches_per_step(part.train, batch_tokens)
    return batch_tokens


def _added_tokens(base: Checkpoint, fmt: ChatFormat) -> dict[str, int]:
    """Return the control tokens that the base's tokenizer did not have."""
    tokens = fmt.tokenizer.special_tokens
    return {token: token_id for token, token_id in tokens.items() if token_id >= len(base.tokenizer)}


def _turns(recipe: Recipe) -> list[int]:
    """Return the epochs with which a stage of the curriculum begins, but for the first."""
    return list(accumulate(stage.epochs for stage in recipe.stage))[:-1]


def _horizon(recipe: Recipe, progress: Progress) -> TrainConfig:
    """Return how the run is trained: for as many epochs as its stages have, where it has stages."""
    part = recipe.sft.train
    if not recipe.stage or part.epochs is None:
        return part
    epochs = float(sum(stage.epochs for stage in recipe.stage))
    if part.epochs != epochs:
        progress.note(f"the stages of {recipe.name} have {epochs:g} epochs; {part.epochs:g} are not counted")
    return dataclasses.replace(part, epochs=epochs)


def _taught(base: Checkpoint, recipe: Recipe) -> tuple[Model, ChatFormat]:
    """Return the base model and the format it will speak, with the control tokens it lacked added.

    Raises:
        InputError: The base was taught another format already, or LoRA would have to add tokens.
    """
    name, lora = recipe.sft.format, recipe.sft.lora
    if base.record.stage == "sft" and base.format is not None and base.format.name != name:
        raise InputError(
            f"{recipe.sft.base} was taught the chat format {base.format.name!r}, the recipe says {name!r}. "
            f"Pass --format {base.format.name}, or start from a base that was taught none."
        )
    tokenizer = base.tokenizer.with_special_tokens(ChatFormat.required_tokens(name))
    fmt = ChatFormat.named(name, tokenizer)
    known, model = len(base.tokenizer), base.model
    if lora is not None and (base.path / ADAPTER_CONFIG).exists():
        raise InputError(
            f"{base.path} is a LoRA adapter itself, and PEFT would load the new one without it. Merge it "
            f"first: picollm export {base.path} --merge, and train on what that writes."
        )
    if len(tokenizer) > known and lora is not None:
        raise InputError(
            f"the base lacks {len(tokenizer) - known} control tokens of the format {name!r}, and LoRA trains "
            "no embeddings. Train all weights (without --lora-rank), or take a format whose tokens it has."
        )
    if len(tokenizer) > known:
        model = grow_embeddings(model, len(tokenizer), range(known, len(tokenizer)), known)
    if lora is not None:
        add_lora(model, lora, recipe.seed)
    return model, fmt


def _validation(
    fmt: ChatFormat, unseen: Mapping[str, list[Conversation]]
) -> Callable[[Model], dict[str, float]]:
    """Return a measure of a model: loss per supervised token and bits per byte, for every source."""

    def measure(model: Model) -> dict[str, float]:
        losses = assistant_losses(model, fmt, unseen)
        return {
            **{loss.source: loss.value for loss in losses},
            **{f"{loss.source}/bits_per_byte": loss.bits_per_byte for loss in losses},
        }

    return measure
