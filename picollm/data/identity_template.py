"""The readable file that says who an assistant is: reading it, checking it, and starting one's own."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picollm.data.manifest import read_bytes
from picollm.errors import DataError, InputError
from picollm.paths import atomic_file

TEMPLATE = Path(__file__).with_name("identity.toml")
_SLOTS_OF_ASSISTANT = ("name", "creator", "kind", "purpose", "meaning", "training")
_SLOTS = (*_SLOTS_OF_ASSISTANT, "other", "company")


@dataclass(frozen=True)
class Template:
    """An identity file, read and checked; see ``identity.toml`` for what its tables mean."""

    assistant: dict[str, str]
    others: tuple[tuple[str, str], ...]
    test_others: tuple[tuple[str, str], ...]
    talk: tuple[tuple[str, str], ...]
    systems: tuple[str, ...]
    topics: dict[str, dict[str, Any]]
    chains: tuple[tuple[str, ...], ...]
    tests: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        """The assistant's name."""
        return self.assistant["name"]

    @property
    def creator(self) -> str:
        """The name of who made the assistant."""
        return self.assistant["creator"]

    @property
    def foreign(self) -> tuple[str, ...]:
        """All names of other assistants and makers in the file; a reply that claims one of them is wrong."""
        names = {name for pair in self.others + self.test_others for name in pair}
        return tuple(sorted(name for name in names if name != name.lower()))


def read_template(path: Path | None = None) -> Template:
    """Return the identity file ``path`` (default: picoLLM's own).

    Raises:
        UnavailableError: it does not exist.
        DataError: it is not TOML, lacks a table or a field, or uses a slot nobody fills; the text names it.
    """
    path = path or TEMPLATE
    try:
        found = tomllib.loads(read_bytes(path).decode("utf-8"))
        made = _template(found)
    except KeyError as error:
        raise DataError(
            f"{path} lacks {error}; compare it with what `picollm identity init` writes"
        ) from error
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{path} is not an identity file: {error}") from error
    for text in _strings(found):
        for slot in re.findall(r"\{(\w*)\}", text):
            if slot not in _SLOTS:
                known = ", ".join(f"{{{name}}}" for name in _SLOTS)
                raise DataError(f"{path}: nobody fills {{{slot}}} in {text!r}; known are {known}")
    return made


def _template(found: dict[str, Any]) -> Template:
    """Return ``found`` as a Template; a missing or misshapen entry raises what indexing it raises."""
    assistant = {key: str(found["assistant"][key]) for key in _SLOTS_OF_ASSISTANT}
    own = {assistant["name"].casefold(), assistant["creator"].casefold()}
    others, test_others = (
        tuple((str(a), str(b)) for a, b in found[key]["pairs"] if not own & {a.casefold(), b.casefold()})
        for key in ("others", "test_others")
    )
    if not others or not test_others:
        raise ValueError("[others] and [test_others] need a name that is not the assistant's own")
    topics = {topic["name"]: topic for topic in found["topic"]}
    chains = tuple(tuple(chain["topics"]) for chain in found["chain"])
    tests = tuple(found.get("test", ()))
    for topic in topics.values():
        for key in ("asks", "replies"):
            if not isinstance(topic[key], list) or not topic[key]:
                raise TypeError(f"{key} of topic {topic['name']!r} must be a list of sentences")
    for name in {name for chain in chains for name in chain}:
        _ = topics[name]
    for test in tests:
        _ = test["kind"], [assistant[key] for key in test["expect"]]
        for turns in test.get("turns", ()):
            if len(turns) % 2 == 0:
                raise ValueError(f"the turns {turns} must begin and end with the user")
    return Template(
        assistant=assistant,
        others=others,
        test_others=test_others,
        talk=tuple((str(a), str(b)) for a, b in found["context"]["talk"]),
        systems=tuple(found["context"]["systems"]),
        topics=topics,
        chains=chains,
        tests=tests,
    )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def init(name: str, creator: str, target: Path) -> Path:
    """Return ``target`` after writing an identity file for somebody's own assistant, ready to be edited.

    Raises:
        InputError: a name is empty, longer than a line or holds a brace, or ``target`` exists.
    """
    for what, value in (("name", name), ("creator", creator)):
        if not value.strip() or not value.isprintable() or set("{}") & set(value):
            raise InputError(f"{value!r} cannot be the {what}; expected one line of text without braces")
    if target.exists():
        raise InputError(f"{target} exists already; choose another file, so that nothing you wrote is lost")
    header = {
        "name": name.strip(),
        "creator": creator.strip(),
        "kind": "an AI assistant",
        "purpose": "to help people",
        "meaning": "{creator} chose this name.",
        "training": "First I learned to continue text, and then I learned to chat from conversations.",
    }
    own = "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in header.items())
    text = TEMPLATE.read_text(encoding="utf-8")
    start, end = text.index("\n[assistant]") + 1, text.index("\n[others]")
    with atomic_file(target) as temporary:
        temporary.write_text(f"{text[:start]}[assistant]\n{own}{text[end:]}", encoding="utf-8")
    return target
