"""Small instructions with an answer that code can compute: copy, count, choose, list, replace.

They teach a model to do exactly what was asked and nothing more. Words and wordings are in
``instructions.toml``; a test row has a wording, and where it copies a word also a word, of its own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from picollm.data.primer.wordings import NUMBERS, Row, casual, fill, of_split, row
from picollm.data.primer.words import pseudo_word, split_of
from picollm.data.primer.words import words as dictionary

FILE = Path(__file__).with_name("instructions.toml")
LETTERS = "ABCD"
_HEADINGS = ("", "Exercises\n\n", "A page of the workbook\n\n", "Practice\n\n")
_FRAMES = ("{asked}\n{answer}", "Task: {asked}\nAnswer: {answer}", "Exercise: {asked}\nSolution: {answer}")
_SHAPES = (
    "The {being_adjective} {being} {act}.",
    "The {being} {act} in the {place}.",
    "The {being_adjective} {being} {act} in the {place}.",
    "My {thing} is {thing_adjective}.",
    "I can see a {thing_adjective} {thing} in the {place}.",
    "We {bare} in the {place}.",
)


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def rows(split: str, rng: Random) -> list[Row]:
    """Return instructions of every kind with their answers; validation and test hold a tenth of them."""
    num = {make: count if split == "train" else count // 10 for make, count in _COUNTS.items()}
    return [make(split, rng) for make, count in num.items() for _ in range(count)]


def paragraphs(rng: Random) -> Iterator[str]:
    """Yield pages of a workbook without end: three to six exercises of one kind, each with its answer.

    They use the wordings and words of the training split only. Doing what is asked is a skill that a base
    model can read about; fine-tuning then has to teach only when to use it.
    """
    makers = [make for make, count in _COUNTS.items() for _ in range(count)]
    while True:
        make = rng.choice(makers)
        frame = rng.choice(_FRAMES)
        pairs = [make("train", rng)["messages"] for _ in range(rng.randint(3, 6))]
        pages = [frame.format(asked=asked["content"], answer=answer["content"]) for asked, answer in pairs]
        yield rng.choice(_HEADINGS) + "\n\n".join(pages)


# --------------------------------------------------------------------------------------------------- words


@cache
def _pool(name: str, split: str) -> list[str]:
    return [word for word in _file()["words"][name] if split_of(word) == split]


def any_of(name: str, rng: Random, split: str | None = None) -> str:
    """Return a word of the list ``name``; with ``split`` one whose hash puts it there."""
    return str(rng.choice(_pool(name, split) if split else _file()["words"][name]))


def first_name(split: str, rng: Random) -> str:
    """Return a first name; in training every second one is invented, so that names get copied."""
    if split == "train" and rng.random() < 0.5:
        return pseudo_word(rng).capitalize()
    return any_of("names", rng, split)


def sentence(rng: Random) -> str:
    """Return one of many thousand small sentences."""
    lists = ("being_adjectives", "beings", "acts", "thing_adjectives", "things", "places")
    slots = {name[:-1]: any_of(name, rng) for name in lists}
    return fill(rng.choice(_SHAPES), slots | {"bare": slots["act"].removesuffix("s")})


# -------------------------------------------------------------------------------------------------- skills


def _skill(name: str, split: str, rng: Random, answer: str, **slots: str) -> Row:
    return row(casual(fill(rng.choice(of_split(_file()["skills"][name], split)), slots), rng, 0.15), answer)


def _kinds(rng: Random, count: int) -> list[tuple[str, str]]:
    """Return ``count`` pairs of a kind ("an animal") and one of its members ("horse")."""
    kinds = rng.sample(sorted(_file()["categories"]), count)
    return [(kind, rng.choice(_file()["categories"][kind])) for kind in kinds]


def _letter(split: str, rng: Random) -> Row:
    options = _kinds(rng, rng.randint(2, 4))
    right = rng.randrange(len(options))
    mark = rng.choice(("{}) {}", "{}. {}", "{}: {}"))
    listed = [mark.format(LETTERS[index], word) for index, (_, word) in enumerate(options)]
    joined = "\n" + "\n".join(listed) + "\n" if rng.random() < 0.5 else ", ".join(listed) + "."
    made = _skill("letter", split, rng, LETTERS[right], kind=options[right][0], options=joined)
    asked = made["messages"][0]
    asked["content"] = asked["content"].replace(" \n", "\n").replace("\n ", "\n").strip()
    return made


def _one_word(split: str, rng: Random) -> Row:
    simple = [(kind, word) for kind, word in _kinds(rng, 8) if len(kind.split()) == 2][:2]
    (a, word), (b, other) = simple
    if rng.random() < 0.5:
        return _skill("one_word", split, rng, a.split()[1].capitalize(), word=word, a=a, b=b)
    return _skill("one_word", split, rng, b.split()[1].capitalize(), word=other, a=a, b=b)


def _yes_no(split: str, rng: Random) -> Row:
    (kind, word), (other, _) = _kinds(rng, 2)
    right = rng.random() < 0.5
    return _skill("yes_no", split, rng, "Yes." if right else "No.", word=word, kind=kind if right else other)


def _repeat(split: str, rng: Random) -> Row:
    text = sentence(rng)
    if rng.random() < 0.3:  # any words, so that copying does not lean on grammar
        text = " ".join(rng.sample(dictionary(split), rng.randint(2, 4)))
    return _skill("repeat", split, rng, text, text=text)


def _say_word(split: str, rng: Random) -> Row:
    word = rng.choice(dictionary(split))
    return _skill("say_word", split, rng, word, word=word)


def _times(split: str, rng: Random) -> Row:
    word, count = rng.choice(dictionary(split)), rng.randint(2, 6)
    return _skill(
        "times", split, rng, " ".join([word] * count), word=word, n=rng.choice((str(count), NUMBERS[count]))
    )


def _count_to(split: str, rng: Random) -> Row:
    first = rng.choice((1, 1, rng.randint(2, 20)))
    last = first + rng.randint(2, 9)
    asked = rng.choice(
        [each for each in of_split(_file()["skills"]["count_to"], split) if first == 1 or "{a}" in each]
    )
    return row(fill(asked, {"a": str(first), "b": str(last)}), ", ".join(map(str, range(first, last + 1))))


def _upper(split: str, rng: Random) -> Row:
    word = rng.choice(dictionary(split))
    return _skill("upper", split, rng, word.upper(), word=word)


def _lower(split: str, rng: Random) -> Row:
    word = rng.choice(dictionary(split))
    return _skill("lower", split, rng, word, word=word.upper())


def _list(split: str, rng: Random) -> Row:
    kind, count = _kinds(rng, 1)[0][0], rng.randint(2, 6)
    members = _file()["categories"][kind][:count]
    slots = {"n": rng.choice((str(count), NUMBERS[count])), "kinds": _file()["plurals"][kind]}
    if rng.random() < 0.6:
        return _skill("list", split, rng, "\n".join(f"- {word}" for word in members), **slots)
    text = ", ".join(members[:-1]) + f" and {members[-1]}."
    return _skill("name_some", split, rng, text[0].upper() + text[1:], **slots)


def _sentence_with(split: str, rng: Random) -> Row:
    word = rng.choice(dictionary(split))
    return _skill("sentence_with", split, rng, f"Today I learned the word {word}.", word=word)


def _word_of(split: str, rng: Random) -> Row:
    text = sentence(rng)
    which = rng.choice(("first_word", "last_word"))
    return _skill(which, split, rng, text.rstrip(".").split()[0 if which == "first_word" else -1], text=text)


def _reverse(split: str, rng: Random) -> Row:
    chosen = rng.sample(_file()["words"]["things"], rng.randint(2, 4))
    return _skill("reverse", split, rng, ", ".join(reversed(chosen)), words=", ".join(chosen))


def _num_words(split: str, rng: Random) -> Row:
    text = sentence(rng)
    return _skill("num_words", split, rng, str(len(text.split())), text=text)


def _replace(split: str, rng: Random) -> Row:
    old, new = rng.sample(_file()["words"]["beings"], 2)
    text = (
        f"The {any_of('being_adjectives', rng)} {old} {any_of('acts', rng)} in the {any_of('places', rng)}."
    )
    return _skill("replace", split, rng, text.replace(f" {old} ", f" {new} "), a=old, b=new, text=text)


_COUNTS: dict[Callable[[str, Random], Row], int] = {
    _letter: 250,
    _one_word: 120,
    _yes_no: 150,
    _repeat: 300,
    _say_word: 150,
    _times: 100,
    _count_to: 150,
    _upper: 200,
    _lower: 150,
    _list: 250,
    _sentence_with: 120,
    _word_of: 160,
    _reverse: 120,
    _num_words: 120,
    _replace: 150,
}
