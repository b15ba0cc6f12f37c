"""Hashed words against words themselves."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from picollm.data.check.words import hash_text, hash_words, ngrams_within, split_words

ASCII = st.text(st.characters(max_codepoint=127))
SENTENCES = st.lists(st.lists(st.sampled_from(["a", "b", "c"]), max_size=8).map(" ".join), max_size=6)


@given(ASCII)
def test_ascii_text_is_cut_like_any_other(text: str) -> None:
    assert split_words(text) == [word.encode() for word in re.findall(r"\w+", text.lower())]
    assert split_words(text + " é")[:-1] == split_words(text)


def test_case_punctuation_and_space_do_not_count() -> None:
    assert split_words("Don't  STOP,\nnow!") == split_words("don t stop “now”")
    assert split_words("STRASSE") == split_words("straße")


def test_ideographs_are_words() -> None:
    assert [word.decode() for word in split_words("中文 and ひらがな")] == ["中", "文", "and", *"ひらがな"]


@given(SENTENCES)
def test_ngrams_are_equal_where_words_are_and_never_span_two_texts(sentences: list[str]) -> None:
    hashes, counts = ngrams_within([hash_words(sentence) for sentence in sentences], 3)
    words = [sentence.split() for sentence in sentences]
    slow = [tuple(each[i : i + 3]) for each in words for i in range(len(each) - 2)]
    assert counts.tolist() == [max(0, len(each) - 2) for each in words]
    assert len(hashes) == len(slow)
    names = dict(zip(slow, hashes.tolist(), strict=True))
    assert [names[gram] for gram in slow] == hashes.tolist() and len(set(names.values())) == len(names)


@given(ASCII, ASCII)
def test_texts_have_one_hash_exactly_when_their_words_are_equal(one: str, other: str) -> None:
    same = hash_text(hash_words(one)) == hash_text(hash_words(other))
    assert same == (split_words(one) == split_words(other))


def test_hashes_are_the_same_in_every_process() -> None:
    assert hash_words("Hello, world").tolist() == [907060870, 980881731]
    assert hash_text(np.array([1, 2], np.uint64)) == 11868681386100499350
