"""From a foreign chat template to a specification: what stands between probe texts that no template knows.

A template is rendered for a few conversations whose texts are made-up words. What it prints between two of
them is a border; borders that belong together give the frames of the roles::

    start -> user        begin + user.opens
    user -> assistant    user.closes + assistant.opens + assistant.says
    user -> prompt       user.closes + assistant.opens
    assistant -> user    assistant.closes + assistant.after + user.opens
    assistant -> end     assistant.closes + assistant.after, or assistant.closes + finish
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from picollm.chat.conversation import Message
from picollm.chat.format_specification import Frame, Specification
from picollm.chat.format_template import (
    LATER,
    USUAL_NAMES,
    Probe,
    Refused,
    Rendering,
    render_foreign,
)
from picollm.tokenizer import Tokenizer

_WORD = "Qz{}Xw"
_SEEN = re.compile(r"Qz([a-z]\d?)Xw")
_TURNS = [(f"{who}{turn}", role) for turn in range(3) for who, role in (("u", "user"), ("a", "assistant"))]

Text = tuple[str, ...]
"""Text in pieces that belong together: its control tokens, and the characters between them."""


class Borders(NamedTuple):
    """What a template prints between the texts of a conversation; of the system message None if refused."""

    start_user: Text
    user_assistant: Text
    user_prompt: Text
    user_end: Text
    assistant_user: Text
    assistant_end: Text
    start_system: Text | None
    system_user: Text | None


def derive(template: str, tokenizer: Tokenizer, special: Mapping[str, str]) -> Specification:
    """Return the specification of ``template``; it still has to be verified.

    Raises:
        Refused: there is none, and the text says what the template does otherwise.
    """
    plain = {name: _talk(count, system) for name, count, system in _TALKS}
    probes = [Probe(talk, prompt=name.startswith("prompt")) for name, talk in plain.items()]
    loose = [
        Probe([Message(m.role, f" \n\t{m.text}\n ") for m in plain[name]]) for name in ("long", "system")
    ]
    found = render_foreign(
        template, [*probes, *loose, *(probe._replace(now=LATER) for probe in probes)], special
    )
    now, stripped, later = found[: len(probes)], found[len(probes) : -len(probes)], found[-len(probes) :]
    if now != later:
        one, other = next(pair for pair in zip(now, later, strict=True) if pair[0] != pair[1])
        raise Refused(
            "give the same text at any time", f"{str(one.text)[:200]!r} and {str(other.text)[:200]!r}"
        )
    renderings = dict(zip(plain, now, strict=True))
    for name, rendering in renderings.items():
        if rendering.text is None and "system" not in name:
            raise Refused("render plain conversations", str(rendering.error))
    borders = _borders(renderings, plain, tokenizer)
    strip = _stripped_roles(stripped, plain, renderings)
    return _specification(borders, strip, tokenizer, special)


# name, number of texts of user and assistant, whether there is a system message
_TALKS = (
    ("long", 6, False), ("short", 2, False), ("question", 1, False), ("prompt", 1, False),
    ("prompt later", 5, False), ("system", 6, True), ("system short", 2, True), ("prompt system", 1, True),
)  # fmt: skip


def _talk(count: int, system: bool) -> list[Message]:
    first = [Message("system", _WORD.format("s"))] if system else []
    return first + [Message(role, _WORD.format(name)) for name, role in _TURNS[:count]]  # type: ignore[arg-type]


def _borders(found: dict[str, Rendering], talks: dict[str, list[Message]], tokenizer: Tokenizer) -> Borders:
    texts = {
        name: _between(rendering.text, talks[name], tokenizer)
        for name, rendering in found.items()
        if rendering.text is not None
    }
    start, asked, answered, *_, end = texts["long"]
    for name, between in texts.items():
        system = talks[name][0].role == "system"
        head, body, tail = between[: 1 + system], between[1 + system : -1], between[-1]
        prompts, questions = name.startswith("prompt"), name == "question"
        first = texts["system"][:2] if system and "system" in texts else [start]
        last = texts["prompt"][-1] if prompts else tail if questions else end
        _require_same(body, [asked, answered, asked, answered, asked][: len(body)], "write every turn alike")
        _require_same(head, first, "begin every conversation alike")
        _require_same(
            [tail], [last], "prompt alike in every turn" if prompts else "end every conversation alike"
        )
    system_texts = texts.get("system", (None, None))
    return Borders(start, asked, texts["prompt"][-1], texts["question"][-1], answered, end, *system_texts[:2])


def _require_same(found: Sequence[Text], wanted: Sequence[Text], property: str) -> None:
    for one, other in zip(found, wanted, strict=True):
        if one != other:
            raise Refused(property, f"in one place it writes {_shown(one)}, in another {_shown(other)}")


def _between(text: str, talk: Sequence[Message], tokenizer: Tokenizer) -> list[Text]:
    """Return what stands before, between and behind the texts of ``talk``."""
    wanted = [message.text for message in talk]
    said = [match.group() for match in _SEEN.finditer(text)]
    if said != wanted:
        lost = [message.role for message in talk if message.text not in said]
        if lost:
            raise Refused("keep every message", f"a {lost[0]} message is missing in {text[:200]!r}")
        raise Refused(
            "write every message once, in the order in which they were said", f"found {text[:200]!r}"
        )
    return [_pieces(piece, tokenizer) for piece in _SEEN.split(text)[::2]]


def _pieces(text: str, tokenizer: Tokenizer) -> Text:
    cut = tokenizer.cut_at_added_tokens(text)
    return tuple(item for index, piece in enumerate(cut) for item in ([piece] if index % 2 else piece))


def _stripped_roles(
    loose: list[Rendering], talks: dict[str, list[Message]], tight: dict[str, Rendering]
) -> tuple[str, ...]:
    """Return the roles whose texts lose the white space around them, judged by two loose renderings."""
    roles: dict[str, bool] = {}
    for name, rendering in zip(("long", "system"), loose, strict=True):
        if rendering.text is None or tight[name].text is None:
            continue
        expected = str(tight[name].text)
        for message in talks[name]:
            around = f" \n\t{message.text}\n "
            kept = around in rendering.text
            if roles.setdefault(message.role, not kept) == kept:
                raise Refused(
                    "treat white space alike in every turn", f"some of the {message.role}'s is lost"
                )
            expected = expected.replace(message.text, around if kept else message.text)
        if rendering.text != expected:
            raise Refused(
                "keep the white space around a text, or strip it at both ends", repr(rendering.text[:300])
            )
    return tuple(role for role in ("system", "user", "assistant") if roles.get(role))


def _specification(
    borders: Borders, strip: tuple[str, ...], tokenizer: Tokenizer, special: Mapping[str, str]
) -> Specification:
    controls = tokenizer.added_tokens.keys()
    prompt, replies = borders.user_prompt, borders.user_assistant
    if replies[: len(prompt)] != prompt:
        raise Refused("begin a reply as it prompts for one", f"{_shown(prompt)} and then {_shown(replies)}")
    number = next((index for index, piece in enumerate(borders.assistant_end) if piece in controls), None)
    if number is None or borders.assistant_user[: number + 1] != borders.assistant_end[: number + 1]:
        ends = f"{_shown(borders.assistant_user)} and at last {_shown(borders.assistant_end)}"
        raise Refused("end every reply with the same control token", f"behind a reply it writes {ends}")
    closes, finish = borders.assistant_end[: number + 1], borders.assistant_end[number + 1 :]
    after, user_opens = _cut_opening(borders.assistant_user[number + 1 :], finish, borders.start_user)
    user_closes = _common_prefix(borders.user_end, prompt)
    before = borders.start_user[: len(borders.start_user) - len(user_opens)]
    begin, system, default = _system(borders, before, user_opens)
    pad, bos = special.get("pad_token"), special.get("bos_token")
    end = closes[-1]
    tokens = tuple(dict.fromkeys(piece for text in borders for piece in text or () if piece in controls))
    stops = dict.fromkeys((special.get("eos_token", end), *USUAL_NAMES["eos_token"]))
    return Specification(
        system=system,
        user=Frame("".join(user_opens), "".join(user_closes)),
        assistant=Frame(
            "".join(prompt[len(user_closes) :]),
            "".join(closes),
            says="".join(replies[len(prompt) :]),
            after="".join(after),
        ),
        end=end,
        tokens=tokens,
        begin="".join(begin),
        finish=None if finish == after else "".join(finish),
        merge_system=system is not None and not _ends_with(borders.system_user or (), user_opens),
        default_system=default,
        strip=strip,
        bos=bos,
        pad=None if pad == end else pad,
        also_ends=tuple(token for token in stops if token in controls and token not in tokens),
    )


def _cut_opening(text: Text, finish: Text, start: Text) -> tuple[Text, Text]:
    """Return the border behind a reply's end as what still closes it and what opens the user's turn."""
    opens = text[len(finish) :]
    if text[: len(finish)] == finish and _ends_with(start, opens):
        return finish, opens
    length = len(_common_prefix(text[::-1], start[::-1]))
    return text[: len(text) - length], text[len(text) - length :]


def _system(borders: Borders, before: Text, user_opens: Text) -> tuple[Text, Frame | None, str | None]:
    """Return what begins every conversation, a system message's frame, and the one that stands for a missing.

    ``before`` is all that stands before the first user turn where there is no system message.
    """
    opens, closes = borders.start_system, borders.system_user
    if opens is None or closes is None:
        return before, None, None
    if not _ends_with(closes, user_opens):
        if opens[: len(borders.start_user)] != borders.start_user:
            raise Refused("put a system message before the first user turn or at its start", _shown(opens))
        return before, Frame("".join(opens[len(borders.start_user) :]), "".join(closes)), None
    closes = closes[: len(closes) - len(user_opens)]
    if opens[: len(before)] == before:
        return before, Frame("".join(opens[len(before) :]), "".join(closes)), None
    inner = before[len(opens) : len(before) - len(closes)]
    if before != opens + inner + closes:
        raise Refused(
            "begin alike with and without a system message", f"{_shown(before)} and {_shown(opens)}"
        )
    return (), Frame("".join(opens), "".join(closes)), "".join(inner)


def _ends_with(text: Text, end: Text) -> bool:
    return text[len(text) - len(end) :] == end


def _common_prefix(one: Text, other: Text) -> Text:
    length = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[: min(len(one), len(other)) if length is None else length]


def _shown(text: Text) -> str:
    return repr("".join(text)[:200])
