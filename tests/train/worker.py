"""A training process of the tests: run with a ``job`` of what to train, where, and when to die."""

from __future__ import annotations

import os
import runpy
import signal
import threading
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from picollm.train.batches import Batches
from picollm.train.config import TrainConfig
from picollm.train.loop import train

job: dict = globals()["job"]
small = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
torch.set_num_threads(1)

if job.get("kill_after_s") is not None:
    threading.Timer(job["kill_after_s"], os.kill, [os.getpid(), signal.SIGKILL]).start()

if job.get("kill_at_sync") is not None:
    # A save is a series of fsyncs and renames; dying at each of them is dying anywhere in a save.
    synced, fsync = 0, os.fsync

    def dying_fsync(descriptor: int) -> None:
        global synced
        synced += 1
        if synced == job["kill_at_sync"]:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = dying_fsync

size = job.get("size", 1)
if size > 1:
    store = f"file://{job['rendezvous']}"
    dist.init_process_group("gloo", init_method=store, rank=job["rank"], world_size=size)

model = small["make_model"]()
batches = Batches(small["make_examples"](), job.get("max_tokens", 64), seed=3)
result = train(
    model, batches, TrainConfig(**job["config"]), run_dir=Path(job["run_dir"]), shard=job.get("shard", False)
)
if job.get("rank", 0) == 0:
    curve = torch.tensor([point["loss"] for point in result.curve], dtype=torch.float64)
    save_file({**model.state_dict(), "curve": curve}, job["out"])
if size > 1:
    dist.destroy_process_group()
