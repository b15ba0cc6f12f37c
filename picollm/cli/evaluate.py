"""``picollm eval`` and ``compare``: scores with intervals, and base versus SFT as a report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from picollm import paths
from picollm.cli.console import console, print_json, print_table, progress
from picollm.cli.train import PICO_CPU, ConfigPath, DataRoot, Json, read_recipe


def evaluate(
    checkpoint: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(help="default: runs/sft")] = None,
    tasks: Annotated[
        str, tyro.conf.arg(help="task names with commas")
    ] = "facts,identity,gsm8k,spelling,mmlu",
    data_root: DataRoot = None,
    limit: Annotated[int | None, tyro.conf.arg(help="at most this many questions per task")] = None,
    form: Annotated[
        Literal["chat", "completion"], tyro.conf.arg(help="chat, or completion: a base model's own form")
    ] = "chat",
    max_tokens: Annotated[int, tyro.conf.arg(help="longest reply, in tokens")] = 256,
    seed: int = 0,
    json: Json = False,
) -> None:
    """Score a checkpoint on tasks, each with its 95 % interval and chance level."""
    from picollm.recipes.evaluate import evaluate_checkpoint

    scores = evaluate_checkpoint(
        checkpoint or str(paths.chat_checkpoint()),
        [name.strip() for name in tasks.split(",") if name.strip()],
        data_root=data_root,
        limit=limit,
        form=form,
        max_tokens=max_tokens,
        seed=seed,
        progress=progress(),
    )
    from picollm.eval.tables import NONE, percent, share

    rows = [
        (
            score.task,
            score.num,
            share(score),
            percent(score.chance) if score.chance else NONE,
            NONE if score.stop_rate is None else percent(score.stop_rate),
            f"{score.seconds:.1f} s",
        )
        for score in scores
    ]
    print_table("% right (95% interval)", ("task", "questions", "score", "chance", "stops", "time"), rows)
    if json:
        print_json([dataclasses.asdict(score) for score in scores])


def compare(
    base: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(help="pico-base (shipped), a directory or a Hub id")
    ],
    sft: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(help="default: runs/sft")] = None,
    config: ConfigPath = PICO_CPU,
    data_root: DataRoot = None,
    prompts: Annotated[Path | None, tyro.conf.arg(help="your own prompts, JSON lines")] = None,
    out: Annotated[Path | None, tyro.conf.arg(help="directory of the report; default: runs/report")] = None,
    json: Json = False,
) -> None:
    """Ask base and fine-tuned checkpoint the same questions, and write the report."""
    from picollm.eval.tables import terminal_tables
    from picollm.recipes.compare import compare_checkpoints

    out = out or paths.home() / "report"
    comparison = compare_checkpoints(
        read_recipe(config, data_root),
        base,
        sft or str(paths.chat_checkpoint()),
        out,
        prompts_file=prompts,
        data_root=data_root,
        progress=progress(),
    )
    for table in terminal_tables(comparison):
        print_table(table.title, table.header, table.rows)
    console.print(f"report -> {out / 'report.html'}", markup=False)
    if json:
        print_json(comparison.to_dict())
