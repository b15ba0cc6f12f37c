"""Fine-tune a recipe once for every value of a few settings, and compare the losses on held-out rows.

    .venv/bin/python -m scripts.sweep configs/real-cpu.toml --data-root DIR --vary learning_rate=3e-4,1e-3

One setting changes at a time; the recipe's own values are the first run. Finished runs are skipped. What
counts is the mean over the sources of the loss on their validation rows, never a test split. ``sweep.json``
has the losses of every source after every validation.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import tyro

from picollm.errors import DivergedError, InputError
from picollm.recipes.config import Recipe, from_table, load_recipe
from picollm.recipes.sft import finetune
from picollm.train.config import TrainConfig
from picollm.train.metrics import Point


def changed(recipe: Recipe, name: str, value: Any) -> Recipe:
    """Return the recipe with one setting of its SFT replaced; an unknown one is an InputError."""
    table = {k: v for k, v in dataclasses.asdict(recipe.sft.train).items() if v is not None}
    train = from_table(TrainConfig, {**table, name: value}, "--vary")
    return dataclasses.replace(recipe, sft=dataclasses.replace(recipe.sft, train=train))


def settings(vary: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Return the pairs of a name and a value in ``name=value,value``."""
    found = []
    for each in vary:
        name, _, values = each.partition("=")
        if not values:
            raise InputError(f"--vary {each!r}; expected name=value,value, such as learning_rate=3e-4,1e-3.")
        for text in values.split(","):
            try:
                found.append((name, json.loads(text)))
            except ValueError:
                found.append((name, text))  # the name of a schedule
    return found


def mean_loss(point: Point) -> float:
    """Return the mean over the sources of the validation losses of one record, in nats a token."""
    losses = [v for name, v in point.items() if name.startswith("validation/") and "bits" not in name]
    return sum(losses) / len(losses)


def main(
    config: tyro.conf.Positional[Path],
    vary: tuple[str, ...],
    data_root: Path | None = None,
    base: str | None = None,
    out: Path = Path("runs/sweep"),
) -> None:
    """Train and print one line a run: its setting, the mean validation loss, and that of every source."""
    recipe = load_recipe(config)
    if base is not None:
        recipe = dataclasses.replace(recipe, sft=dataclasses.replace(recipe.sft, base=base))
    runs = {"recipe": recipe} | {f"{n}={v}": changed(recipe, n, v) for n, v in settings(vary)}
    found: dict[str, list[Point]] = {}
    for name, each in runs.items():
        try:
            curve = finetune(each, out / name, data_root=data_root).curve
        except DivergedError as error:
            print(f"{name:28} diverged: {error}", flush=True)
            continue
        found[name] = [point for point in curve if any(key.startswith("validation/") for key in point)]
        last = found[name][-1]
        sources = {k.removeprefix("validation/"): f"{v:.3f}" for k, v in last.items() if "validation/" in k}
        print(f"{name:28} {mean_loss(last):.4f}  {sources}", flush=True)
        (out / "sweep.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
