"""Pretraining documents that practice copying: the skill below arithmetic, spelling and memory.

A reply that calls the calculator must repeat two numbers exactly, and "What is my name?" asks for a word said
before. Attention can learn to copy from any text, but a small model learns it much sooner from text that is
nothing else. Words, names and numbers are mostly invented, so nothing can be learned here by heart.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from picollm.data.primer.words import pseudo_word, words

_LISTS = (
    "{list}\n{list}",
    "Repeat this: {list}\n{list}",
    "Say it again: {list}. {list}.",
    "First line: {list}\nSecond line: {list}",
    "She wrote {list}, and he copied {list}.",
    '"{list}" is the same as "{list}".',
)
_PAIRS = (
    ("{key} has {value}.", "What does {key} have? {value}."),
    ("{key}: {value}", "{key}? {value}"),
    ("The number of {key} is {value}.", "Which number belongs to {key}? {value}."),
    ("{name} lives in {place}.", "Where does {name} live? {name} lives in {place}."),
    ("My friend {name} likes the {thing}.", "What does {name} like? {name} likes the {thing}."),
    ("The {thing} belongs to {name}.", "Whose is the {thing}? It belongs to {name}."),
    ("{name} keeps the {thing} in {place}.", "Where is the {thing}? It is in {place}."),
    ("My name is {name}. I come from {place}.", "Who comes from {place}? {name}."),
)
_NUMBERS = (
    "{a} and {b}: {a}, {b}",
    "The numbers are {a} and {b}. The first number is {a}, the second number is {b}.",
    "Take {a} and then {b}. You have {a} and {b}.",
    "From {a} to {b}. It starts at {a} and ends at {b}.",
    "{b} comes after {a}. So first {a}, then {b}.",
)


def documents(seed: int) -> Iterator[str]:
    """Yield drills without end; a pure function of ``seed``. Only words of the training split occur."""
    rng = Random(f"drills/{seed}")
    while True:
        kind = rng.random()
        if kind < 0.35:
            yield "\n".join(_list(rng) for _ in range(rng.randint(2, 4)))
        elif kind < 0.6:
            frames = rng.sample(_NUMBERS, 3)
            yield "\n".join(frame.format(a=_number(rng), b=_number(rng)) for frame in frames)
        elif kind < 0.85:
            yield _memory(rng)
        else:
            yield "\n".join(_joined(_word(rng)) for _ in range(rng.randint(3, 7)))


def _word(rng: Random) -> str:
    return rng.choice(words("train")) if rng.random() < 0.4 else pseudo_word(rng)


def _name(rng: Random) -> str:
    return pseudo_word(rng).capitalize()


def _number(rng: Random) -> int:
    return rng.randint(1, rng.choice((9, 99, 999)))


def _list(rng: Random) -> str:
    items = [str(_number(rng)) if rng.random() < 0.25 else _word(rng) for _ in range(rng.randint(2, 6))]
    return rng.choice(_LISTS).format(list=" ".join(items))


def _memory(rng: Random) -> str:
    """Return some statements of one kind about different things, and then questions for what they said."""
    tell, ask = rng.choice(_PAIRS)
    told = [
        {
            "key": _word(rng),
            "value": _number(rng),
            "name": _name(rng),
            "place": _name(rng),
            "thing": _word(rng),
        }
        for _ in range(rng.randint(2, 4))
    ]
    statements = [tell.format(**each) for each in told]
    rng.shuffle(told)
    return "\n".join([" ".join(statements), *(ask.format(**each) for each in told[:2])])


def _joined(word: str) -> str:
    """Return the letters of a word and then the word: spelling the other way round."""
    return f"{','.join(word)} is {word}"
