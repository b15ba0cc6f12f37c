"""One of several processes that fine-tune together: run with a ``job`` that says which, and where."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from picollm.recipes.sft import finetune

job: dict = globals()["job"]
torch.set_num_threads(1)
dist.init_process_group(
    "gloo", init_method=f"file://{job['store']}", rank=job["rank"], world_size=job["size"]
)
finetune(job["recipe"], Path(job["out"]))
dist.destroy_process_group()
