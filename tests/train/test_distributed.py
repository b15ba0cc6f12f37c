"""Several processes train what one does: the same losses and, but for the order of sums, the same weights."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

# Three batches a step: one process takes them whole, two and four divide each.
CONFIG = {"num_steps": 6, "tokens_per_step": 192, "precision": "fp32", "log_every": 1, "learning_rate": 3e-3}


def _train(
    start_worker: Callable, place: Path, size: int, shard: bool = False, **changes: object
) -> dict[str, torch.Tensor]:
    place.mkdir(exist_ok=True)
    job = {"config": {**CONFIG, **changes}, "run_dir": str(place), "out": str(place / "out.safetensors")}
    job["shard"] = shard
    (place / "store").unlink(missing_ok=True)
    workers = [
        start_worker(**job, size=size, rank=rank, rendezvous=str(place / "store")) for rank in range(size)
    ]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * size
    return load_file(place / "out.safetensors")


def test_one_two_and_four_processes_learn_the_same(tmp_path: Path, start_worker: Callable) -> None:
    one = _train(start_worker, tmp_path / "1", 1)
    assert one["curve"][0] > one["curve"][-1] > 0
    for size in (2, 4):
        many = _train(start_worker, tmp_path / str(size), size)
        for name, tensor in one.items():
            torch.testing.assert_close(many[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_of_two_processes_is_bit_identical(tmp_path: Path, start_worker: Callable) -> None:
    whole = _train(start_worker, tmp_path / "whole", 2)
    parts = tmp_path / "parts"
    job = {
        "config": {**CONFIG, "save_every": 2},
        "run_dir": str(parts),
        "out": str(tmp_path / "out.safetensors"),
    }
    for attempt, death in enumerate((14, math.inf)):
        store = str(tmp_path / f"store{attempt}")
        workers = [
            start_worker(
                **job, size=2, rank=rank, rendezvous=store, kill_at_sync=death if rank == 0 else None
            )
            for rank in range(2)
        ]
        workers[0].join()
        if workers[0].exitcode:
            workers[1].kill()
        workers[1].join()
    end = load_file(tmp_path / "out.safetensors")
    assert all(end[name].equal(tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_model_in_shards_learns_the_same_and_saves_whole_states(
    tmp_path: Path, start_worker: Callable, optimizer: str
) -> None:
    one = _train(start_worker, tmp_path / "1", 1, optimizer=optimizer)
    two = _train(start_worker, tmp_path / "2", 2, shard=True, optimizer=optimizer, save_every=3)
    near = 1e-5 if optimizer == "adamw" else 5e-4  # Muon turns matrices in bf16
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=near)
    (whole,) = (tmp_path / "1" / "state").glob("*/tensors.safetensors")
    halfway, shards = sorted((tmp_path / "2" / "state").glob("*/tensors.safetensors"))
    assert {n: t.shape for n, t in load_file(shards).items()} == {
        n: t.shape for n, t in load_file(whole).items()
    }
    shutil.rmtree(shards.parent)
    again = _train(start_worker, tmp_path / "2", 2, shard=True, optimizer=optimizer, save_every=3)
    assert all(again[name].equal(tensor) for name, tensor in two.items()) and halfway.exists()
