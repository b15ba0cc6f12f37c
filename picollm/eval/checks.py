"""Declarative checkers: data such as ``{"kind": "sentences", "count": 4}`` decides if a reply obeys.

Checks are data, so that a prompt set is a file and no code runs from it. Counting kinds (sentences, lines,
words, bullets) take ``count``, or ``min`` and/or ``max``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from picollm.errors import InputError
from picollm.eval.properties import count_list_items, nonempty_lines, split_sentences, words

Check = Mapping[str, Any]
_NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")


def _within(check: Check, num: int) -> bool:
    exact = check.get("count")
    if exact is not None:
        return bool(num == exact)
    return bool(check.get("min", 1) <= num <= check.get("max", num))


def _phrases(check: Check, *keys: str) -> list[str]:
    """Return what stands under ``keys``, each a single value or a list, as strings."""
    given = [check[key] for key in keys if key in check]
    return [str(text) for value in given for text in (value if isinstance(value, list) else [value])]


def _mentions(text: str, phrase: str) -> bool:
    """Return whether ``phrase`` stands in ``text`` as whole words, in any case."""
    bounded = rf"(?<!\w){re.escape(phrase.strip())}(?!\w)"
    return re.search(bounded, text, re.IGNORECASE) is not None


def _contains(check: Check, text: str) -> bool:
    one_of, every = _phrases(check, "any"), _phrases(check, "all", "text")
    return (not one_of or any(_mentions(text, phrase) for phrase in one_of)) and all(
        _mentions(text, phrase) for phrase in every
    )


def _excludes(check: Check, text: str) -> bool:
    return not any(_mentions(text, phrase) for phrase in _phrases(check, "any", "all", "text"))


def _plain(text: str) -> str:
    """Return ``text`` without outer white space, a closing full stop and quotation marks."""
    return text.strip().rstrip(".!").strip("\"'“”` ")


def _letter_only(check: Check, text: str) -> bool:
    allowed = _phrases(check, "answer") or _phrases(check, "options") or ["A", "B", "C", "D"]
    return text.strip() in allowed


def _one_word(check: Check, text: str) -> bool:
    answers = _phrases(check, "answer", "any")
    given = _plain(text)
    return len(given.split()) == 1 and (
        not answers or given.lower() in [answer.lower() for answer in answers]
    )


def _one_of(check: Check, text: str) -> bool:
    return _plain(text).lower() in [_plain(option).lower() for option in _phrases(check, "options", "text")]


def last_number(text: str) -> float | None:
    """Return the last number written in digits in ``text``, or None."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("−", "-")) if found else None


def _number(check: Check, text: str) -> bool:
    if check.get("only") and not _NUMBER.fullmatch(_plain(text)):
        return False
    return last_number(text) == float(check["value"])


def _spells(check: Check, text: str) -> bool:
    """Return whether the letters of ``word`` stand in ``text`` one by one: "t-o-k-e-n", "t, o, k, e, n"."""
    letters = r"[\s,.\-–:;]+".join(map(re.escape, check["word"]))
    return re.search(rf"(?<!\w){letters}(?!\w)", text, re.IGNORECASE) is not None


def _json(check: Check, text: str) -> bool:
    try:
        value = json.loads(re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip()))
    except ValueError:
        return False
    keys = check.get("keys", [])
    return not keys or (isinstance(value, dict) and all(key in value for key in keys))


_KINDS: dict[str, Callable[[Check, str], bool]] = {
    "sentences": lambda check, text: _within(check, len(split_sentences(text))),
    "lines": lambda check, text: _within(check, len(nonempty_lines(text))),
    "words": lambda check, text: _within(check, len(words(text))),
    "bullets": lambda check, text: _within(check, count_list_items(text)),
    "letter_only": _letter_only,
    "one_word": _one_word,
    "one_of": _one_of,
    "contains": _contains,
    "excludes": _excludes,
    "number": _number,
    "spells": _spells,
    "starts_with": lambda check, text: text.strip().lower().startswith(check["text"].lower()),
    "ends_with": lambda check, text: text.strip().lower().endswith(check["text"].lower()),
    "lowercase": lambda check, text: any(map(str.isalpha, text)) and text == text.lower(),
    "uppercase": lambda check, text: any(map(str.isalpha, text)) and text == text.upper(),
    "json": _json,
    "all": lambda check, text: all(passes(part, text) for part in check["checks"]),
    "any": lambda check, text: any(passes(part, text) for part in check["checks"]),
    "not": lambda check, text: not passes(check["check"], text),
}
_NEEDS = {
    "number": ("value",),
    "spells": ("word",),
    "starts_with": ("text",),
    "ends_with": ("text",),
    "all": ("checks",),
    "any": ("checks",),
    "not": ("check",),
}


