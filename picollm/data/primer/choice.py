"""Multiple choice: questions with four answers in MMLU's schema, and as they stand in a document.

Wrong answers come from the same relation and never from a fact of group C.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from picollm.data.primer.facts import Fact, of_groups
from picollm.data.primer.wordings import check_split

LETTERS = "ABCD"
NUM_CHOICES = len(LETTERS)
_ROWS_PER_FACT = {"train": 4, "validation": 1, "test": 1}


def rows(split: str, seed: int = 0) -> list[dict[str, Any]]:
    """Return ``{"question", "subject", "choices", "answer"}`` rows about facts A, ``answer`` being an index.

    Validation and test ask in wordings that no training row has.

    Raises:
        InputError: for an unknown split.
    """
    check_split(split)
    rng = Random(f"choice/{split}/{seed}")
    made: list[dict[str, Any]] = []
    for fact in of_groups("A"):
        for question in _questions(fact, split, rng):
            choices, answer = offer(fact, rng)
            made.append(
                {
                    "question": question,
                    "subject": fact.title.replace(" ", "_"),
                    "choices": choices,
                    "answer": answer,
                }
            )
    rng.shuffle(made)
    return made


def offer(fact: Fact, rng: Random) -> tuple[list[str], int]:
    """Return four answers in random order, and the index of the right one."""
    others = _answers(fact.relation)
    choices = [fact.answer]
    while len(choices) < NUM_CHOICES:
        other = others[int(rng.random() * len(others))]
        if other not in choices:
            choices.append(other)
    rng.shuffle(choices)
    return choices, choices.index(fact.answer)


def document(fact: Fact, rng: Random) -> str:
    """Return one question with four choices and its answer, as a document prints it.

    Most documents put the letter behind the choice, as tasks with choices do everywhere in this project; the
    others look like a schoolbook.
    """
    choices, answer = offer(fact, rng)
    question, letter = rng.choice(fact.questions), LETTERS[answer]
    pairs = list(zip(choices, LETTERS, strict=True))
    if rng.random() < 0.6:
        return "\n".join([question, *(f"- {text}=>{mark}" for text, mark in pairs), f"Answer=>{letter}"])
    listed = [f"{mark}. {text}" for text, mark in pairs]
    return "\n".join([f"Question: {question}", *listed, f"Answer: {letter}. {fact.reply}"])


def _questions(fact: Fact, split: str, rng: Random) -> list[str]:
    if split == "train":
        return rng.sample(fact.questions, _ROWS_PER_FACT[split])
    wordings = fact.held_out[:1] if split == "validation" else fact.held_out[1:]
    return rng.sample(wordings, _ROWS_PER_FACT[split])


@cache
def _answers(relation: str) -> tuple[str, ...]:
    return tuple(fact.answer for fact in of_groups("AB") if fact.relation == relation)
