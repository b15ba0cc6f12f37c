"""The multiple-choice form: the letter of a choice and the letter of the reply are the same token."""

from __future__ import annotations

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from picollm.chat.conversation import Message
from picollm.data.rows import rows_of
from picollm.errors import DataError
from picollm.tasks.choice import LETTERS, Item, ask
from picollm.tasks.mmlu import Mmlu

ROW = {
    "question": "What barks?",
    "subject": "pets",
    "choices": ["a cat", "a dog.", "a (cow)", "x=1"],
    "answer": 1,
}
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "gpt4": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def trained(pattern: str, text: str) -> Tokenizer:
    """Return a tokenizer that has merged everything its split pattern lets it merge in ``text``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([text] * 20, trainer)
    return tokenizer


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_letter_is_a_token_of_its_own_however_often_it_was_seen(pattern: str) -> None:
    task = Mmlu("mmlu", rows_of([ROW], "made"), "test")
    prompt = task.prompt(0).messages[0].text
    completion = task.completion(0)
    tokenizer = trained(PATTERNS[pattern], f"{prompt}\n{completion}B\n")
    ids = tokenizer.encode(prompt).ids
    for letter in LETTERS[:4]:
        single = tokenizer.encode(letter).ids
        assert len(single) == 1
        assert ids.count(single[0]) == 1
    assert tokenizer.encode(f"{completion}B").ids == [
        *tokenizer.encode(completion).ids,
        *tokenizer.encode("B").ids,
    ]


def test_the_form() -> None:
    assert ask(Item("Which?", ("x", "y"), 0)) == "Which?\n- x=>A\n- y=>B"
    task = Mmlu("mmlu", rows_of([ROW], "made"), "test")
    assert task[0].messages[0].text == (
        "What barks?\n- a cat=>A\n- a dog.=>B\n- a (cow)=>C\n- x=1=>D\nReply with only the letter."
    )
    assert (task.letters(0), task.answer_letter(0), task.group(0)) == (list("ABCD"), "B", "pets")
    assert task.check(0, Message("assistant", "B")) and not task.check(0, Message("assistant", "B. a dog"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": ["one"]}, "expected 2 to 10 texts"),
        ({"choices": [1, 2, 3, 4]}, "expected 2 to 10 texts"),
        ({"answer": 4}, "answer 4 is none of its 4 choices"),
        ({"answer": -1}, "answer -1 is none of its 4 choices"),
        ({"answer": "B"}, "'answer' is 'B'; expected int"),
        ({"question": None}, "'question' is None; expected str"),
    ],
)
def test_a_broken_row_is_named(change: dict[str, object], message: str) -> None:
    task = Mmlu("mmlu", rows_of([ROW, {**ROW, **change}], "made"), "test")
    with pytest.raises(DataError, match=f"made, row 1: .*{message}"):
        task[1]
