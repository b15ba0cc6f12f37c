"""What a run of rows shows: problems, counts per source, and what duplicates are recognized by."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from picollm.chat.adapters import conversation_from_row
from picollm.chat.conversation import Conversation, Message, Part
from picollm.chat.format import ChatFormat, Rendered
from picollm.chat.format_specification import SPECIFICATIONS, Specification
from picollm.data.check.counts import Counts
from picollm.data.check.duplicates import Signatures, signatures
from picollm.data.check.overlap import GRAM_WORDS, EvaluationTexts, Matches, message_texts
from picollm.data.check.problem import Finding, Problem, diagnose
from picollm.data.check.words import Hashes, hash_words, split_words
from picollm.errors import ConversationError


class Chunk(NamedTuple):
    """Neighboring rows of a file, the first of them number ``start`` of everything that is checked.

    A row that could not be read is the reader's words about it. ``source`` names rows that name none.
    """

    start: int
    source: str
    rows: Sequence[Mapping[str, Any] | str]
    layout: str = "messages"


@dataclass
class Examined:
    """What a chunk showed. ``rows`` are those that became tokens; the arrays are parallel to it."""

    findings: list[Finding]
    sources: dict[str, Counts]
    rows: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    keys: Hashes
    signatures: Signatures
    matches: Matches


@dataclass
class _Seen:
    """The conversations of a chunk that became tokens."""

    rows: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    texts: list[list[str]] = field(default_factory=list)


class Examiner:
    """Examines rows in one chat format; can be sent to another process."""

    def __init__(self, fmt: ChatFormat, limit: int | None, evaluation: EvaluationTexts) -> None:
        self._fmt, self._limit, self._evaluation = fmt, limit, evaluation
        spelled = {token for spec in SPECIFICATIONS.values() for token in spec.tokens}
        spelled |= fmt.tokenizer.special_tokens.keys()
        self._control = re.compile("|".join(map(re.escape, sorted(spelled, key=len, reverse=True))))
        self._control_starts = {token[0] for token in spelled}

    def examine(self, chunk: Chunk) -> Examined:
        """Return what the rows of ``chunk`` show; no row stops it."""
        findings: list[Finding] = []
        sources: defaultdict[str, Counts] = defaultdict(Counts)
        seen = _Seen()
        for row, content in enumerate(chunk.rows, chunk.start):
            counts, problems = self._examine_row(row, content, chunk.layout, seen)
            named = content.get("source") if isinstance(content, Mapping) else None
            sources[named if isinstance(named, str) else chunk.source].add(counts)
            findings += [Finding(problem, row, text) for problem, text in problems]
        words = [[hash_words(text) for text in texts] for texts in seen.texts]
        matches = self._evaluation.matches(words)
        findings += self._shared_findings(matches, seen)
        return Examined(
            findings,
            dict(sources),
            np.array(seen.rows, np.int64),
            np.array(seen.lengths, np.int64),
            np.array(seen.keys, np.uint64),
            signatures([np.concatenate(each) for each in words]),
            matches,
        )

    def _examine_row(
        self, row: int, content: Mapping[str, Any] | str, layout: str, seen: _Seen
    ) -> tuple[Counts, list[tuple[Problem, str]]]:
        if isinstance(content, str):
            return Counts(rows=1), [(Problem.UNREADABLE, content)]
        try:
            conversation = conversation_from_row(content, layout)
        except ConversationError as error:
            return Counts(rows=1), diagnose(content, error)
        try:
            rendered = self._fmt.render_conversation(conversation)
        except ConversationError as error:
            return Counts(rows=1), [(Problem.NO_PLACE, str(error))]
        seen.rows.append(row)
        seen.lengths.append(len(rendered.ids))
        seen.keys.append(_key(conversation))
        seen.texts.append(message_texts(conversation))
        counts = Counts.of(conversation, rendered, self._fmt.end_id, self._limit)
        problems = [
            *self._content_problems(conversation),
            *self._supervision_problems(conversation, counts),
            *self._round_trip_problems(conversation, rendered),
        ]
        return counts, problems

    def _shared_findings(self, matches: Matches, seen: _Seen) -> Iterator[Finding]:
        for number, (row, message, word) in matches.first.items():
            if message is None:
                what = "all of it"
            elif word is None:
                what = f"message {message}"
            else:
                words = split_words(seen.texts[number][message])[word : word + GRAM_WORDS]
                what = f"message {message}, {b' '.join(words).decode('utf-8')!r}"
            where = self._evaluation.places.where(row)
            yield Finding(Problem.EVALUATION, seen.rows[number], f"{what} is in {where}")

    def _content_problems(self, conversation: Conversation) -> Iterator[tuple[Problem, str]]:
        for index, message in enumerate(conversation.messages):
            blank = all(part.text.isspace() for part in message.parts)
            if blank:
                yield Problem.BLANK, f"message {index} ({message.role}) is {message.text!r:.40}"
            for part in message.parts:
                if any(start in part.text for start in self._control_starts):
                    spelled = self._control.findall(part.text)
                    if spelled:
                        names = ", ".join(dict.fromkeys(spelled))
                        yield Problem.CONTROL, f"message {index} ({message.role}) spells {names}"

    def _supervision_problems(
        self, conversation: Conversation, counts: Counts
    ) -> Iterator[tuple[Problem, str]]:
        learned = sum(m.weight for m in conversation.messages if m.role == "assistant")
        if counts.supervised_ends < learned:
            yield (
                Problem.END,
                f"{learned} turns are learned, but {counts.supervised_ends} of their ends are supervised",
            )
        if not counts.supervised_tokens:
            reason = "every assistant turn has weight 0" if counts.assistant_turns else "no assistant turn"
            yield Problem.UNSUPERVISED, reason
        if counts.too_long:
            lost, all_of_it = counts.cut_supervised_tokens, counts.supervised_tokens
            yield (
                Problem.TOO_LONG,
                f"{counts.tokens} tokens; cut at {self._limit}, it loses {lost} of {all_of_it} supervised",
            )
            if lost == all_of_it and lost:
                yield Problem.UNSUPERVISED, f"nothing within the limit of {self._limit} tokens is supervised"

    def _round_trip_problems(
        self, conversation: Conversation, rendered: Rendered
    ) -> Iterator[tuple[Problem, str]]:
        try:
            parsed = self._fmt.parse(rendered.ids, rendered.loss_mask)
        except ConversationError as error:
            yield Problem.ROUND_TRIP, str(error)
            return
        spec = self._fmt.specification
        expected = _stripped(conversation, spec.strip)
        if parsed != expected and parsed != _merged(expected, spec):
            yield Problem.ROUND_TRIP, _difference(expected, parsed)


def _key(conversation: Conversation) -> int:
    """Return one 64-bit hash over roles and texts, so that equal conversations have equal keys."""
    pieces = [
        f"{message.role}\0{p.type}\0{p.text}" for message in conversation.messages for p in message.parts
    ]
    digest = blake2b("\0\0".join(pieces).encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _stripped(conversation: Conversation, roles: Sequence[str]) -> Conversation:
    """Return ``conversation`` as a format that strips the texts of ``roles`` is meant to show it."""
    if not roles:
        return conversation
    return Conversation(
        Message(m.role, [Part(p.type, p.text.strip()) for p in m.parts], m.weight) if m.role in roles else m
        for m in conversation.messages
    )


def _merged(conversation: Conversation, spec: Specification) -> Conversation:
    """Return ``conversation`` with its system message in the first user message, where ``spec`` puts it."""
    system, *messages = conversation.messages
    frame = spec.system
    if frame is None or not spec.merge_system or system.role != "system":
        return conversation
    first = frame.opens + system.text + frame.closes + frame.after + messages[0].text
    return Conversation([Message("user", first), *messages[1:]])


def _difference(expected: Conversation, parsed: Conversation) -> str:
    """Return in which message two conversations differ first."""
    for index, (before, after) in enumerate(zip(expected.messages, parsed.messages, strict=False)):
        if before != after:
            return (
                f"message {index} ({before.role}) {before.content!r:.40} comes back as {after.content!r:.40}"
            )
    return f"{len(expected.messages)} messages come back as {len(parsed.messages)}"
