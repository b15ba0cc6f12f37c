"""Who the assistant is: conversations built from readable templates, verified, scanned and tested.

``identity.toml`` is the source, ``identity_conversations.jsonl`` what ``build`` makes of it, and the manifest
pins the result: whoever changes the identity changes the assistant, so no other file is ever used.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picollm.chat.conversation import Conversation
from picollm.data import manifest as manifests
from picollm.data.identity_template import TEMPLATE, Template, init, read_template
from picollm.data.manifest import Manifest
from picollm.data.primer.wordings import Row, alternatives, fill, normalized, row
from picollm.errors import DataError
from picollm.paths import atomic_file

__all__ = [
    "CONVERSATIONS",
    "TEMPLATE",
    "IdentityItem",
    "build",
    "check",
    "init",
    "load",
    "manifest_path",
    "read_template",
    "scan",
    "test_items",
    "verify",
    "write",
]

CONVERSATIONS = Path(__file__).with_name("identity_conversations.jsonl")
SCHEMA = '{"messages": [{"role": "system" | "user" | "assistant", "content": string}, ...]}'
BUILDER = "picollm identity build"
READINGS_PER_ASK = 16
OTHERS_PER_ASK = 4
ROWS_PER_CHAIN = 24

_CLAUSE = re.compile(r"[,;:]| but | and ")
_DENIAL = r"\b(?:not|never|no longer)(?: \w+){{0,2}} (?:{own})|(?:{own}) did not\b"
_NEGATION = re.compile(r"\b(?:not|never|cannot|nor|neither|no longer)\b|n't\b", re.IGNORECASE)
_NAME_CLAIM = re.compile(r"\b(?:I am|I'm|I stay|[Mm]y name is|[Cc]all me)(?: called| named)? ([A-Z][\w-]+)")
_MAKER_CLAIM = re.compile(r"\b(?:made|created|built|developed|trained|designed)(?: me)? by ([A-Z][\w-]+)")
_PERSONAL = {
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.\w+"),
    "a web address": re.compile(r"https?://|www\."),
    "a long number": re.compile(r"\d[\d ()/-]{5,}\d"),
    "an account name": re.compile(r"(?<!\w)@\w+"),
}


@dataclass(frozen=True)
class IdentityItem:
    """One held-out question: the conversation up to it, and what a right reply says."""

    messages: tuple[dict[str, str], ...]
    kind: str
    language: str
    expect: tuple[str, ...]
    name: str
    creator: str
    foreign: tuple[str, ...]


# ------------------------------------------------------------------------------------------------ building


def build(template: Path | None = None) -> list[Row]:
    """Return the identity conversations of a template, without repetitions, in a fixed scattered order.

    There is no random number in it: every choice is a hash of the text it is about, so one template gives the
    same bytes everywhere.

    Raises:
        DataError: a held-out question is also a training question.
    """
    made = read_template(template)
    unique = {_line(each): each for topic in made.topics.values() for each in _topic_rows(topic, made)}
    unique |= {_line(each): each for chain in made.chains for each in _chain_rows(chain, made)}
    asked = {
        normalized(m["content"]) for each in unique.values() for m in each["messages"] if m["role"] == "user"
    }
    for item in _items(made):
        if normalized(item.messages[-1]["content"]) in asked:
            question = item.messages[-1]["content"]
            raise DataError(f"the held-out question {question!r} is also a training question; reword it")
    return [unique[line] for line in sorted(unique, key=_digest)]


def write(rows: Sequence[Row], target: Path) -> Manifest:
    """Return the manifest of ``target`` after writing it and, beside it, ``<name>.manifest.json``."""
    with atomic_file(target) as temporary:
        temporary.write_bytes("".join(f"{_line(each)}\n" for each in rows).encode("utf-8"))
    made = Manifest.of(target, schema=SCHEMA, builder=BUILDER)
    made.save(manifest_path(target))
    return made


def manifest_path(path: Path) -> Path:
    """Return where the manifest of the conversations ``path`` lies."""
    return path.with_name(f"{path.stem}.manifest.json")


def _line(conversation: Row) -> str:
    return json.dumps(conversation, ensure_ascii=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _pick(options: Sequence[Any], key: str) -> Any:
    return options[int(_digest(key)[:8], 16) % len(options)]


def _fill(text: str, made: Template, other: tuple[str, str]) -> str:
    """Return ``text`` with its slots filled; values may hold slots, and a name is never given a capital."""
    slots = {**made.assistant, "other": other[0], "company": other[1]}
    filled = fill(fill(text, slots), slots)
    return slots["name"] + filled[len(slots["name"]) :] if text.startswith("{name}") else filled


def _reply(topic: dict[str, Any], question: str, made: Template) -> str:
    return _fill(_pick(topic["replies"], f"reply {question}"), made, ("", ""))


def _readings(ask: str) -> list[str]:
    """Return what ``ask`` stands for: "Who (made|built) you?" is two questions; at most a scattered sixteen.

    >>> _readings("Who (made|built) you?")
    ['Who made you?', 'Who built you?']
    """
    readings = ["".join(chosen) for chosen in itertools.product(*alternatives(ask))]
    if len(readings) <= READINGS_PER_ASK:
        return readings
    return sorted(readings, key=_digest)[:READINGS_PER_ASK]


def _questions(ask: str, made: Template) -> list[str]:
    """Return ``ask`` with its slots filled: with several other names where it has a place for one."""
    if "{other}" not in ask and "{company}" not in ask:
        return [_fill(ask, made, made.others[0])]
    ranked = sorted(made.others, key=lambda pair: _digest(f"{ask} {pair}"))
    return [_fill(ask, made, other) for other in ranked[:OTHERS_PER_ASK]]


def _typed(question: str, made: Template) -> str:
    """Return ``question`` as people type it: without a capital at its start and a mark at its end."""
    bare = question.rstrip(".?! ")
    return bare if bare.startswith(("I ", *made.foreign)) else bare[:1].lower() + bare[1:]


def _topic_rows(topic: dict[str, Any], made: Template) -> Iterator[Row]:
    if topic.get("later"):
        return
    asks = [reading for ask in topic["asks"] for reading in _readings(ask)]
    for question in (each for ask in asks for each in _questions(ask, made)):
        reply = _reply(topic, question, made)
        yield row(question, reply)
        yield row(_typed(question, made), reply)
        chance = int(_digest(question)[:4], 16) % 6
        if chance < 2:
            yield row(*_pick(made.talk, question), question, reply)
        elif chance < 4:
            system = _fill(_pick(made.systems, question), made, _pick(made.others, f"system {question}"))
            yield row(question, reply, system=system)


def _chain_rows(chain: Sequence[str], made: Template) -> Iterator[Row]:
    for number in range(ROWS_PER_CHAIN):
        other = _pick(made.others, f"{chain} {number}")
        turns: list[str] = []
        for place, name in enumerate(chain):
            topic = made.topics[name]
            key = f"{chain} {number} {place}"
            question = _fill(_pick(_readings(_pick(topic["asks"], key)), key), made, other)
            turns += [question if number % 3 else _typed(question, made), _reply(topic, question, made)]
        yield row(*turns)


# ----------------------------------------------------------------------------------- reading and verifying


def load(path: Path | None = None, manifest: Path | None = None) -> list[Row]:
    """Return the identity conversations in ``path`` after checking them against their manifest.

    Raises:
        UnavailableError: the file or its manifest is missing.
        DataError: the file was altered, or a row breaks the schema; the text names file and row.
    """
    path = path or CONVERSATIONS
    content = manifests.verify(path, Manifest.load(manifest or manifest_path(path)))
    rows: list[Row] = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            rows.append(json.loads(line))
            Conversation.from_dict(rows[-1])
        except ValueError as error:
            raise DataError(f"{path}, row {number}: {error}") from error
    return rows


def verify(
    file: Path | None = None,
    manifest: Path | None = None,
    url: str | None = None,
    download_to: Path | None = None,
    timeout_s: float = 30.0,
) -> Manifest:
    """Return the manifest after the local file (and what lies at ``url``) proved to be what it pins.

    With ``download_to`` the verified download is stored there; otherwise nothing is written.

    Raises:
        UnavailableError: a file is missing, or the mirror cannot be reached or sends a web page.
        DataError: bytes, rows, sha256 or schema differ, or a row breaks the schema; the text says which.
    """
    path = file or CONVERSATIONS
    pinned = Manifest.load(manifest or manifest_path(path))
    if url is not None:
        if download_to is not None:
            manifests.download(url, download_to, pinned, timeout_s=timeout_s)
        else:
            manifests.check_content(manifests.fetch(url, timeout_s=timeout_s), pinned, url)
    load(path, manifest)
    return pinned


def scan(rows: Sequence[Row], template: Path | None = None) -> list[str]:
    """Return what is wrong with ``rows``, one line each: foreign names, contradictions, personal data."""
    made = read_template(template)
    name, creator = made.name, made.creator
    found: list[str] = []
    for number, each in enumerate(rows, 1):
        replies = [message["content"] for message in each["messages"] if message["role"] == "assistant"]
        for reply in replies:
            found += [f"row {number}: {problem}" for problem in claims(reply, name, creator, made.foreign)]
        if not any(word in reply for reply in replies for word in (name, creator)):
            found.append(f"row {number}: no reply names {name} or {creator}")
        for text in (message["content"] for message in each["messages"]):
            found += [
                f"row {number}: holds {kind}" for kind, shape in _PERSONAL.items() if shape.search(text)
            ]
    return found


def claims(text: str, name: str, creator: str, foreign: Sequence[str]) -> list[str]:
    """Return how ``text`` contradicts the identity, a phrase each; a foreign name in a denial is no claim."""
    found: list[str] = []
    own = "|".join(re.escape(each) for each in (name, creator))
    for sentence in re.split(r"(?<=[.!?])\s+|\n+", text):
        clauses = [sentence]
        if _NEGATION.search(sentence):
            found += [f"denies {match[0]!r}" for match in re.finditer(_DENIAL.format(own=own), sentence)]
            clauses = [each for each in _CLAUSE.split(sentence) if not _NEGATION.search(each)]
        for clause in clauses:
            rest = clause.replace(creator, "").replace(name, "")
            found += [f"claims the name {match[1]}" for match in _NAME_CLAIM.finditer(rest)]
            found += [f"claims the maker {match[1]}" for match in _MAKER_CLAIM.finditer(rest)]
            if clause == sentence:
                found += [f"names {other}" for other in foreign if _mentions(rest, other)]
    return found


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


# -------------------------------------------------------------------------------------- held-out questions


def test_items(template: Path | None = None) -> list[IdentityItem]:
    """Return the held-out questions of an identity file; none of their last turns is in the training rows."""
    return list(_items(read_template(template)))


def _items(made: Template) -> Iterator[IdentityItem]:
    name, creator = made.name, made.creator
    for test in made.tests:
        conversations = [[ask] for ask in test.get("asks", ())] + list(test.get("turns", ()))
        for turns in conversations:
            other = _pick(made.test_others, f"test {turns}")
            messages = row(*(_fill(turn, made, other) for turn in turns))["messages"]
            expect = tuple(made.assistant[key] for key in test["expect"])
            language = test.get("language", "English")
            yield IdentityItem(tuple(messages), test["kind"], language, expect, name, creator, made.foreign)


def check(item: IdentityItem, reply: str) -> bool:
    """Return whether ``reply`` says what the question asks for and claims no other identity."""
    if claims(reply, item.name, item.creator, item.foreign):
        return False
    return all(expected in reply for expected in item.expect)
