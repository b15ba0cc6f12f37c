"""Small real objects: a tokenizer trained here, a format, and two-layer models with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from picollm.chat.format import ChatFormat
from picollm.checkpoint import Checkpoint
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.record import Record
from picollm.tokenizer import Tokenizer

TEXTS = ["the cat sat on the mat and the dog ran", "what is 2+3? it is 5", "über größe naïve 12*34"] * 20


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 320, ChatFormat.required_tokens("picollm"))


@pytest.fixture(scope="session")
def chat_format(tokenizer: Tokenizer) -> ChatFormat:
    return ChatFormat.named("picollm", tokenizer)


@pytest.fixture(scope="session")
def make_model(tokenizer: Tokenizer) -> Callable[..., Model]:
    """Return a maker of models whose every weight is random, and large enough for varied text."""

    def make(seed: int = 0, **changes: object) -> Model:
        shape = {"num_key_value_heads": 2, "max_position_embeddings": 256, **changes}
        model = Model(ModelConfig(tokenizer.vocab_size, 32, 48, 2, 4, **shape))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.3, generator=generator)
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def checkpoint(make_model: Callable[..., Model], tokenizer: Tokenizer, chat_format: ChatFormat) -> Checkpoint:
    return Checkpoint(make_model(), tokenizer, chat_format, Record("sft"), Path())
