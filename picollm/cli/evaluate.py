"""``picollm eval`` and ``compare``: scores with intervals, and base versus SFT as a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from picollm import paths
from picollm.cli.chat import AllowMismatch, default_checkpoint
from picollm.cli.console import console, print_json, print_table, progress
from picollm.cli.train import PICO_CPU, ConfigPath, DataRoot, Json, read_recipe

if TYPE_CHECKING:
    from picollm.recipes.evaluate import Evaluation


def evaluate(
    checkpoint: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(help="default: runs/sft")] = None,
    tasks: Annotated[
        str,
        tyro.conf.arg(
            help="with commas: names, name=location, a .jsonl file, core (20 tasks), bits (bits per byte)"
        ),
    ] = "facts,identity,gsm8k,spelling,mmlu",
    data_root: DataRoot = None,
    limit: Annotated[int | None, tyro.conf.arg(help="at most this many questions per task")] = None,
    form: Annotated[
        Literal["chat", "completion"] | None,
        tyro.conf.arg(help="chat, or completion (a base model's own form); default: both for a base model"),
    ] = None,
    max_tokens: Annotated[int, tyro.conf.arg(help="longest reply, in tokens")] = 256,
    seed: int = 0,
    device: str = "cpu",
    agree: Annotated[
        bool, tyro.conf.arg(help="have transformers answer the same questions, and count differences")
    ] = False,
    allow_format_mismatch: AllowMismatch = False,
    json: Json = False,
) -> None:
    """Score a checkpoint on tasks, each with its 95 % interval and chance level."""
    from picollm.recipes.evaluate import evaluate_checkpoint

    found = evaluate_checkpoint(
        checkpoint or default_checkpoint(),
        [name.strip() for name in tasks.split(",") if name.strip()],
        data_root=data_root,
        limit=limit,
        form=form,
        max_tokens=max_tokens,
        seed=seed,
        device=device,
        agree=agree,
        allow_format_mismatch=allow_format_mismatch,
        progress=progress(),
    )
    if found is None:
        return  # another process of torchrun has the result
    _show(found)
    if json:
        print_json(found.to_dict())


def _show(found: Evaluation) -> None:
    """Show the scores as a table, and what they come to."""
    from picollm.eval.tables import NONE, percent, share

    rows = [
        (
            score.task,
            score.form,
            score.num,
            share(score),
            percent(score.chance) if score.chance else NONE,
            NONE if score.stop_rate is None else percent(score.stop_rate),
            f"{score.seconds:.1f} s",
        )
        for score in found.scores
    ]
    header = ("task", "form", "questions", "score", "chance", "stops", "time")
    if rows:
        print_table("% right (95% interval)", header, rows)
    for source, bits in found.bits.items():
        low, high = bits.interval
        console.print(f"{source}: {bits.value:.3f} bits per byte ({low:.3f}–{high:.3f})", markup=False)
    for name, value in (("ChatCORE", found.chat_core), ("CORE", found.core)):
        if value is not None:
            console.print(f"{name} {value:.3f}: the mean of the scores with chance at 0 and perfect at 1")
    for same in found.agreements:
        console.print(f"{same.task}: transformers answers {same.num_same} of {same.num} questions alike")
    for score in found.scores:
        if score.num_too_long:
            console.print(f"{score.task}: counted as wrong, too long for the context: {score.num_too_long}")
        if score.num_shortened:
            console.print(f"{score.task}: asked with fewer examples to fit: {score.num_shortened}")


def compare(
    base: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(help="pico-base (shipped), a directory or a Hub id")
    ],
    sft: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(help="default: runs/sft")] = None,
    config: ConfigPath = PICO_CPU,
    data_root: DataRoot = None,
    prompts: Annotated[Path | None, tyro.conf.arg(help="your own prompts, JSON lines")] = None,
    out: Annotated[Path | None, tyro.conf.arg(help="directory of the report; default: runs/report")] = None,
    allow_format_mismatch: AllowMismatch = False,
    json: Json = False,
) -> None:
    """Ask base and fine-tuned checkpoint the same questions, and write the report."""
    from picollm.eval.tables import terminal_tables
    from picollm.recipes.compare import compare_checkpoints

    out = out or paths.home() / "report"
    comparison = compare_checkpoints(
        read_recipe(config, data_root),
        base,
        sft or default_checkpoint(),
        out,
        prompts_file=prompts,
        data_root=data_root,
        allow_format_mismatch=allow_format_mismatch,
        progress=progress(),
    )
    for table in terminal_tables(comparison):
        print_table(table.title, table.header, table.rows)
    console.print(f"report -> {out / 'report.html'}", markup=False)
    if json:
        print_json(comparison.to_dict())