_DEFINITE = {
    "contains": ("all", "text"),
    "number": ("value",),
    "one_word": ("answer", "any"),
    "one_of": ("options", "text"),
    "letter_only": ("answer",),
    "starts_with": ("text",),
    "ends_with": ("text",),
}


def passes(check: Check, text: str) -> bool:
    """Return whether the reply ``text`` obeys ``check`` (one that ``validate_check`` accepts)."""
    return _KINDS[check["kind"]](check, text)


def answers(check: Check) -> list[str]:
    """Return the strings whose appearance means that the question is answered, where ``check`` names any.

    What a reply must contain comes before what it may contain among other things.
    """
    return _named(check, _DEFINITE) or _named(check, {"contains": ("any",)})


def _named(check: Check, keys: Mapping[str, tuple[str, ...]]) -> list[str]:
    if check["kind"] in ("all", "any"):
        return [answer for part in check["checks"] for answer in _named(part, keys)]
    return _phrases(check, *keys.get(check["kind"], ()))


def validate_check(check: object, where: str) -> None:
    """Raise InputError, naming ``where``, unless ``check`` is of a known kind and has what it needs."""
    if not isinstance(check, Mapping) or check.get("kind") not in _KINDS:
        kind = check.get("kind") if isinstance(check, Mapping) else check
        raise InputError(
            f"{where}: check kind {kind!r} is not known. Use one of: {', '.join(sorted(_KINDS))}."
        )
    kind = check["kind"]
    for key in _NEEDS.get(kind, ()):
        if key not in check:
            raise InputError(f"{where}: a check of kind {kind!r} needs {key!r}; it has {sorted(check)}.")
    if kind in ("sentences", "lines", "words", "bullets") and not {"count", "min", "max"} & set(check):
        raise InputError(
            f"{where}: a check of kind {kind!r} needs 'count', 'min' or 'max'; it has {sorted(check)}."
        )
    for part in [*check.get("checks", []), *([check["check"]] if kind == "not" else [])]:
        validate_check(part, where)


def describe_check(check: Check) -> str:
    """Return what ``check`` asks for, as a person would say it.

    >>> describe_check({"kind": "all", "checks": [{"kind": "lines", "count": 2}, {"kind": "uppercase"}]})
    'exactly 2 lines; in uppercase'
    """
    kind = check["kind"]
    if kind in ("sentences", "lines", "words", "bullets"):
        return f"{_describe_count(check)} {'list items' if kind == 'bullets' else kind}"
    if kind in ("all", "any"):
        return ("; " if kind == "all" else " or ").join(describe_check(part) for part in check["checks"])
    if kind == "not":
        return f"not: {describe_check(check['check'])}"
    if kind == "number":
        return f"{'only' if check.get('only') else 'ends at'} the number {check['value']}"
    if kind == "contains":
        wanted = [" or ".join(_phrases(check, "any")), " and ".join(_phrases(check, "all", "text"))]
        return "mentions " + " and ".join(filter(None, wanted))
    if kind == "excludes":
        return "does not say " + " or ".join(_phrases(check, "any", "all", "text"))
    if kind in ("uppercase", "lowercase", "json"):
        return f"in {kind}"
    given = " or ".join(_phrases(check, "answer", "any", "options", "text", "word"))
    phrase = {"letter_only": "only the letter", "one_word": "the one word", "one_of": "exactly"}
    return f"{phrase.get(kind, kind.replace('_', ' '))} {given}".strip()


def _describe_count(check: Check) -> str:
    if "count" in check:
        return f"exactly {check['count']}"
    if "min" in check and "max" in check:
        return f"{check['min']} to {check['max']}"
    return f"at least {check['min']}" if "min" in check else f"at most {check['max']}"
