"""Evaluation rows that occur in training data.

Three tests: a conversation says, with all its messages, what an evaluation row says; a text of at least
``MIN_WORDS`` words is a whole message; a sequence of ``GRAM_WORDS`` words occurs anywhere (Brown et al. 2020,
appendix C). What more than ``MAX_ROWS`` evaluation rows share is the wording of a task, not a question of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from picollm.chat.conversation import Conversation
from picollm.data.check.places import Places
from picollm.data.check.words import Hashes, hash_text, hash_words, ngrams_within
from picollm.data.rows import Rows
from picollm.errors import ConversationError

MIN_WORDS = 8
GRAM_WORDS = 13
MAX_ROWS = 10

WHOLE, TEXTS, GRAMS = range(3)
"""The three kinds of hashes of a row: of all its texts together, of each long one, of its n-grams."""


@dataclass(frozen=True)
class Overlap:
    """How many ``rows`` of an evaluation set the data hold: ``found`` in one way or another."""

    file: str
    rows: int
    found: int
    whole: int
    texts: int
    grams: int


class Match(NamedTuple):
    """Message ``message`` of a conversation holds words of evaluation row ``row``, from ``word`` on.

    Without a word the message as a whole is there, without a message the whole conversation.
    """

    row: int
    message: int | None
    word: int | None


class Matches(NamedTuple):
    """What conversations share with evaluation rows: first match by conversation, shared hashes by kind."""

    first: dict[int, Match]
    hashes: tuple[Hashes, ...]


class EvaluationTexts:
    """The texts of evaluation sets, perhaps none, to be looked for."""

    def __init__(self, sets: Sequence[Rows]) -> None:
        """Read every row of ``sets``. Raises DataError when one cannot be read."""
        self.places = Places.of(sets)
        hashed = [_hashes([hash_words(text) for text in row_texts(row)]) for row in chain.from_iterable(sets)]
        self._indices = [_Index.of([row[kind] for row in hashed]) for kind in (WHOLE, TEXTS, GRAMS)]

    def matches(self, conversations: Sequence[Sequence[Hashes]]) -> Matches:
        """Return what ``conversations``, each the hashed words of its messages, share with the sets."""
        first: dict[int, Match] = {}
        shared: tuple[list[Hashes], ...] = ([], [], [])
        for number, messages in enumerate(conversations if self.places.names else ()):
            for kind, hashes in enumerate(_hashes(messages)):
                rows = self._indices[kind].find(hashes)
                hits = np.flatnonzero(rows >= 0)
                if len(hits):
                    shared[kind].append(hashes[hits])
                    first.setdefault(number, Match(int(rows[hits[0]]), *_spot(messages, kind, int(hits[0]))))
        return Matches(first, tuple(np.unique(_joined(hashes)) for hashes in shared))

    def overlaps(self, matches: Sequence[Matches]) -> list[Overlap]:
        """Return for each evaluation set how many of its rows ``matches`` found."""
        by_kind = [
            index.rows_of(_joined([each.hashes[kind] for each in matches]))
            for kind, index in enumerate(self._indices)
        ]
        found, start = [], 0
        for file, end in zip(self.places.names, self.places.ends, strict=True):
            inside = [{int(row) for row in rows if start <= row < end} for rows in by_kind]
            found.append(Overlap(file, end - start, len(set().union(*inside)), *map(len, inside)))
            start = end
        return found


class _Index(NamedTuple):
    """Hashes in ascending order, each with an evaluation row it is from; one hash may be from several."""

    hashes: Hashes
    rows: npt.NDArray[np.int64]

    @classmethod
    def of(cls, hashes: Sequence[Hashes]) -> _Index:
        """Return the index of ``hashes[row]``, without those that more than ``MAX_ROWS`` rows have."""
        once = [np.unique(each) for each in hashes]
        values = _joined(once)
        rows = np.repeat(np.arange(len(once)), np.array([len(each) for each in once], np.int64))
        order = np.argsort(values, kind="stable")
        values, rows = values[order], rows[order]
        _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
        rare = counts[which] <= MAX_ROWS
        return cls(values[rare], rows[rare])

    def find(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        """Return for each of ``hashes`` the first row it is from, or -1."""
        if not len(self.hashes):
            return np.full(len(hashes), -1, np.int64)
        place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[place] == hashes, self.rows[place], -1)

    def rows_of(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        """Return every row that any of ``hashes`` is from."""
        return np.unique(self.rows[np.isin(self.hashes, hashes)])


def row_texts(row: dict[str, Any]) -> list[str]:
    """Return the texts of a row: its messages where it is a conversation, else every string in it."""
    try:
        return message_texts(Conversation.from_dict(row))
    except ConversationError:
        return list(_strings(row))


def message_texts(conversation: Conversation) -> list[str]:
    """Return all that is said in each message, calculator calls and answers included."""
    return [" ".join([part.text for part in message.parts]) for message in conversation.messages]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _hashes(texts: Sequence[Hashes]) -> tuple[Hashes, Hashes, Hashes]:
    """Return the hashes of one row, given as the hashed words of its texts, by kind."""
    everything = _joined(texts)
    whole = [hash_text(everything)] if len(everything) else []
    long = [hash_text(words) for words in texts if len(words) >= MIN_WORDS]
    return np.array(whole, np.uint64), np.array(long, np.uint64), ngrams_within(texts, GRAM_WORDS)[0]


def _spot(messages: Sequence[Hashes], kind: int, place: int) -> tuple[int | None, int | None]:
    """Return the message and the word in it where hash number ``place`` of a kind comes from."""
    if kind == WHOLE:
        return None, None
    if kind == TEXTS:
        return [index for index, words in enumerate(messages) if len(words) >= MIN_WORDS][place], None
    ends = np.cumsum([max(0, len(words) - GRAM_WORDS + 1) for words in messages])
    message = int(np.searchsorted(ends, place, side="right"))
    return message, place - int(ends[message - 1] if message else 0)


def _joined(hashes: Sequence[Hashes]) -> Hashes:
    return np.concatenate([np.empty(0, np.uint64), *hashes])
