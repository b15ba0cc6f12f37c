"""Teach a base model to chat: mixture -> conversations -> rendered tokens and masks -> the training loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from picollm import paths
from picollm.chat.conversation import Conversation, Message
from picollm.chat.format import ChatFormat, Rendered
from picollm.checkpoint import Checkpoint, Record, grow_embeddings
from picollm.data.mixture import Source, plan
from picollm.errors import ContextError, InputError
from picollm.eval.bits import assistant_losses
from picollm.progress import SILENT, Progress
from picollm.recipes.config import Recipe
from picollm.recipes.stage import Stage
from picollm.tasks.registry import load_task
from picollm.tasks.task import Task
from picollm.train.batches import Batches
from picollm.train.examples import Examples, Int64s
from picollm.train.loop import train

_RENDER_CHUNK = 1024


def finetune(
    recipe: Recipe, out: Path, *, data_root: Path | None = None, progress: Progress = SILENT
) -> Record:
    """Fine-tune the recipe's base on its mixture, save the chat model in ``out`` and return its record.

    Raises:
        InputError: The mixture is empty or names something unknown.
        CheckpointError: The base cannot be loaded.
        ContextError: A conversation is too long and the recipe says ``raise``.
        DivergedError: The loss exploded; the last good training state stays in ``out.run``.
    """
    part = recipe.sft
    if not recipe.mixture:
        raise InputError(
            f"recipe {recipe.name!r} has no [[mixture]] tables; expected one source of conversations or more."
        )
    base = Checkpoint.load(paths.PICO_BASE if part.base == "pico-base" else part.base)
    tasks = [_open(source, "train", recipe, data_root) for source in recipe.mixture]
    inputs = {
        "sft": part,
        "mixture": recipe.mixture,
        "seed": recipe.seed,
        "base": base.weights_sha256,
        "data": [task.rows.digest for task in tasks],
    }
    stage = Stage(out, inputs)
    if stage.finished():
        progress.note(f"sft: {out} is up to date")
        return Checkpoint.load(out).record

    with stage.running() as measured:
        model, fmt = _taught(base, part.format)
        if not fmt.has_tools:
            progress.note(
                f"format {fmt.name} has no calculator: calls are left out, the words around them stay"
            )
        limit = min(part.max_tokens, model.config.max_position_embeddings)
        read = _read(recipe.mixture, tasks, fmt, limit, part.too_long, progress)
        unseen = held_out(recipe, data_root, fmt)
        batches = Batches(
            read.examples,
            max(part.batch_tokens, limit),
            recipe.seed,
            _members(read, recipe.mixture, recipe.seed),
        )
        result = train(
            model,
            batches,
            part.train,
            run_dir=stage.run_dir,
            validate=lambda trained: {
                loss.source: loss.value for loss in assistant_losses(trained, fmt, unseen)
            },
            progress=progress,
        )
    record = Record(
        stage="sft",
        config=dataclasses.asdict(recipe),
        seed=recipe.seed,
        data=read.provenance,
        parent={"name": part.base, "sha256": base.weights_sha256},
        added_tokens={
            token: token_id
            for token, token_id in fmt.tokenizer.special_tokens.items()
            if token_id >= len(base.tokenizer)
        },
        format=fmt.to_record(),
        curve=result.curve,
        measured={**measured, "tokens_per_s": result.tokens / max(result.seconds, 1e-9)},
    )
    Checkpoint.save(out, model, fmt.tokenizer, fmt, record, dtype=torch.bfloat16)
    return record


@dataclass
class _Read:
    """The rendered mixture: its examples, and for each source which of them are its rows."""

    examples: Examples = field(default_factory=Examples)
    members: list[Int64s] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)


def _open(source: Source, split: str, recipe: Recipe, data_root: Path | None) -> Task:
    limit = source.limit if split == source.split else recipe.sft.num_validation_rows
    return load_task(
        source.task, split, data_root=data_root, location=source.location, limit=limit, seed=recipe.seed
    )


def _taught(base: Checkpoint, name: str) -> tuple[Any, ChatFormat]:
    """Return the base model and the format it will speak, with the control tokens it lacked added."""
    tokenizer = base.tokenizer.with_special_tokens(ChatFormat.required_tokens(name))
    fmt = ChatFormat.named(name, tokenizer)
    known = len(base.tokenizer)
    model = base.model
    if len(tokenizer) > known:
        model = grow_embeddings(model, len(tokenizer), range(known, len(tokenizer)), known)
    return model, fmt


def _read(
    mixture: tuple[Source, ...],
    tasks: list[Task],
    fmt: ChatFormat,
    limit: int,
    too_long: str,
    progress: Progress,
) -> _Read:
    """Render every row of every source once; count what the limit took, source by source."""
    read = _Read()
    with progress.bar("rendering conversations", sum(map(len, tasks)), "conversations") as bar:
        for source, task in zip(mixture, tasks, strict=True):
            counts = {"rows": 0, "too_long": 0, "without_targets": 0, "tokens": 0, "supervised_tokens": 0}
            kept: list[int] = []
            for start in range(0, len(task), _RENDER_CHUNK):
                rows = range(start, min(start + _RENDER_CHUNK, len(task)))
                chunk = [sayable(task[index], fmt) for index in rows]
                for row, conversation in enumerate(chunk, start):
                    pieces = _fit(fmt, conversation, limit, too_long, task.rows.where(row))
                    counts["rows"] += 1
                    counts["too_long"] += len(pieces) != 1
                    for piece in pieces:
                        if read.examples.append(piece, source.task):
                            kept.append(len(read.examples) - 1)
                            counts["tokens"] += len(piece.ids)
                            counts["supervised_tokens"] += sum(piece.loss_mask)
                        else:
                            counts["without_targets"] += 1
                bar.advance(len(chunk))
            if not kept:
                raise InputError(
                    f"mixture source {source.task!r} has no row that fits {limit} tokens and is supervised."
                )
            read.members.append(np.asarray(kept, np.int64))
            place = {"source": task.rows.name, "sha256": task.rows.digest, "weight": source.weight}
            read.provenance.append({"task": source.task, **place, **counts})
    lost = [f"{one['task']} {one['too_long']}" for one in read.provenance if one["too_long"]]
    if lost:
        progress.note(f"longer than {limit} tokens ({too_long}): {', '.join(lost)}")
    return read


def _fit(
    fmt: ChatFormat, conversation: Conversation, limit: int, too_long: str, where: str
) -> list[Rendered]:
    """Return the conversation rendered; one that is longer than ``limit`` tokens goes by the named rule."""
    rendered = fmt.render_conversation(conversation)
    if len(rendered.ids) <= limit:
        return [rendered]
    if too_long == "raise":
        raise ContextError(
            f"{where} is {len(rendered.ids)} tokens; at most {limit} are allowed. "
            "Raise --max-tokens, or pass --too-long drop or split."
        )
    return [] if too_long == "drop" else _split(fmt, conversation, limit)


def _split(fmt: ChatFormat, conversation: Conversation, limit: int) -> list[Rendered]:
    """Return the conversation in parts of whole exchanges that fit; one too long by itself is left out.

    Every part keeps the system message, so each still is a conversation that could have taken place.
    """
    messages = conversation.messages
    system = tuple(m for m in messages[:1] if m.role == "system")
    exchanges = [messages[i : i + 2] for i in range(len(system), len(messages), 2)]
    parts: list[Rendered] = []
    taken: tuple[Message, ...] = ()
    best: Rendered | None = None
    for exchange in exchanges:
        longer = fmt.render_conversation(Conversation((*system, *taken, *exchange)))
        if len(longer.ids) <= limit:
            taken, best = (*taken, *exchange), longer
            continue
        parts += [best] if best is not None else []
        alone = fmt.render_conversation(Conversation((*system, *exchange)))
        taken, best = (tuple(exchange), alone) if len(alone.ids) <= limit else ((), None)
    return [*parts, best] if best is not None else parts


def _members(read: _Read, mixture: tuple[Source, ...], seed: int) -> Callable[[int], Int64s]:
    """Return which examples an epoch is made of, by the mixture's weights: a function of (seed, epoch)."""
    sizes, weights = [len(members) for members in read.members], [source.weight for source in mixture]

    def members_of_epoch(epoch: int) -> Int64s:
        pairs = plan(sizes, weights, seed, epoch)
        chosen = np.empty(len(pairs), np.int64)
        for source, members in enumerate(read.members):
            own = pairs[:, 0] == source
            chosen[own] = members[pairs[own, 1]]
        return chosen

    return members_of_epoch


def sayable(conversation: Conversation, fmt: ChatFormat) -> Conversation:
    """Return what ``fmt`` can say of it: without calculator calls where there is no place for any.

    The words around a call hold its result ("That is" ... "68 apples"), so they stay a reply.
    """
    if fmt.has_tools or all(len(message.parts) == 1 for message in conversation.messages):
        return conversation
    return Conversation(Message(m.role, m.text, m.weight) for m in conversation.messages)


def held_out(recipe: Recipe, data_root: Path | None, fmt: ChatFormat) -> dict[str, list[Conversation]]:
    """Return the validation rows of each source; a source that occurs twice is measured once."""
    named = {source.task: _open(source, "validation", recipe, data_root) for source in recipe.mixture}
    return {name: [sayable(conversation, fmt) for conversation in task] for name, task in named.items()}
