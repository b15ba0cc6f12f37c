"""Score one checkpoint on tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from picollm.checkpoint import Checkpoint
from picollm.errors import InputError
from picollm.eval.evaluate import evaluate
from picollm.eval.score import Score
from picollm.infer.engine import Engine
from picollm.progress import SILENT, Progress
from picollm.recipes.compare import locate
from picollm.tasks.registry import load_task


def evaluate_checkpoint(
    checkpoint: str,
    tasks: Sequence[str],
    *,
    data_root: Path | None = None,
    limit: int | None = None,
    form: Literal["chat", "completion"] = "chat",
    max_tokens: int = 256,
    seed: int = 0,
    progress: Progress = SILENT,
) -> list[Score]:
    """Return one score per task on its test rows.

    Raises:
        InputError: No task, an unknown one, a limit below 1, or chat form of a checkpoint without format.
        CheckpointError: The checkpoint cannot be loaded.
    """
    if not tasks:
        raise InputError("no task to score; expected names such as facts,gsm8k,mmlu.")
    opened = [load_task(name, "test", data_root=data_root) for name in tasks]
    loaded = Checkpoint.load(locate(checkpoint))
    if form == "chat" and loaded.format is None:
        raise InputError(
            f"{checkpoint} has no chat format, so it cannot be asked in chat form. "
            "Fine-tune it first, or pass --form completion."
        )
    engine = Engine(loaded, num_slots=32)
    return [
        evaluate(engine, task, limit=limit, form=form, seed=seed, max_tokens=max_tokens, progress=progress)
        for task in opened
    ]
