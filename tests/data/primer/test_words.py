"""The word list: large, clean, and split so that a held-out word is never spelled in training."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from random import Random

import pytest

from picollm.data import primer
from picollm.data.primer import words
from picollm.data.primer.wordings import SPLITS
from picollm.errors import InputError


def test_the_list_is_large_and_clean() -> None:
    listed = list(words.all_words())
    assert len(listed) >= 2500
    assert listed == sorted(set(listed))
    assert all(re.fullmatch("[a-z]{3,10}", word) for word in listed)


def test_every_word_is_in_one_split() -> None:
    split = {name: set(words.words(name)) for name in SPLITS}
    assert sorted(itertools.chain.from_iterable(split.values())) == list(words.all_words())
    assert len(split["test"]) >= 250 and len(split["validation"]) >= 80


def test_shares_and_golden_splits() -> None:
    count = Counter(words.split_of(str(number)) for number in range(10_000))
    assert abs(count["train"] - 8000) < 150 and abs(count["test"] - 1500) < 150
    assert [words.split_of(key) for key in ("apple", "23+45", "7*8", "a")] == GOLDEN


GOLDEN = ["test", "train", "train", "train"]


def test_pseudo_words_are_no_words() -> None:
    rng = Random(0)
    made = [words.pseudo_word(rng) for _ in range(3000)]
    assert all(re.fullmatch("[a-z]{3,10}", word) for word in made)
    assert not set(made) & set(words.all_words())
    assert len(set(made)) > 2800


def test_rows_are_a_function_of_split_and_seed() -> None:
    assert words.rows("train", 3) == words.rows("train", 3) != words.rows("train", 4)
    assert words.rows("train", 3, limit=7) == words.rows("train", 3)[:7]
    train = {row["word"] for row in words.rows("train")}
    assert set(words.words("train")) < train
    assert not train & (set(words.words("test")) | set(words.words("validation")))
    assert sorted(row["word"] for row in words.rows("test")) == list(words.words("test"))
    with pytest.raises(InputError, match="unknown split 'dev'"):
        words.rows("dev")


def test_held_out_words_are_rare_in_the_documents() -> None:
    """A frequent word becomes one token whose letters nobody can work out: mark it in words.txt."""
    held_out = set(words.words("test")) | set(words.words("validation"))
    count: Counter[str] = Counter()
    for document in itertools.islice(primer.documents(5), 4000):
        count.update(held_out & set(re.findall("[a-z]+", document.lower())))
    assert {word: times for word, times in count.items() if times > 4} == {}


def test_no_training_text_spells_a_held_out_word() -> None:
    held_out = {",".join(word) for split in ("validation", "test") for word in words.words(split)}
    texts = list(itertools.islice(primer.documents(6), 4000))
    texts += [turn["content"] for row in primer.rows("smoltalk", "train") for turn in row["messages"]]
    spelled = set(re.findall(r"[a-z](?:,[a-z]){2,}", "\n".join(texts)))
    assert len(spelled) > 1000 and not spelled & held_out
