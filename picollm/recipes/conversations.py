"""From the rows of a mixture to the examples of a run: rendered, cut by the named rule, and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from picollm.chat.conversation import Conversation, Message
from picollm.chat.format import ChatFormat, Rendered
from picollm.data.mixture import Source, plan
from picollm.errors import ContextError, InputError
from picollm.progress import Progress
from picollm.tasks.task import Task
from picollm.train.examples import Examples, Int64s


@dataclass
class Reading:
    """A rendered mixture: its examples, for each source which of them are its rows, and what was lost."""

    examples: Examples = field(default_factory=Examples)
    members: list[Int64s] = field(default_factory=list)
    provenance: list[dict[str, Any]] = field(default_factory=list)


def read_mixture(
    mixture: tuple[Source, ...],
    tasks: list[Task],
    fmt: ChatFormat,
    limit: int,
    too_long: str,
    progress: Progress,
) -> Reading:
    """Return every row of every source rendered once, with counts of what ``limit`` took, source by source.

    Raises:
        ContextError: A conversation is longer than ``limit`` tokens and ``too_long`` is ``raise``.
        InputError: Nothing of a source is left.
    """
    reading = Reading()
    with progress.bar("rendering conversations", sum(map(len, tasks)), "conversations") as bar:
        for source, task in zip(mixture, tasks, strict=True):
            counts = {"rows": len(task), "too_long": 0, "parts": 0, "without_targets": 0}
            counts |= {"tokens": 0, "supervised_tokens": 0}
            kept: list[int] = []
            for row, conversation in enumerate(task):
                conversation = sayable(conversation, fmt)
                rendered = fmt.render_conversation(conversation)
                pieces = [rendered]
                if len(rendered.ids) > limit:
                    pieces = _cut(fmt, conversation, limit, too_long, task.rows.where(row), rendered)
                    counts["too_long"] += 1
                    counts["parts"] += len(pieces)
                for piece in pieces:
                    if reading.examples.append(piece, source.task):
                        kept.append(len(reading.examples) - 1)
                        counts["tokens"] += len(piece.ids)
                        counts["supervised_tokens"] += sum(piece.loss_mask)
                    else:
                        counts["without_targets"] += 1
                bar.advance(1)
            if not kept:
                raise InputError(
                    f"mixture source {source.task!r} has no row that fits {limit} tokens and is supervised."
                )
            reading.members.append(np.asarray(kept, np.int64))
            place = {"source": task.rows.name, "sha256": task.rows.digest, "weight": source.weight}
            reading.provenance.append({"task": source.task, **place, **counts})
    _note_losses(reading, limit, too_long, progress)
    return reading


def _note_losses(reading: Reading, limit: int, too_long: str, progress: Progress) -> None:
    kept = " ({parts} parts kept)" if too_long == "split" else ""
    longer = [f"{p['task']} {p['too_long']}{kept.format(**p)}" for p in reading.provenance if p["too_long"]]
    if longer:
        progress.note(f"longer than {limit} tokens ({too_long}): {', '.join(longer)}")
    silent = [f"{p['task']} {p['without_targets']}" for p in reading.provenance if p["without_targets"]]
    if silent:
        progress.note(f"left out, because nothing in them is supervised: {', '.join(silent)}")


def _cut(
    fmt: ChatFormat, conversation: Conversation, limit: int, too_long: str, where: str, whole: Rendered
) -> list[Rendered]:
    """Return what the named rule keeps of a conversation that is longer than ``limit`` tokens."""
    if too_long == "raise":
        raise ContextError(
            f"{where} is {len(whole.ids)} tokens; at most {limit} are allowed. "
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


def members_of_epochs(reading: Reading, mixture: tuple[Source, ...], seed: int) -> Callable[[int], Int64s]:
    """Return which examples an epoch is made of, by the mixture's weights: a function of (seed, epoch)."""
    sizes, weights = [len(members) for members in reading.members], [source.weight for source in mixture]

    def members_of_epoch(epoch: int) -> Int64s:
        pairs = plan(sizes, weights, seed, epoch)
        chosen = np.empty(len(pairs), np.int64)
        for source, members in enumerate(reading.members):
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
