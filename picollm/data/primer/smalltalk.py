"""Everyday conversations from ``smalltalk.toml``: talk, simple instructions, reading, memory, system prompts.

What a test row asks is worded as in no training row, and its names, words and cities are in no training row.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from picollm.data.primer.words import pseudo_word, split_of
from picollm.data.primer.words import words as dictionary
from picollm.data.primer.wordings import NUMBERS, Row, casual, fill, of_split, row

FILE = Path(__file__).with_name("smalltalk.toml")
LETTERS = "ABCD"
# Conversations of each kind in the training split; validation and test hold a tenth.
NUM_READING, NUM_MEMORY, NUM_OBEY, NUM_TALKS = 500, 900, 700, 500


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def rows(split: str, seed: int = 0) -> list[Row]:
    """Return the conversations of ``split`` in the canonical schema, shuffled by ``seed``.

    Raises:
        InputError: for a split nobody knows.
    """
    rng = Random(f"smalltalk {split} {seed}")
    found = list(_intents(split, rng))
    for count, make in _KINDS:
        found += [make(split, rng) for _ in range(count if split == "train" else count // 10)]
    unique = {repr(each): each for each in found}
    made = list(unique.values())
    rng.shuffle(made)
    return made


# --------------------------------------------------------------------------------------------------- words


@cache
def _pool(name: str, split: str) -> list[str]:
    """Return the words of a list that belong to ``split``, decided by a hash of each word."""
    return [word for word in _file()["words"][name] if split_of(word) == split]


def _name(split: str, rng: Random) -> str:
    """Return a first name; in training every second one is invented, so that names are copied, not recalled."""
    if split == "train" and rng.random() < 0.5:
        return pseudo_word(rng).capitalize()
    return rng.choice(_pool("names", split))


def _any(name: str, rng: Random) -> str:
    return str(rng.choice(_file()["words"][name]))


def _sentence(rng: Random) -> str:
    """Return one of many thousand small sentences."""
    shape = rng.choice(
        (
            "The {being_adjective} {being} {act}.",
            "The {being} {act} in the {place}.",
            "The {being_adjective} {being} {act} in the {place}.",
            "My {thing} is {thing_adjective}.",
            "I can see a {thing_adjective} {thing} in the {place}.",
            "We {bare} in the {place}.",
        )
    )
    lists = ("being_adjectives", "beings", "acts", "thing_adjectives", "things", "places")
    slots = {name[:-1]: _any(name, rng) for name in lists}
    return fill(shape, slots | {"bare": slots["act"].removesuffix("s")})


def _slots(split: str, rng: Random) -> dict[str, str]:
    """Return one value for every slot of the reading, memory and system-prompt wordings."""
    names = ("thing", "place", "thing_adjective", "color", "job", "pet")
    return {each: _any(f"{each}s", rng) for each in names} | {
        "hobby": _any("hobbies", rng),
        "name": _name(split, rng),
        "pet_name": _name(split, rng),
        "city": rng.choice(_pool("cities", split)),
        "number": str(rng.randint(2, 999)),
        "word": rng.choice(dictionary(split)),
        "closing": rng.choice(_file()["closings"]["all"]),
        "opening": rng.choice(_file()["openings"]["all"]),
    }


# ---------------------------------------------------------------------------------------------------- talk


def _intents(split: str, rng: Random) -> Iterator[Row]:
    """Yield every wording of every intent, in training also as people type it."""
    for intent in _file()["intent"]:
        for ask in of_split(intent["ask"], split):
            yield row(ask, rng.choice(intent["reply"]))
            if split == "train":
                yield row(casual(ask, rng, share=1.0), rng.choice(intent["reply"]))


def _exchange(split: str, rng: Random) -> tuple[str, str]:
    intent = rng.choice(_file()["intent"])
    return casual(rng.choice(of_split(intent["ask"], split)), rng), rng.choice(intent["reply"])


def _talk(split: str, rng: Random) -> Row:
    """Return two to four exchanges about this and that."""
    return row(*(turn for _ in range(rng.randint(2, 4)) for turn in _exchange(split, rng)))


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
    made["messages"][0]["content"] = (
        made["messages"][0]["content"].replace(" \n", "\n").replace("\n ", "\n").strip()
    )
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
    text = _sentence(rng)
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
    word = _any("things", rng)
    answer = rng.choice(_file()["skills"]["sentence_with_replies"])
    return _skill("sentence_with", split, rng, fill(answer, {"word": word}), word=word)


def _word_of(split: str, rng: Random) -> Row:
    text = _sentence(rng)
    which = rng.choice(("first_word", "last_word"))
    return _skill(which, split, rng, text.rstrip(".").split()[0 if which == "first_word" else -1], text=text)


def _reverse(split: str, rng: Random) -> Row:
    chosen = rng.sample(_file()["words"]["things"], rng.randint(2, 4))
    return _skill("reverse", split, rng, ", ".join(reversed(chosen)), words=", ".join(chosen))


def _num_words(split: str, rng: Random) -> Row:
    text = _sentence(rng)
    return _skill("num_words", split, rng, str(len(text.split())), text=text)


def _replace(split: str, rng: Random) -> Row:
    old, new = rng.sample(_file()["words"]["beings"], 2)
    text = f"The {_any('being_adjectives', rng)} {old} {_any('acts', rng)} in the {_any('places', rng)}."
    return _skill("replace", split, rng, text.replace(f" {old} ", f" {new} "), a=old, b=new, text=text)


# ------------------------------------------------------------------------- reading, memory, system prompts


def _reading(split: str, rng: Random) -> Row:
    """Return a question about one of one to three things that the user just said."""
    kind = rng.choice(_file()["reading"])
    told = [_slots(split, rng) for _ in range(rng.randint(1, 3))]
    if len({slots[key] for slots in told for key in ("name", "thing")}) < 2 * len(told):
        return _reading(split, rng)  # who or what is asked for must be one of them only
    text = " ".join(fill(rng.choice(kind["tell"]), slots) for slots in told)
    asked = rng.choice(told)
    question = fill(rng.choice(of_split(kind["ask"], split)), asked)
    return row(f"{text} {question}", fill(kind["reply"], asked))


def _memory(split: str, rng: Random) -> Row:
    """Return a talk in which the user tells one to three things and asks for one of them, or for another."""
    kinds = rng.sample(_file()["memory"], rng.choice((1, 1, 2, 3)))
    slots = _slots(split, rng)
    turns: list[str] = []
    for kind in kinds:
        turns += [fill(rng.choice(of_split(kind["tell"], split)), slots), fill(kind["answer"], slots)]
        if rng.random() < 0.3:
            turns += _exchange(split, rng)
    if rng.random() < 0.2:
        others = [kind for kind in _file()["memory"] if kind not in kinds]
        kind = rng.choice(others)
        turns = turns if rng.random() < 0.5 else []
        return row(
            *turns,
            casual(fill(rng.choice(of_split(kind["ask"], split)), slots), rng),
            fill(kind["unknown"], slots),
        )
    for kind in rng.sample(kinds, rng.randint(1, len(kinds))):
        turns += [
            casual(fill(rng.choice(of_split(kind["ask"], split)), slots), rng),
            fill(kind["reply"], slots),
        ]
    return row(*turns)


def _obey(split: str, rng: Random) -> Row:
    """Return one to three exchanges whose replies all follow a system prompt."""
    rule, slots = rng.choice(_file()["obey"]), _slots(split, rng)
    if rng.random() < 0.3 and rule["name"] in ("start", "end"):
        word = slots["word"].capitalize() + "."
        slots |= {"opening": word, "closing": word}
    turns: list[str] = []
    for _ in range(rng.randint(1, 3)):
        ask, reply = _exchange(split, rng)
        turns += [ask, _formed(rule["form"], reply, slots)]
    return row(*turns, system=fill(rng.choice(of_split(rule["system"], split)), slots))


def _formed(form: str, reply: str, slots: dict[str, str]) -> str:
    sentences = _sentences(reply)
    if form == "list":
        return "\n".join(f"- {sentence}" for sentence in sentences)
    if form == "one sentence":
        return sentences[0]
    small = reply if reply.startswith("I ") else reply[:1].lower() + reply[1:]
    filled = form
    for key, value in {**slots, "reply": reply, "small_reply": small}.items():
        filled = filled.replace(f"{{{key}}}", value)
    return filled


def _sentences(text: str) -> list[str]:
    ends = text.replace("! ", "!\n").replace("? ", "?\n").replace(". ", ".\n")
    return [line for line in ends.splitlines() if line]


_Maker = Callable[[str, Random], Row]
_KINDS: Sequence[tuple[int, _Maker]] = (
    (250, _letter),
    (120, _one_word),
    (150, _yes_no),
    (300, _repeat),
    (150, _say_word),
    (100, _times),
    (150, _count_to),
    (200, _upper),
    (150, _lower),
    (250, _list),
    (120, _sentence_with),
    (160, _word_of),
    (120, _reverse),
    (120, _num_words),
    (150, _replace),
    (NUM_READING, _reading),
    (NUM_MEMORY, _memory),
    (NUM_OBEY, _obey),
    (NUM_TALKS, _talk),
)
