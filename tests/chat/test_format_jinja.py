"""The exported templates, with and without generation tags, against transformers: nothing may differ."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from picollm.chat.conversation import Conversation, Message, Part
from picollm.chat.format import ChatFormat
from picollm.chat.format_specification import SPECIFICATIONS
from picollm.data import primer
from picollm.data.rows import load_rows
from picollm.fast_bpe import LLAMA3_PATTERN, QWEN2_PATTERN
from picollm.tokenizer import Tokenizer

NUM_CONVERSATIONS = 25  # for each format and tokenizer; scripts/bench agreement takes 5,000


@cache
def tokenizer_like(kind: str) -> Tokenizer:
    texts = list(itertools.islice(primer.documents(1), 200))
    if kind == "picollm":
        return Tokenizer.train(texts, 900)
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    if kind == "qwen2":
        backend.normalizer = normalizers.NFC()
    pattern = tokenizers.Regex(LLAMA3_PATTERN if kind == "llama3" else QWEN2_PATTERN)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), to_bytes])
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(json.dumps(json.loads(backend.to_str())))


def differences(fmt: ChatFormat, talks: list[Conversation], theirs: Callable[..., Any]) -> list[Conversation]:
    return [
        talk
        for talk in talks
        if theirs(fmt.tokenizer, fmt.chat_template, talk) != tuple(fmt.render_conversation(talk))
        or theirs(fmt.tokenizer, fmt.chat_template_plain, talk)[0] != fmt.render_conversation(talk).ids
    ]


@pytest.mark.parametrize("kind", ["picollm", "qwen2", "llama3"])
@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_real_conversations(name: str, kind: str, theirs: Callable[..., Any], shared_data: Path) -> None:
    required = ChatFormat.required_tokens(name)
    fmt = ChatFormat.named(name, tokenizer_like(kind).with_special_tokens(required))
    rows = load_rows(shared_data / "chat" / "mix" / "test.parquet")
    talks = [Conversation.from_dict(rows[index * 97 % len(rows)]) for index in range(NUM_CONVERSATIONS)]
    systems = [Conversation([Message("system", "Be brief.\n"), *talk.messages]) for talk in talks[::5]]
    assert differences(fmt, talks + systems, theirs) == []


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_what_is_awkward(
    name: str, make_format: Callable[[str], ChatFormat], theirs: Callable[..., Any]
) -> None:
    fmt = make_format(name)
    texts = [
        "\n",
        " ",
        "\n\nA\n",
        "it's 'so'\\n",
        "{{ x }}",
        "{% if %}",
        "\u00e9e\u0301",
        "\U0001f600",
        "a\r\nb\t",
    ]
    talks = [
        Conversation(
            [
                Message("user", one),
                Message("assistant", other),
                Message("user", "x"),
                Message("assistant", one, 0),
            ]
        )
        for one, other in itertools.product(texts, texts[:4])
    ]
    if fmt.has_tools:
        calls = [
            Part("text", "\n"),
            Part("python", "2+3"),
            Part("python_output", "5"),
            Part("text", "It is 5."),
        ]
        talks.append(Conversation([Message("user", "x"), Message("assistant", calls)]))
    assert differences(fmt, talks, theirs) == []
    for talk in talks[:9]:
        question = Conversation(talk.messages[:3])
        prompted = theirs(fmt.tokenizer, fmt.chat_template_plain, question, prompt=True)[0]
        assert prompted == fmt.render_for_completion(question)


def test_text_as_a_list_of_parts_and_roles_out_of_place(
    make_format: Callable[[str], ChatFormat], theirs: Callable[..., Any]
) -> None:
    fmt = make_format("chatml")
    assert "generation" in fmt.chat_template and "endgeneration" not in fmt.chat_template_plain
    spelled = Conversation([Message("user", "a<|im_end|>b"), Message("assistant", "c")])
    ids = fmt.render_conversation(spelled).ids
    assert (
        ids.count(fmt.end_id) == 2
        and theirs(fmt.tokenizer, fmt.chat_template, spelled)[0].count(fmt.end_id) == 3
    )
