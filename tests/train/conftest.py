"""Small real objects: random conversations of unequal length, a two-layer model, and processes to kill."""

from __future__ import annotations

import multiprocessing
import runpy
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.train.examples import Examples

VOCABULARY = 64


class Rendered(NamedTuple):
    ids: list[int]
    loss_mask: list[int]


def make_examples(count: int = 24, seed: int = 0) -> Examples:
    """Return examples of 5 to 40 tokens, each with one unsupervised stretch, from two sources."""
    rng = np.random.default_rng(seed)
    examples = Examples()
    for number in range(count):
        length = int(rng.integers(5, 40))
        mask = np.ones(length, np.int64)
        start = int(rng.integers(0, length - 3))
        mask[start : start + int(rng.integers(1, length - start - 1))] = 0
        ids = rng.integers(0, VOCABULARY, length)
        examples.append(Rendered(ids.tolist(), mask.tolist()), "even" if number % 2 == 0 else "odd")
    return examples


def make_model(seed: int = 0, **changes: Any) -> Model:
    """Return a model whose every weight is random, so that no path through it is silent."""
    model = Model(ModelConfig(VOCABULARY, 32, 48, 2, 4, **{"num_key_value_heads": 2, **changes}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.2, generator=generator)
    return model


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep tiny models on one thread: a second one has nothing to do but wait for the first."""
    torch.set_num_threads(1)


@pytest.fixture
def examples() -> Examples:
    return make_examples()


@pytest.fixture(name="new_model")
def model_maker() -> Callable[..., Model]:
    return make_model


@pytest.fixture
def model() -> Model:
    return make_model()


@pytest.fixture(scope="session")
def start_worker() -> Callable[..., BaseProcess]:
    """Return a starter of processes that run ``worker.py`` with a job; all share one import of torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["picollm.train.loop", "picollm.model.llama", "torch.distributed.fsdp", "torch._dynamo", "pytest"]
    )
    script = str(Path(__file__).with_name("worker.py"))

    def start(**job: Any) -> BaseProcess:
        process = context.Process(target=runpy.run_path, args=(script, {"job": job}, "__main__"))
        process.start()
        return process

    return start
