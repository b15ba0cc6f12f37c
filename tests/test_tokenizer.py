"""Text stays text, ids never move, and the fast encoder gives what the tokenizers library gives."""

from __future__ import annotations

import itertools
import json
import pickle
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from picollm.data import primer
from picollm.data.rows import load_rows
from picollm.errors import InputError
from picollm.tokenizer import Tokenizer


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train(itertools.islice(primer.documents(0), 200), 600, ["<|a|>", "<|b|>"])


def slow(text: str) -> list[int]:
    """Return the ids of ``text`` by the tokenizers library."""
    return tokenizer().encode_with_offsets(text)[0]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["<|a|>", "  ", "\t", "\0"])
        )
    ).map("".join)
)
def test_any_text_comes_back_and_is_never_special(text: str) -> None:
    ids = tokenizer().encode(text)
    assert tokenizer().decode(ids) == text and ids == slow(text)
    assert not set(ids) & set(tokenizer().special_tokens.values())
    assert b"".join(map(tokenizer().token_bytes, ids)) == text.encode()


TEXTS = st.lists(st.text("ab \n\t\u00e9\u2003<|>1", max_size=12), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_texts_around_special_tokens_are_encoded_one_by_one(texts: list[str]) -> None:
    a, b = (tokenizer().special_id(token) for token in ("<|a|>", "<|b|>"))
    between = [(a,), (b, *tokenizer().encode("x  y\n"), a)] * 3
    expected = []
    for index, text in enumerate(texts):
        expected += [*slow(text), *(between[index] if index < len(texts) - 1 else ())]
    assert tokenizer().encode_around(texts, between[: len(texts) - 1]) == expected


def test_the_fast_encoder_on_real_conversations(shared_data: Path) -> None:
    rows = load_rows(shared_data / "chat" / "mix" / "test.parquet")
    for index in range(0, len(rows), 9):
        for message in rows[index]["messages"]:
            assert tokenizer().encode(message["content"]) == slow(message["content"])


def test_saving_loading_and_transformers(tmp_path: Path) -> None:
    tokenizer().save(tmp_path, eos_token="<|b|>")
    again = Tokenizer.load(tmp_path)
    assert again.sha256 == tokenizer().sha256 == Tokenizer.load(tmp_path / "tokenizer.json").sha256
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token == "<|b|>"
    assert theirs("Once <|a|> upon", add_special_tokens=False)["input_ids"] == again.encode_template(
        "Once <|a|> upon"
    )
    assert pickle.loads(pickle.dumps(again)).encode("Once") == again.encode("Once")


def test_added_tokens_never_move_an_id() -> None:
    more = tokenizer().with_special_tokens(["<|c|>", "<|a|>"])
    assert more.vocab_size == tokenizer().vocab_size + 1 == more.special_id("<|c|>") + 1
    assert more.encode("Once <|c|>") == tokenizer().encode("Once <|c|>")
    assert {t: more.special_id(t) for t in tokenizer().special_tokens} == tokenizer().special_tokens
    assert more.with_special_tokens(["<|c|>"]) is more


def test_a_formats_text_is_cut_at_its_tokens() -> None:
    assert tokenizer().split_at_added_tokens("x<|a|>\n<|b|>") == [
        "x", tokenizer().special_id("<|a|>"), "\n", tokenizer().special_id("<|b|>"),
    ]  # fmt: skip
    assert tokenizer().cut_at_added_tokens("x<|a|>") == ["x", "<|a|>", ""]


def test_a_split_pattern_that_never_ends_is_given_up(capfd: pytest.CaptureFixture[str]) -> None:
    hostile = json.loads(tokenizer()._source)
    hostile["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": "(a+)+$"}
    slow_one = Tokenizer(json.dumps(hostile))
    assert slow_one.decode(slow_one.encode("aaab")) == "aaab"
    with pytest.raises(InputError, match=r"gives up on this text .*retry-limit.*pattern takes too long"):
        slow_one.encode("a" * 80 + "b")


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no special token '<|z|>'; add it with"):
        tokenizer().special_id("<|z|>")
    with pytest.raises(InputError, match=r"token id 9999 does not exist; expected 0 to \d+"):
        tokenizer().decode([9999])
    with pytest.raises(InputError, match="not Unicode text"):
        tokenizer().encode("\ud800")
    with pytest.raises(InputError, match="vocab_size 100 is too small; expected at least 257"):
        Tokenizer.train(["x"], 100, ["<|a|>"])
    with pytest.raises(InputError, match="no tokenizer at"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        Tokenizer.load(tmp_path)
