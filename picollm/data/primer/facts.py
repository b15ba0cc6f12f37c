"""The facts of the primer, each with all its wordings, and the group that decides where it may appear.

==  ==========================  =================
A   in pretraining documents    asked in SFT
B   in pretraining documents    never asked in SFT
C   nowhere                     nowhere
==  ==========================  =================

What a chat model answers about B it learned as a base model; what it answers about C it guesses.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

GROUPS = ("A", "B", "C")
_FILE = Path(__file__).with_name("facts.toml")
# Spelled with a vowel and spoken with a consonant, or the other way round.
_SPOKEN = {"unkindness": "an", "eyrie": "an", "hour": "an", "unicorn": "a", "ewe": "a"}


@dataclass(frozen=True)
class Fact:
    """One thing that is true, in every wording that the primer has for it.

    Attributes:
        number: Place in the file; it staggers the wordings, so that one document shows several.
        relation: What kind of fact it is, such as ``capital``.
        title: The topic of the relation in words, such as "capital cities".
        subject: What is asked about: "France".
        answer: What is asked for: "Paris".
        group: ``A``, ``B`` or ``C``; see the head of this module.
        statements: Sentences that state the fact; the first one is ``reply``.
        questions: Wordings of documents and fine-tuning.
        held_out: Wordings of no training text: one for validation, then those of the test.
        reply: The full sentence that answers every question, with ``answer`` at its end.
    """

    number: int = field(repr=False)
    relation: str
    title: str = field(repr=False)
    subject: str
    answer: str
    group: str
    statements: tuple[str, ...] = field(repr=False)
    questions: tuple[str, ...] = field(repr=False)
    held_out: tuple[str, ...] = field(repr=False)
    reply: str = field(repr=False)

    @property
    def completion(self) -> str:
        """The beginning of ``reply`` that a base model completes with ``answer``.

        >>> next(fact for fact in facts() if fact.answer == "Paris").completion
        'The capital of France is'
        """
        return self.reply[: self.reply.rindex(self.answer)].rstrip()


@cache
def facts() -> tuple[Fact, ...]:
    """Return every fact of ``facts.toml``, in the order of the file."""
    tables = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    pairs = ((relation, pair) for relation, table in tables.items() for pair in table["facts"])
    return tuple(
        _fact(number, relation, tables[relation], *pair) for number, (relation, pair) in enumerate(pairs)
    )


@cache
def of_groups(groups: str) -> tuple[Fact, ...]:
    """Return the facts whose group is one of the letters of ``groups``, in the order of the file."""
    return tuple(fact for fact in facts() if fact.group in groups)


def group_of(relation: str, subject: str, answer: str | None = None) -> str:
    """Return the group that a hash gives to a fact: A 50 %, B 30 %, C 20 %, on every machine the same.

    Args:
        relation: Name of the relation.
        subject: What is asked about.
        answer: Given for a symmetric relation, whose pair must not depend on its direction.
    """
    subjects = [subject] if answer is None else sorted((subject, answer))
    digest = hashlib.sha256("/".join([relation, *subjects]).encode()).digest()
    tenth = int.from_bytes(digest[:8], "big") % 10
    return "A" if tenth < 5 else "B" if tenth < 8 else "C"


def with_article(noun: str) -> str:
    """Return ``noun`` with "a" or "an" in front.

    >>> with_article("owl"), with_article("horse")
    ('an owl', 'a horse')
    """
    article = _SPOKEN.get(noun) or ("an" if noun[0].lower() in "aeiou" else "a")
    return f"{article} {noun}"


def _fact(number: int, relation: str, table: dict[str, Any], subject: str, answer: str) -> Fact:
    words: dict[str, str] = {}
    for name, text in (("subject", subject), ("answer", answer)):
        for key, form in ((name, text), (f"a_{name}", with_article(text))):
            words[key] = form
            words[key[0].upper() + key[1:]] = form[0].upper() + form[1:]

    def fill(wordings: list[str]) -> tuple[str, ...]:
        return tuple(wording.format_map(words) for wording in wordings)

    (reply,) = fill([table["reply"]])
    return Fact(
        number=number,
        relation=relation,
        title=table["title"],
        subject=subject,
        answer=answer,
        group=group_of(relation, subject, answer if table.get("symmetric") else None),
        statements=(reply, *fill(table["statements"])),
        questions=fill(table["questions"]),
        held_out=fill(table["held_out"]),
        reply=reply,
    )
