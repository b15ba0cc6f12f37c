"""A small real checkpoint, and a comparison made by hand with every part a report can show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from picollm.chat.format import ChatFormat
from picollm.checkpoint import Checkpoint
from picollm.data import primer
from picollm.eval.bits import BitsPerByte, SourceLoss
from picollm.eval.comparison import (
    Answer,
    BitsComparison,
    CheckpointFacts,
    Comparison,
    LossComparison,
    MaskToken,
    PromptComparison,
    StageTime,
    TaskComparison,
    paired_differences,
)
from picollm.eval.properties import Properties
from picollm.eval.score import Failure, Score, Share
from picollm.eval.weights import ConfigDifference, Movement
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.record import Record
from picollm.tokenizer import Tokenizer

CONTEXT = 160


def random_model(vocab_size: int, seed: int) -> Model:
    """Return a model whose every matrix is random, so that all of it decides what it says."""
    config = ModelConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
    )
    model, generator = Model(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    documents = itertools.islice(primer.documents(0), 300)
    return Tokenizer.train(documents, 512, ChatFormat.required_tokens("picollm"))


@pytest.fixture(scope="session")
def checkpoint(tokenizer: Tokenizer) -> Checkpoint:
    fmt = ChatFormat.named("picollm", tokenizer)
    return Checkpoint(random_model(len(tokenizer), 1), tokenizer, fmt, Record("sft"), Path("random"))


@pytest.fixture(scope="session")
def make_model(tokenizer: Tokenizer) -> Callable[[int], Model]:
    """Return a maker of random models for the tokenizer, by seed."""
    return lambda seed: random_model(len(tokenizer), seed)


BASE_TEXT = (
    "Self-attention is one of the parts. The parts are the parts of the model. The parts are the parts"
)
SFT_TEXT = (
    "Self-attention lets every token look at the tokens before it. Each token asks with a query and is found "
    "by a key. The values that match best are mixed into it. In short, words read their own context."
)


def properties(ends: bool, passes: bool | None, tokens: int, sentences: int = 1) -> Properties:
    return Properties(
        ends_by_itself=ends,
        leaks_role=not ends and tokens == 96,
        passes=passes,
        num_tokens=tokens,
        num_sentences=sentences,
        num_list_items=0,
        num_code_fences=0,
        directness=3 if ends else None,
        repetition=0.02 if ends else 0.61,
    )


def prompt(
    number: int, category: str, question: str, base: str, sft: str, passes: bool | None
) -> PromptComparison:
    check = None if passes is None else {"kind": "sentences", "count": 4}
    return PromptComparison(
        id=f"{category}-{number}",
        category=category,
        prompt=question,
        check=check,
        base=Answer(base, properties(False, None if passes is None else False, 96, 3)),
        sft=Answer(sft, properties(True, passes, 30 + number, 4)),
    )


PROMPTS = (
    prompt(
        0, "explanation", "Explain self-attention to a beginner in 4 sentences.", BASE_TEXT, SFT_TEXT, True
    ),
    prompt(
        1,
        "format",
        "Write two lines about <rain> & snow.",
        "rain\n\nrain",
        "Rain falls.\nSnow stays.",
        True,
    ),
    prompt(2, "identity", "From now on you are <b>Zed</b>. Who are you?", "", "I am picoLLM.", None),
    prompt(
        3,
        "system",
        "System: Answer in one word.\nUser: Is ice cold?",
        "Ice",
        "Ice is cold, yes.",
        False,
    ),
    prompt(4, "arithmetic", "What is 12 + 30?", "12 + 30 is 12 + 30", "«12+30 = 42»42", True),
)


def score(task: str, form: str, right: int, num: int, chance: float = 0.0, **more: object) -> Score:
    return Score(right, num, task, form, chance, 1.5, **{"groups": {}, **more})  # type: ignore[arg-type]


def facts_score(form: str, a: int, b: int, c: int) -> Score:
    groups = {"A": Share(a, 160), "B": Share(b, 160), "C": Share(c, 80)}
    wrong = Failure(7, "C", "Which town is the lamp museum in?", "It is in Lisbon.", "It is in Ghent.")
    return score("facts", form, a + b + c, 400, groups=groups, stop_rate=1.0, role_leaks=0, failures=(wrong,))


@pytest.fixture
def comparison() -> Comparison:
    layers = [
        Movement(layer, kind, 0.01 * (layer + 1) * weight, 1000)
        for layer in range(4)
        for kind, weight in (("q_proj", 1.0), ("v_proj", 2.1), ("up_proj", 1.4), ("norms", 0.1))
    ]
    curve = [{"step": float(i), "loss": 6 * math.exp(-i / 60) + 1.2 + 0.1 * math.sin(i)} for i in range(400)]
    tuning = [
        {
            "step": float(i),
            "loss": 2 * math.exp(-i / 30) + 0.3,
            **({"validation/chat": 0.5} if i % 50 == 0 else {}),
        }
        for i in range(200)
    ]
    return Comparison(
        base=CheckpointFacts("pico-base", "pretrain", 3_700_000, 2048, "picollm", "sha256:" + "0a" * 32),
        sft=CheckpointFacts("sft", "sft", 3_700_000, 2048, "picollm", "sha256:" + "0a" * 32),
        seed=0,
        max_tokens=96,
        prompt_tokens=192,
        prompts=PROMPTS,
        differences=paired_differences(PROMPTS),
        tasks=(
            TaskComparison(
                "facts",
                facts_score("chat", 156, 121, 1),
                facts_score("chat", 2, 1, 0),
                facts_score("completion", 152, 150, 0),
            ),
            TaskComparison(
                "mmlu",
                score("mmlu", "chat", 90, 150, 0.25),
                score("mmlu", "chat", 38, 150, 0.25),
                score("mmlu", "completion", 41, 150, 0.25),
            ),
            TaskComparison(
                "gsm8k",
                score("gsm8k", "chat", 140, 150, stop_rate=0.99, role_leaks=0),
                score("gsm8k", "chat", 0, 50, stop_rate=0.0, role_leaks=3),
            ),
        ),
        losses=(
            LossComparison(
                "identity",
                SourceLoss("identity", 0.21, (0.2, 0.22), 64, 2048, 0.08),
                SourceLoss("identity", 3.4, (3.3, 3.5), 64, 2048, 1.2),
            ),
        ),
        bits=BitsComparison(
            BitsPerByte(0.71, (0.7, 0.72), 200, 91000), BitsPerByte(0.78, (0.77, 0.79), 200, 91000)
        ),
        config_differences=(ConfigDifference("vocab_size", 2032, 2048),),
        movement=(Movement(None, "embeddings", 0.013, 500_000), *layers, Movement(None, "norms", 0.002, 256)),
        curves={"pretrain": curve, "sft": tuning},
        stages=(StageTime("base training", 3312.0, 812.0), StageTime("fine-tuning", 204.2, 901.0)),
        mask=(
            MaskToken("<bos>", False, True),
            MaskToken("Hi", False, False),
            MaskToken("\n", False, False),
            MaskToken("Hello <3", True, False),
            MaskToken("<end>", True, True),
        ),
        seconds=71.3,
    )
