"""Rows of a mixture to examples: rendered, cut by the named rule, counted, compared with evaluation sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from picollm.chat.conversation import Conversation, Message
from picollm.chat.format import ChatFormat, Rendered
from picollm.data.check.overlap import EvaluationTexts, Matches, message_texts
from picollm.data.check.words import hash_words
from picollm.errors import ContextError
from picollm.tasks.task import Task
from picollm.train.examples import Examples
from picollm.train.stored import Block

ROWS_PER_PART = 256
COUNTS = (
    "rows",
    "too_long",
    "parts",
    "left_out",
    "without_targets",
    "examples",
    "tokens",
    "supervised_tokens",
)


class Part(NamedTuple):
    """Rows ``start`` to ``end`` of source number ``source``."""

    source: int
    start: int
    end: int


class RenderedPart(NamedTuple):
    """What became of a part."""

    block: Block
    counts: Counter[str]
    matches: Matches


def parts(source: int, num_rows: int) -> Iterator[Part]:
    """Yield the parts that all rows of a source are rendered in."""
    for start in range(0, num_rows, ROWS_PER_PART):
        yield Part(source, start, min(start + ROWS_PER_PART, num_rows))


@dataclass(frozen=True)
class Renderer:
    """What turns rows into examples; it can be sent to another process."""

    tasks: Sequence[Task]
    fmt: ChatFormat
    limit: int
    too_long: str
    evaluation: EvaluationTexts

    def render(self, part: Part) -> RenderedPart:
        """Return the examples of ``part``, with counts of what ``limit`` took.

        Raises:
            ContextError: A conversation is longer than ``limit`` tokens and ``too_long`` is ``raise``.
            DataError: A row does not have the schema of its data set.
        """
        task = self.tasks[part.source]
        examples, counts = Examples(), Counter({"rows": part.end - part.start})
        said = []
        for row in range(part.start, part.end):
            conversation = sayable(task[row], self.fmt)
            said.append([hash_words(text) for text in message_texts(conversation)])
            rendered = self.fmt.render_conversation(conversation)
            pieces = [rendered]
            if len(rendered.ids) > self.limit:
                pieces, left_out = self._cut(conversation, rendered, task.rows.where(row))
                counts.update(too_long=1, parts=len(pieces), left_out=left_out)
            for piece in pieces:
                if examples.append(piece, task.name, task.rows.place(row)):
                    counts.update(tokens=len(piece.ids), supervised_tokens=sum(piece.loss_mask))
        counts.update(examples=len(examples), without_targets=examples.num_without_targets)
        return RenderedPart(Block.of(examples), counts, self.evaluation.matches(said))

    def _cut(self, conversation: Conversation, whole: Rendered, where: str) -> tuple[list[Rendered], int]:
        """Return what the named rule keeps of a too long conversation, and how many exchanges it drops."""
        if self.too_long == "raise":
            raise ContextError(
                f"{where} is {len(whole.ids)} tokens; at most {self.limit} are allowed. "
                "Raise --max-tokens, or pass --too-long drop or split."
            )
        if self.too_long == "drop":
            return [], sum(message.role == "user" for message in conversation.messages)
        return split(self.fmt, conversation, self.limit)


def split(fmt: ChatFormat, conversation: Conversation, limit: int) -> tuple[list[Rendered], int]:
    """Return the conversation in parts of whole exchanges that fit; how many were left out, too long alone.

    Every part keeps the system message, so each still is a conversation that could have taken place.
    """
    messages = conversation.messages
    system = tuple(m for m in messages[:1] if m.role == "system")
    exchanges = [messages[i : i + 2] for i in range(len(system), len(messages), 2)]
    found: list[Rendered] = []
    taken: tuple[Message, ...] = ()
    best: Rendered | None = None
    left_out = 0
    for exchange in exchanges:
        longer = fmt.render_conversation(Conversation((*system, *taken, *exchange)))
        if len(longer.ids) <= limit:
            taken, best = (*taken, *exchange), longer
            continue
        found += [best] if best is not None else []
        alone = fmt.render_conversation(Conversation((*system, *exchange)))
        fits = len(alone.ids) <= limit
        taken, best = (tuple(exchange), alone) if fits else ((), None)
        left_out += not fits
    return [*found, best] if best is not None else found, left_out


def sayable(conversation: Conversation, fmt: ChatFormat) -> Conversation:
    """Return what ``fmt`` can say of it: without calculator calls where there is no place for any.

    The words around a call hold its result ("That is" ... "68 apples"), so they stay a reply.
    """
    if fmt.has_tools or all(len(message.parts) == 1 for message in conversation.messages):
        return conversation
    return Conversation(Message(m.role, m.text, m.weight) for m in conversation.messages)
