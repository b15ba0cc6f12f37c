"""``picollm mixture``: what SFT is made of, by rows and by what the loss sees, and in which order."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from picollm import paths
from picollm.cli.console import console, print_json, print_table, progress
from picollm.cli.show import open_format
from picollm.cli.train import DataRoot, Json, read_recipe
from picollm.errors import InputError

if TYPE_CHECKING:
    from picollm.chat.format import ChatFormat
    from picollm.recipes.config import Recipe
    from picollm.recipes.conversations import Reading

_BAR_WIDTH = 40
Config = Annotated[
    Path, tyro.conf.Positional, tyro.conf.arg(help="the recipe, a TOML file or a shipped name")
]
Base = Annotated[str | None, tyro.conf.arg(help="whose tokenizer; default: the recipe's base")]
Workers = Annotated[int | None, tyro.conf.arg(help="processes that render; default: by the number of rows")]


def show(
    config: Config, data_root: DataRoot = None, base: Base = None, workers: Workers = None, json: Json = False
) -> None:
    """Show each source of a mixture: rows, tokens, supervised tokens, shares, hashes, tests it holds."""
    recipe, fmt, reading = _read(config, data_root, base, workers)
    document = summary(recipe, fmt, reading)
    _print_shares(document)
    _print_sources(document)
    if json:
        print_json(document)


def digest(
    config: Config,
    data_root: DataRoot = None,
    base: Base = None,
    batches: Annotated[int, tyro.conf.arg(help="how many of the first batches")] = 8,
    json: Json = False,
) -> None:
    """Print a hash over the first batches of a run: the same on every machine with the same data."""
    from picollm.train.batches import Batches

    if batches < 1:
        raise InputError(f"--batches is {batches}; expected at least 1.")
    recipe, _, reading = _read(config, data_root, base, None)
    stream = Batches(reading.examples, _batch_tokens(recipe), recipe.seed, reading.order(recipe))
    total = hashlib.sha256()
    for index in range(batches):
        batch = stream[index]
        for tensor in (batch.ids, batch.targets, batch.positions):
            total.update(tensor.numpy().tobytes())
    console.print(f"first {batches} batches: sha256 {total.hexdigest()}", markup=False)
    if json:
        print_json({"batches": batches, "sha256": total.hexdigest(), "examples": reading.examples.digest})


ACTIONS = {"show": show, "digest": digest}


def _batch_tokens(recipe: Recipe) -> int:
    return max(recipe.sft.batch_tokens, recipe.sft.max_tokens)


def _read(
    config: Path, data_root: Path | None, base: str | None, workers: int | None
) -> tuple[Recipe, ChatFormat, Reading]:
    from picollm.recipes.conversations import evaluation_tasks, open_source, read_mixture

    recipe = read_recipe(config, data_root)
    if not recipe.mixture:
        raise InputError(f"{config} has no [[mixture]] tables; there is nothing to show.")
    fmt = open_format(base or recipe.sft.base, recipe.sft.format)
    tasks = [open_source(source, source.split, recipe, data_root) for source in recipe.mixture]
    reading = read_mixture(
        recipe,
        tasks,
        fmt,
        recipe.sft.max_tokens,
        paths.home() / "cache",
        evaluations=evaluation_tasks(recipe, data_root),
        workers=workers,
        progress=progress(),
    )
    return recipe, fmt, reading


def summary(recipe: Recipe, fmt: ChatFormat, reading: Reading) -> dict[str, Any]:
    """Return what an epoch of the mixture is made of, as JSON values."""
    sources = [dict(each) for each in reading.provenance]
    for source, declared in zip(sources, recipe.mixture, strict=True):
        source["why"] = declared.why
        for name in ("examples", "tokens", "supervised_tokens"):
            source[f"seen_{name}"] = round(source[name] * source["epochs"])
    totals = {
        name: sum(s[f"seen_{name}"] for s in sources) for name in ("examples", "tokens", "supervised_tokens")
    }
    for source in sources:
        for name, total in totals.items():
            source[f"share_of_{name}"] = source[f"seen_{name}"] / total
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "format": fmt.name,
        "fingerprint": fmt.fingerprint,
        "shares": recipe.sft.shares,
        "sources": sources,
        "stages": [dataclasses.asdict(stage) for stage in recipe.stage],
        "epoch": totals,
        "examples_sha256": reading.examples.digest,
    }


def _print_shares(document: dict[str, Any]) -> None:
    header = ["source", "rows", "epochs", "seen", "share", "tokens", "supervised", "share"]
    rows = [
        [
            source["name"],
            f"{source['rows']:,}",
            f"{source['epochs']:.3g}",
            f"{source['seen_examples']:,}",
            f"{source['share_of_examples']:.1%}",
            f"{source['seen_tokens']:,}",
            f"{source['seen_supervised_tokens']:,}",
            f"{source['share_of_supervised_tokens']:.1%}",
        ]
        for source in document["sources"]
    ]
    epoch = document["epoch"]
    seen, tokens, supervised = (f"{epoch[name]:,}" for name in ("examples", "tokens", "supervised_tokens"))
    rows.append(["all", "", "", seen, "", tokens, supervised, ""])
    print_table(f"One epoch of {document['recipe']} as {document['format']}", header, rows)
    console.print()
    bars = (("examples", "rows", "blue"), ("supervised_tokens", "supervised tokens", "green"))
    for source in document["sources"]:
        for (key, told, color), name in zip(bars, (source["name"], ""), strict=True):
            share = source[f"share_of_{key}"]
            bar = "█" * max(1, round(share * _BAR_WIDTH))
            console.print(f"{name:14} {share:6.1%} [{color}]{bar}[/] {told}")
    for stage in document["stages"]:
        replay = f", {stage['replay']:.0%} replayed" if stage["replay"] else ""
        console.print(
            f"stage {stage['name']}: {', '.join(stage['sources'])}, {stage['epochs']} epochs{replay}",
            markup=False,
        )


def _print_sources(document: dict[str, Any]) -> None:
    console.print()
    for source in document["sources"]:
        steps = ", ".join(f"{count:,} {name}" for name, count in source["steps"].items())
        limits = f"  filter {source['filter']}" if source["filter"] else ""
        limits += f"  limit {source['limit']:,}" if source["limit"] else ""
        console.print(f"{source['name']}: {source['why']}", style="bold", markup=False)
        console.print(f"  {source['source']} ({source['split']}): {steps}{limits}", markup=False, style="dim")
        console.print(f"  sha256 {source['sha256']}", markup=False, style="dim")
        for each in source["overlap"]:
            found = f"{each['whole']} whole, {each['texts']} a text, {each['grams']} 13 words"
            told = f"  holds {each['found']} of {each['rows']} test rows of {each['file']}: {found}"
            console.print(told, markup=False, style="yellow")
    names = ", ".join(document["sources"][0]["compared_with"])
    console.print(f"compared with the test rows of {names}", markup=False, style="dim")
