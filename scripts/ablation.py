"""Leave-one-out over a recipe's mixture: what does each source do, at the same budget of tokens?

    python -m scripts.ablation configs/ablation.toml --data-root DIR

Every run sees the same number of tokens, so leaving a source out means seeing more of the others. One more
run repeats the full mixture with another seed: what it moves is noise. Finished runs are skipped.
``scores.json`` has every score, every loss on unseen conversations, and their differences to the full
mixture with paired 95 % intervals; ``heat.png`` shows the differences.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from picollm.checkpoint import Checkpoint
from picollm.eval.bits import summed_losses
from picollm.eval.evaluate import choose, evaluate
from picollm.eval.score import bootstrap_interval, bootstrap_ratio_interval
from picollm.infer.engine import Engine
from picollm.recipes.config import Recipe, load_recipe
from picollm.recipes.rendering import sayable
from picollm.recipes.sft import finetune
from picollm.tasks.registry import load_task
from picollm.train.examples import Examples

FULL, AGAIN = "full", "full, another seed"
CHAT_ROWS, OTHER_ROWS = 300, 100
Measured = dict[str, dict[str, Any]]


def main(
    config: tyro.conf.Positional[Path],
    data_root: Path | None = None,
    base: str | None = None,
    out: Path = Path("runs/ablation"),
    tokens: int | None = None,
    same_rows: tuple[str, ...] = ("identity",),
) -> None:
    """Train the full mixture, twice, and each leave-one-out, and measure all of them.

    The sources ``same_rows`` are left out once more in a shorter run, which sees the other rows as often as
    the full mixture does: what does the source cost the others beside the room it takes?
    """
    recipe = load_recipe(config)
    if base is not None:
        recipe = dataclasses.replace(recipe, sft=dataclasses.replace(recipe.sft, base=base))
    runs = {FULL: partial(_for, recipe, tokens)}
    for source in recipe.mixture:
        runs[f"without {source.label}"] = partial(_for, recipe, tokens, source.label)
    for label in same_rows:
        runs[f"without {label}, same rows"] = partial(_same_rows, recipe, tokens, label, out / FULL)
    runs[AGAIN] = partial(_for, dataclasses.replace(recipe, seed=recipe.seed + 1), tokens)
    found: dict[str, Measured] = {}
    for name, make in runs.items():
        place = out / name.replace(", ", "_").replace(" ", "_")
        scores = place.with_suffix(".json")
        if not scores.exists():
            finetune(make(), place, data_root=data_root)
            scores.write_text(json.dumps(measure(recipe, place, data_root)), encoding="utf-8")
        found[name] = json.loads(scores.read_text(encoding="utf-8"))
        print(name, {task: f"{each['value']:.3f}" for task, each in found[name].items()}, flush=True)
        table = {
            run: {key: _compared(found[FULL][key], of_run[key]) for key in of_run}
            for run, of_run in found.items()
        }
        (out / "scores.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
        draw(table, out / "heat.png")


def _for(recipe: Recipe, tokens: int | None, left_out: str | None = None) -> Recipe:
    """Return the recipe without one source, trained for as many tokens as it says, or ``tokens``."""
    train = recipe.sft.train
    if tokens is not None:
        train = dataclasses.replace(train, epochs=None, num_steps=None, num_tokens=tokens)
    return dataclasses.replace(
        recipe,
        mixture=tuple(source for source in recipe.mixture if source.label != left_out),
        stage=(),
        sft=dataclasses.replace(recipe.sft, train=train),
    )


def _same_rows(recipe: Recipe, tokens: int | None, label: str, full: Path) -> Recipe:
    """Return the recipe without one source, for fewer tokens: it sees the other rows as often as ``full``."""
    tokens = tokens or recipe.sft.train.num_tokens
    if tokens is not None:
        sources = Checkpoint.load(full).record.data
        seen = {source["name"]: source["tokens"] * source["epochs"] for source in sources}
        tokens = round(tokens * (1 - seen[label] / sum(seen.values())))
    return _for(recipe, tokens, label)


def measure(recipe: Recipe, checkpoint: Path, data_root: Path | None) -> Measured:
    """Return which questions of each task are answered right, and the loss on each unseen conversation."""
    loaded = Checkpoint.load(checkpoint)
    engine, part, found = Engine(loaded, num_slots=32), recipe.compare, {}
    for name in part.tasks:
        task = load_task(name, "test", data_root=data_root, seed=recipe.seed)
        limit = part.limits.get(name, part.limit)
        score = evaluate(
            engine, task, limit=limit, seed=recipe.seed, max_tokens=part.max_tokens, num_failures=limit
        )
        wrong = {failure.index for failure in score.failures}
        right = [index not in wrong for index in choose(task, limit, recipe.seed)]
        found[name] = {"value": score.value, "interval": score.interval, "num": score.num, "right": right}
    for source in recipe.mixture:
        # The test questions about the identity name what a reply must hold, and have no reply.
        split = "validation" if source.task == "identity" else "test"
        task = load_task(
            source.task,
            split,
            data_root=data_root,
            location=source.location,
            filter=source.filter,
            limit=CHAT_ROWS if source.task == "smoltalk" else OTHER_ROWS,
            seed=recipe.seed,
        )
        found[f"{source.label} loss"] = _losses(loaded, [sayable(each, loaded.format) for each in task])
    return found


def _losses(checkpoint: Checkpoint, conversations: list[Any]) -> dict[str, Any]:
    """Return the loss in nats per assistant token, and what each conversation adds to it."""
    examples = Examples()
    for rendered in checkpoint.format.render_batch(conversations):
        if len(rendered.ids) <= checkpoint.model.config.max_position_embeddings:
            examples.append(rendered)
    losses = summed_losses(checkpoint.model, examples, title="loss")
    tokens = [examples.num_targets_of(np.array([index])) for index in range(len(examples))]
    interval = bootstrap_ratio_interval(losses, tokens)
    return {"value": sum(losses) / sum(tokens), "interval": interval, "num": len(losses), "losses": losses}


def _compared(full: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return a measurement with its difference to the full mixture: in points, or of a loss as a share."""
    shown = {key: other[key] for key in ("value", "interval", "num")}
    if "right" in other:
        pairs = zip(other["right"], full["right"], strict=True)
        change = [100 * (int(now) - int(before)) for now, before in pairs]
        return {**shown, "points": float(np.mean(change)), "points_interval": bootstrap_interval(change)}
    ratio = sum(other["losses"]) / sum(full["losses"])
    low, high = bootstrap_ratio_interval(other["losses"], full["losses"])
    return {**shown, "percent": 100 * (ratio - 1), "percent_interval": (100 * (low - 1), 100 * (high - 1))}


