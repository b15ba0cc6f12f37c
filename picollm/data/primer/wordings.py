"""How the primer words a request: which wordings belong to which split, and small everyday variations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

from picollm.errors import InputError

SPLITS = ("train", "validation", "test")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

Row = dict[str, list[dict[str, str]]]


def check_split(split: str) -> None:
    """Return nothing for a known split; raise InputError for any other name."""
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; the primer has {', '.join(SPLITS)}.")


def of_split(wordings: Sequence[str], split: str) -> list[str]:
    """Return the wordings of ``split``: last for test, the one before for validation, the rest train.

    A position in a readable file says which sentence is held out; nothing else has to be looked up.

    Raises:
        InputError: for a split nobody knows.
    """
    check_split(split)
    assert len(wordings) >= 3, f"a list of wordings needs three entries, one for each split: {wordings}"
    return list({"train": wordings[:-2], "validation": wordings[-2:-1], "test": wordings[-1:]}[split])


def fill(template: str, slots: Mapping[str, str]) -> str:
    """Return ``template`` with its ``{slots}`` filled and its first letter large."""
    text = re.sub(r"\{(\w+)\}", lambda match: slots[match[1]], template)
    return text[:1].upper() + text[1:]


def alternatives(text: str) -> list[list[str]]:
    """Return the pieces of ``text``, each with its alternatives.

    >>> alternatives("Who (made|built) you?")
    [['Who '], ['made', 'built'], [' you?']]
    """
    return [piece.split("|") for piece in re.split(r"\(([^()]*\|[^()]*)\)", text)]


def casual(text: str, rng: Random, share: float = 0.3) -> str:
    """Return ``text``, in a ``share`` of cases as people type it: without capital, full stop, or both."""
    if rng.random() >= share:
        return text
    kind = rng.randrange(4)
    if kind == 0 and text[-1] in ".?!":
        return text[:-1]
    if kind == 1 and not text.startswith("I "):
        return text[0].lower() + text[1:]
    if kind == 2 and text[-1] in ".?!" and not text.startswith("I "):
        return text[0].lower() + text[1:-1]
    return text


def normalized(text: str) -> str:
    """Return the words of ``text`` in small letters: two requests that differ only in looks are the same."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def row(*turns: str, system: str | None = None) -> Row:
    """Return one conversation in the canonical schema; ``turns`` alternate, the user speaks first."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages += [
        {"role": "assistant" if index % 2 else "user", "content": turn} for index, turn in enumerate(turns)
    ]
    return {"messages": messages}


def plural(count: int, noun: str) -> str:
    """Return ``noun`` with an s unless ``count`` is one."""
    return noun if count == 1 else noun + "s"
