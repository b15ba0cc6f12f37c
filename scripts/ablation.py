"""Leave-one-out over a recipe's mixture: what does each source do, at the same budget of tokens?

    .venv/bin/python -m scripts.ablation configs/real-cpu.toml --data-root DIR --tokens 1000000

Every run sees the same number of tokens, so leaving a source out means seeing more of the others. Finished
runs are skipped. ``scores.json`` has every score with its interval, ``heat.svg`` the differences to the full
mixture.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import tyro

from picollm.checkpoint import Checkpoint
from picollm.eval.evaluate import evaluate
from picollm.infer.engine import Engine
from picollm.recipes.config import Recipe, load_recipe
from picollm.recipes.sft import finetune
from picollm.tasks.registry import load_task


def without(recipe: Recipe, left_out: str | None, tokens: int) -> Recipe:
    """Return the recipe without one source, trained for ``tokens``."""
    mixture = tuple(source for source in recipe.mixture if source.label != left_out)
    train = dataclasses.replace(recipe.sft.train, epochs=None, num_steps=None, num_tokens=tokens)
    return dataclasses.replace(
        recipe, mixture=mixture, stage=(), sft=dataclasses.replace(recipe.sft, train=train)
    )


def main(
    config: tyro.conf.Positional[Path],
    data_root: Path | None = None,
    base: str | None = None,
    out: Path = Path("runs/ablation"),
    tokens: int = 1_000_000,
    limit: int = 200,
) -> None:
    """Train the full mixture and each leave-one-out, and score all of them on the recipe's tasks."""
    recipe = load_recipe(config)
    if base is not None:
        recipe = dataclasses.replace(recipe, sft=dataclasses.replace(recipe.sft, base=base))
    tasks = [load_task(name, "test", data_root=data_root, seed=recipe.seed) for name in recipe.compare.tasks]
    found: dict[str, dict[str, dict[str, object]]] = {}
    for left_out in [None, *(source.label for source in recipe.mixture)]:
        name = f"without_{left_out}" if left_out else "full"
        finetune(without(recipe, left_out, tokens), out / name, data_root=data_root)
        engine = Engine(Checkpoint.load(out / name), num_slots=32)
        scores = [
            evaluate(engine, task, limit=limit, seed=recipe.seed, max_tokens=recipe.compare.max_tokens)
            for task in tasks
        ]
        found[name] = {s.task: {"value": s.value, "interval": s.interval, "num": s.num} for s in scores}
        print(name, {task: f"{score['value']:.1%}" for task, score in found[name].items()}, flush=True)
    (out / "scores.json").write_text(json.dumps(found, indent=1))
    draw(found, out / "heat.svg")


def draw(found: dict[str, dict[str, dict[str, object]]], path: Path) -> None:
    """Draw the differences to the full mixture, in points: one row a run, one column a task."""
    from matplotlib.figure import Figure

    runs, tasks = [name for name in found if name != "full"], list(found["full"])
    points = [
        [100 * (float(str(found[r][t]["value"])) - float(str(found["full"][t]["value"]))) for t in tasks]
        for r in runs
    ]
    figure = Figure(figsize=(1.2 * len(tasks) + 2, 0.5 * len(runs) + 1.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(points, cmap="RdBu", vmin=-50, vmax=50, aspect="auto")
    axes.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right")
    axes.set_yticks(range(len(runs)), runs)
    for row, values in enumerate(points):
        for column, value in enumerate(values):
            axes.text(column, row, f"{value:+.0f}", ha="center", va="center", fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    tyro.cli(main)
