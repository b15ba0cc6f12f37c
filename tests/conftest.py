"""What every test may use."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

from picollm.data.mixture import Source
from picollm.model import native
from picollm.recipes.compare import compare_checkpoints
from picollm.recipes.config import (
    CompareRecipe,
    ModelShape,
    PretrainRecipe,
    Recipe,
    SftRecipe,
    TokenizerRecipe,
)
from picollm.recipes.pretrain import pretrain
from picollm.recipes.sft import finetune
from picollm.recipes.tokenizer import train_tokenizer
from picollm.train.config import TrainConfig

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep tiny models on one thread: a second one only waits, and on a busy machine for long."""
    torch.set_num_threads(1)


@pytest.fixture(params=["native", "torch"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a test run twice: with the kernels of ``native.c``, and as where no compiler was found."""
    if request.param == "torch":
        monkeypatch.setattr(native, "_functions", lambda: None)
    elif not native.is_available():
        pytest.skip("the native kernels were not built; install with a C compiler")
    return str(request.param)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory with a file system of 2 MiB, or skip where nobody may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "picollm-test", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk that is really full needs the right to mount one; run the tests as root on Linux")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def nearly_full(disk: Path) -> Callable[[int], AbstractContextManager[Path]]:
    """Return ``nearly_full(num_bytes)``: while the block runs, ``disk`` has room for that many bytes."""

    @contextmanager
    def filled(room: int) -> Iterator[Path]:
        filler = disk / "filler"
        filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - room)))
        try:
            yield disk
        finally:
            filler.unlink()

    return filled


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the directory of real data sets beside the repository, or skip: the product brings none."""
    root = Path(os.environ.get("PICOLLM_TEST_DATA", SHARED_DATA))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set PICOLLM_TEST_DATA to a directory in the published layouts")
    return root


_SHAPE = ModelShape(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=512,
)
_STEPS = TrainConfig(num_steps=6, learning_rate=5e-3, precision="fp32", log_every=2)


def _miniature(base: Path) -> Recipe:
    return Recipe(
        name="miniature",
        tokenizer=TokenizerRecipe(vocab_size=600, num_documents=300),
        pretrain=PretrainRecipe(
            num_validation_documents=5,
            batch_tokens=1024,
            shape=_SHAPE,
            train=dataclasses.replace(_STEPS, num_steps=None, num_tokens=8192),
        ),
        sft=SftRecipe(base=str(base), max_tokens=400, batch_tokens=1024, num_validation_rows=4, train=_STEPS),
        mixture=tuple(
            Source(task, limit=40)
            for task in ("smoltalk", "identity", "mmlu", "gsm8k", "spelling", "spelling_bee")
        ),
        compare=CompareRecipe(limit=4, base_limit=2, max_tokens=8, num_documents=5),
    )


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    """Return the directory of a finished miniature and its recipe."""
    runs = tmp_path_factory.mktemp("runs")
    recipe = _miniature(runs / "base")
    train_tokenizer(recipe, runs / "tokenizer")
    pretrain(recipe, runs / "tokenizer", runs / "base")
    finetune(recipe, runs / "sft")
    compare_checkpoints(recipe, str(runs / "base"), str(runs / "sft"), runs / "report")
    return runs, recipe