def draw(table: Mapping[str, Measured], path: Path) -> None:
    """Draw the differences to the full mixture, a row a run; bold where the interval excludes none."""
    from matplotlib.figure import Figure

    runs = [name for name in table if name != FULL]
    if not runs:
        return
    tasks = [name for name in table[FULL] if "points" in table[FULL][name]]
    losses = [name for name in table[FULL] if "percent" in table[FULL][name]]
    figure = Figure(
        figsize=(0.85 * (len(tasks) + len(losses)) + 2.5, 0.42 * len(runs) + 2.2), layout="constrained"
    )
    left, right = figure.subplots(1, 2, width_ratios=[len(tasks), len(losses)], sharey=True)
    _panel(left, table, runs, tasks, "points", "right answers: difference in points")
    _panel(right, table, runs, losses, "percent", "loss on unseen replies: difference in %")
    figure.savefig(path, dpi=110)


def _panel(
    axes: Any, table: Mapping[str, Measured], runs: list[str], columns: list[str], unit: str, title: str
) -> None:
    values = np.array([[table[run][column][unit] for column in columns] for run in runs])
    # A point lost and a loss that grew are both red; a loss that doubled is as red as fifty points.
    shade = values / 50 if unit == "points" else -np.log2(1 + values / 100)
    axes.imshow(shade, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    full = table[FULL]
    named = [
        f"{c.removesuffix(' loss')}\n{100 * full[c]['value']:.0f}%"
        if unit == "points"
        else f"{c.removesuffix(' loss')}\n{full[c]['value']:.2f}"
        for c in columns
    ]
    axes.set_xticks(range(len(columns)), named, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(runs)), runs, fontsize=9)
    axes.set_title(f"{title}\n(below: the full mixture's value)", fontsize=9)
    for (row, column), value in np.ndenumerate(values):
        low, high = table[runs[row]][columns[column]][f"{unit}_interval"]
        sure = low > 0 or high < 0
        dark = abs(shade[row, column]) > 0.6 and math.isfinite(value)
        axes.text(
            column,
            row,
            f"{value:+.0f}" if abs(value) >= 9.5 or unit == "points" else f"{value:+.1f}",
            ha="center",
            va="center",
            fontsize=8,
            weight="bold" if sure else "normal",
            color="white" if dark else "black",
        )


if __name__ == "__main__":
    tyro.cli(main)
