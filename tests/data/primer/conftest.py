"""A search for facts in text: the same one for documents and for conversations."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import pytest

from picollm.data import primer

Search = Callable[[Iterable[str], str], Iterator[str]]


def plain(text: str) -> str:
    """Return the words of ``text`` in small letters, one space around each."""
    words = re.findall(r"[\w'-]+", text.casefold())
    return f" {' '.join(words)} "


@pytest.fixture(scope="session")
def told() -> Search:
    """Return a search for sentences that name both the subject and the answer of a fact of some group."""
    by_first_word: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for group in "ABC":
        by_first_word[group] = defaultdict(list)
        for fact in primer.facts():
            if fact.group == group:
                subject, answer = plain(fact.subject), plain(fact.answer)
                by_first_word[group][subject.split()[0]].append((subject, answer))

    def search(texts: Iterable[str], group: str) -> Iterator[str]:
        for text in texts:
            for sentence in re.split(r"(?<=[.?!])\s+|\n", text):
                words = plain(sentence)
                for word in set(words.split()):
                    for subject, answer in by_first_word[group].get(word, ()):
                        if subject in words and answer in words:
                            yield f"{subject} / {answer}: {sentence}"

    return search
