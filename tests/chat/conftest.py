"""What the tests of the chat formats share: small real tokenizers, and transformers as the truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import settings
from transformers import PreTrainedTokenizerFast

from picollm.chat.conversation import Conversation
from picollm.chat.format import ChatFormat
from picollm.data import primer
from picollm.tokenizer import Tokenizer

settings.register_profile("thorough", max_examples=3000, deadline=None)


@cache
def _base() -> Tokenizer:
    return Tokenizer.train(itertools.islice(primer.documents(0), 300), 700)


@pytest.fixture(scope="session")
def base() -> Tokenizer:
    """Return a tokenizer without any special token."""
    return _base()


@pytest.fixture(scope="session")
def make_format() -> Callable[[str], ChatFormat]:
    """Return a function from the name of a format to it, for a tokenizer with its tokens."""

    @cache
    def make(name: str) -> ChatFormat:
        return ChatFormat.named(name, _base().with_special_tokens(ChatFormat.required_tokens(name)))

    return make


Theirs = Callable[[Tokenizer, str, Conversation], tuple[list[int], list[int]]]


@pytest.fixture(scope="session")
def theirs() -> Theirs:
    """Return a function that renders with transformers: ids, and its mask of the assistant's tokens."""

    @cache
    def opened(source: str, special: tuple[tuple[str, str], ...]) -> Any:
        from tokenizers import Tokenizer as Backend

        return PreTrainedTokenizerFast(tokenizer_object=Backend.from_str(source), **dict(special))

    def render(
        tokenizer: Tokenizer, template: str, conversation: Conversation, prompt: bool = False, **special: str
    ) -> tuple[list[int], list[int]]:
        found = opened(tokenizer._source, tuple(special.items())).apply_chat_template(
            conversation.to_dict()["messages"],
            chat_template=template,
            tokenize=True,
            return_dict=True,
            add_generation_prompt=prompt,
            return_assistant_tokens_mask="{%- generation" in template,
        )
        return list(found["input_ids"]), list(found.get("assistant_masks", ()))

    return render
