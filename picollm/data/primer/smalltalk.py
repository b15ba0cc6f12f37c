"""Everyday conversations from ``smalltalk.toml``: talk, reading, memory, system prompts, small instructions.

What a test row asks is worded as in no training row, and its names, words and cities are in no training row.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from picollm.data.primer import instructions
from picollm.data.primer.instructions import any_of, first_name
from picollm.data.primer.wordings import Row, casual, fill, of_split, row
from picollm.data.primer.words import words as dictionary

FILE = Path(__file__).with_name("smalltalk.toml")
# Conversations in the training split; validation and test hold a tenth.
NUM_READING, NUM_MEMORY, NUM_OBEY, NUM_TALKS = 500, 1000, 800, 500

_PERSONS = ("Person", "Visitor", "Child", "Guest", "Student")
_MACHINES = ("Machine", "Robot", "Computer")


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def rows(split: str, seed: int = 0) -> list[Row]:
    """Return the conversations of ``split`` in the canonical schema, shuffled by ``seed``.

    Raises:
        InputError: for a split nobody knows.
    """
    rng = Random(f"smalltalk {split} {seed}")
    found = [*_intents(split, rng), *instructions.rows(split, rng)]
    kinds = ((_reading, NUM_READING), (_memory, NUM_MEMORY), (_obey, NUM_OBEY), (_talk, NUM_TALKS))
    for make, count in kinds:
        found += [make(split, rng) for _ in range(count if split == "train" else count // 10)]
    unique = {repr(each): each for each in found}
    made = list(unique.values())
    rng.shuffle(made)
    return made


def paragraphs(rng: Random) -> Iterator[str]:
    """Yield written talks between a person and a machine without end, in the wordings of the training split.

    The machine's words are those that fine-tuning asks for, so a base model knows them as language already.
    """
    kinds = (_talk, _talk, _reading, _memory, _memory, _obey)
    while True:
        messages = rng.choice(kinds)("train", rng)["messages"]
        person, machine = rng.choice(_PERSONS), rng.choice(_MACHINES)
        speakers = {"system": "Rule", "user": person, "assistant": machine}
        lines = [f"{speakers[message['role']]}: {message['content']}" for message in messages]
        heading = rng.choice(
            ("", "A talk with a machine\n\n", f"A {person.lower()} talks with a machine.\n\n")
        )
        yield heading + "\n".join(lines)


def _slots(split: str, rng: Random) -> dict[str, str]:
    """Return one value for every slot of the reading, memory and system-prompt wordings."""
    names = ("thing", "place", "thing_adjective", "color", "job", "pet")
    return {each: any_of(f"{each}s", rng) for each in names} | {
        "hobby": any_of("hobbies", rng),
        "name": first_name(split, rng),
        "pet_name": first_name(split, rng),
        "city": any_of("cities", rng, split),
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
    tell = [fill(rng.choice(of_split(kind["tell"], split)), slots) for kind in kinds]

    def question(kind: dict[str, Any]) -> str:
        return casual(fill(rng.choice(of_split(kind["ask"], split)), slots), rng)

    if rng.random() < 0.2:  # all in one breath
        kind = rng.choice(kinds)
        return row(f"{' '.join(tell)} {question(kind)}", fill(kind["reply"], slots))
    turns: list[str] = []
    for kind, told in zip(kinds, tell, strict=True):
        turns += [told, fill(kind["answer"], slots)]
        if rng.random() < 0.3:
            turns += _exchange(split, rng)
    if rng.random() < 0.2:  # something that was never told
        kind = rng.choice([other for other in _file()["memory"] if other not in kinds])
        return row(*rng.choice((turns, [])), question(kind), fill(kind["unknown"], slots))
    for kind in rng.sample(kinds, rng.randint(1, len(kinds))):
        turns += [question(kind), fill(kind["reply"], slots)]
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
        while "\n" in reply:  # poems and numbered steps keep their form
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
