"""Small real objects: a tokenizer trained here, a format, and a two-layer model with random weights."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from picollm.chat.conversation import Conversation
from picollm.chat.format import ChatFormat
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.tokenizer import Tokenizer

TEXTS = ["the cat sat on the mat and the dog ran", "what is 2+3? it is 5", "über größe naïve 12*34"] * 20


@dataclass(frozen=True)
class Loaded:
    """The part of a checkpoint that an engine reads."""

    model: Model
    tokenizer: Tokenizer
    format: ChatFormat | None


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 320, ChatFormat.required_tokens("picollm"))


@pytest.fixture(scope="session")
def chat_format(tokenizer: Tokenizer) -> ChatFormat:
    return ChatFormat.named("picollm", tokenizer)


def random_model(vocab_size: int, seed: int = 0, **changes: object) -> Model:
    """Return a model whose every weight is random and large enough for varied text."""
    shape = {"num_key_value_heads": 2, "max_position_embeddings": 256, **changes}
    model = Model(ModelConfig(vocab_size, 32, 48, 2, 4, **shape))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.3, generator=generator)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def loaded(tokenizer: Tokenizer, chat_format: ChatFormat) -> Loaded:
    return Loaded(random_model(tokenizer.vocab_size), tokenizer, chat_format)


def says(*texts: str) -> Conversation:
    """Return a conversation of alternating turns, the user's first."""
    roles = ("user", "assistant")
    return Conversation.from_dict(
        {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]}
    )
