"""Two processes score what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from picollm.recipes.config import Recipe

WORKER = """
import json, sys, torch.distributed as dist
from picollm.recipes.evaluate import evaluate_checkpoint
checkpoint, store, size, rank = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if size > 1:
    dist.init_process_group("gloo", init_method=f"file://{store}", world_size=size, rank=rank)
found = evaluate_checkpoint(checkpoint, ["mmlu", "facts"], limit=11, max_tokens=4)
print(json.dumps(found and found.to_dict()))
if size > 1:
    dist.destroy_process_group()
"""


def _run(story: tuple[Path, Recipe], place: Path, size: int) -> list[dict[str, object] | None]:
    place.mkdir()
    environment = {**os.environ, "PICOLLM_HOME": str(place), "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(story[0] / "sft"), str(place / "store"), str(size), str(rank)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        for rank in range(size)
    ]
    return [json.loads(worker.communicate()[0]) for worker in workers]


def test_two_processes_share_the_questions(story: tuple[Path, Recipe], tmp_path: Path) -> None:
    (one,) = _run(story, tmp_path / "one", 1)
    first, second = _run(story, tmp_path / "two", 2)
    assert second is None and one is not None and first is not None
    for alone, shared in zip(one["scores"], first["scores"], strict=True):  # type: ignore[arg-type]
        assert alone["num"] == shared["num"] == 11
        assert {**alone, "seconds": 0} == {**shared, "seconds": 0}
    assert not list((tmp_path / "two" / "eval").iterdir())
