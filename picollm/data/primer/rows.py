"""The rows of the primer: offline twins of the data sets that fine-tuning and evaluation use.

A twin has the schema of the published set, so the same task reads both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from picollm.data.primer import choice, concepts, problems, smalltalk, words
from picollm.data.primer.facts import Fact, facts, of_groups
from picollm.data.primer.wordings import casual, check_split, row
from picollm.errors import InputError

Row = dict[str, Any]


def rows(name: str, split: str, seed: int = 0, limit: int | None = None) -> list[Row]:
    """Return the rows of one twin, in an order that is a function of ``seed``.

    Args:
        name: ``smoltalk`` (``{"messages"}``), ``mmlu`` (``{"question", "subject", "choices", "answer"}``),
            ``gsm8k`` (``{"question", "answer"}``), ``words`` (``{"word"}``) or ``facts``.
        split: ``train``, ``validation`` or ``test``. What a test row asks is in no training row.
        seed: Decides order and sampling.
        limit: At most so many rows; None for all.

    Raises:
        InputError: for an unknown name or split.
    """
    if name not in _TWINS:
        raise InputError(f"the primer has no rows called {name!r}; expected one of {', '.join(_TWINS)}.")
    check_split(split)
    return _TWINS[name](split, seed)[:limit]


def fact_rows(split: str, seed: int = 0) -> list[Row]:
    """Return one row for each question about a fact.

    ``train`` asks A only, in the training wordings; ``validation`` asks A and B, ``test`` asks A, B and C, in
    wordings of their own.
    """
    if split == "train":
        asked = [(fact, question) for fact in of_groups("A") for question in fact.questions]
    elif split == "validation":
        asked = [(fact, fact.held_out[0]) for fact in of_groups("AB")]
    else:
        asked = [(fact, question) for fact in facts() for question in fact.held_out[1:]]
    Random(f"facts/{split}/{seed}").shuffle(asked)
    return [_fact_row(fact, question) for fact, question in asked]


def _fact_row(fact: Fact, question: str) -> Row:
    return {
        "relation": fact.relation,
        "subject": fact.subject,
        "answer": fact.answer,
        "group": fact.group,
        "question": question,
        "reply": fact.reply,
        "completion": fact.completion,
    }


def _smoltalk(split: str, seed: int) -> list[Row]:
    """Return small talk, explanations of concepts, and questions about facts A in one or more turns."""
    made: list[Row] = [*smalltalk.rows(split, seed), *concepts.rows(split, seed), *_fact_talks(split, seed)]
    Random(f"smoltalk/{split}/{seed}").shuffle(made)
    return made


def _fact_talks(split: str, seed: int) -> list[Row]:
    """Return every question about a fact A alone, and again in talks of two and three, typed casually."""
    asked = [each for each in fact_rows(split, seed) if each["group"] == "A"]
    alone = [row(each["question"], each["reply"]) for each in asked]
    rng = Random(f"fact talks/{split}/{seed}")
    rng.shuffle(asked)
    together: list[Row] = []
    while asked:
        taken = [asked.pop() for _ in range(min(rng.choice((2, 3)), len(asked)))]
        turns = [(casual(each["question"], rng), each["reply"]) for each in taken]
        together.append(row(*itertools.chain.from_iterable(turns)))
    return alone + together


_TWINS: dict[str, Callable[[str, int], list[Row]]] = {
    "smoltalk": _smoltalk,
    "mmlu": choice.rows,
    "gsm8k": problems.rows,
    "words": words.rows,
    "facts": fact_rows,
}
