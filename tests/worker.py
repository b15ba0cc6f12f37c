"""A process that saves a checkpoint over another and dies at a sync: run with a ``job`` that says which."""

from __future__ import annotations

import os
import signal

import torch

from picollm.checkpoint import Checkpoint

job: dict = globals()["job"]
torch.set_num_threads(1)
loaded = Checkpoint.load(job["place"])
with torch.no_grad():
    loaded.model.model.norm.weight.mul_(2)

synced, fsync = 0, os.fsync


def dying_fsync(descriptor: int) -> None:
    global synced
    synced += 1
    if synced == job["kill_at_sync"]:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)


os.fsync = dying_fsync
Checkpoint.save(job["place"], loaded.model, loaded.tokenizer, loaded.format, loaded.record)
