"""Tiny models of every family and option, as transformers writes them."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from picollm.chat.format import ChatFormat
from picollm.checkpoint import Checkpoint, Record
from picollm.data import primer
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.tokenizer import Tokenizer

_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-untied-biases": {
        "model_type": "llama",
        "tie_word_embeddings": False,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "llama-head-dim": {"model_type": "llama", "head_dim": 24, "num_key_value_heads": 4},
    "llama-linear": {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 2.5}},
    "llama-dynamic": {"model_type": "llama", "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "llama-llama3": {"model_type": "llama", "rope_scaling": _LLAMA3, "rope_theta": 500_000.0},
    "llama-yarn": {"model_type": "llama", "rope_scaling": _YARN},
    "mistral": {"model_type": "mistral", "num_key_value_heads": 1, "sliding_window": None},
    "mistral-window": {"model_type": "mistral", "sliding_window": 12},
    "qwen2": {"model_type": "qwen2"},
    "qwen2-window": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 12,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "qwen3-bias-untied-yarn": {
        "model_type": "qwen3",
        "head_dim": 8,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "rope_scaling": _YARN,
    },
}
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="session")
def plain_tokenizer() -> Tokenizer:
    """Return a tokenizer without any control token."""
    return Tokenizer.train(itertools.islice(primer.documents(0), 300), 500)


def randomized(model: Any, seed: int = 5) -> Any:
    """Fill a model with weights large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.25, generator=generator)
    return model


def family_config(case: str, vocab_size: int) -> dict[str, Any]:
    """Return the config.json of a family, sizes included."""
    return {**_SIZES, "vocab_size": vocab_size, **FAMILIES[case]}


@pytest.fixture(scope="session")
def families() -> Callable[[str, int], dict[str, Any]]:
    """Return ``family_config``."""
    return family_config


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies a checkpoint as a foreign one, with a changed config.json."""

    def copy(directory: Path, **changes: Any) -> Path:
        place = tmp_path / "foreign"
        shutil.copytree(directory, place)
        (place / "record.json").unlink()
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        (place / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
        return place

    return copy


@pytest.fixture(scope="session")
def chat_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, plain_tokenizer: Tokenizer
) -> Callable[..., Path]:
    """Return a function that saves a random chat model of a family in a format, once, and returns where."""
    made: dict[tuple[str, str], Path] = {}

    def save(case: str = "qwen3", name: str = "picollm") -> Path:
        if (case, name) not in made:
            tokenizer = plain_tokenizer.with_special_tokens(ChatFormat.required_tokens(name))
            config = ModelConfig.from_hf({**family_config(case, len(tokenizer))})
            directory = tmp_path_factory.mktemp("chat") / "checkpoint"
            chat_format = ChatFormat.named(name, tokenizer)
            data = [{"task": "smoltalk", "source": "primer", "rows": 5, "sha256": "ab" * 32, "weight": 1.0}]
            record = Record("sft", seed=1, data=data, parent={"name": "org/base", "sha256": "cd" * 32})
            Checkpoint.save(directory, randomized(Model(config)), tokenizer, chat_format, record)
            made[case, name] = directory
        return made[case, name]

    return save
