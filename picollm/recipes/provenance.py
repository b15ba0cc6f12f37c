"""Are today's data what a checkpoint was trained on? Its record against the files as they lie there now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picollm.data.documents import open_corpus
from picollm.errors import InputError, PicoError
from picollm.recipes.config import Recipe, from_table
from picollm.recipes.conversations import describe, open_source
from picollm.record import Record


@dataclass(frozen=True)
class Finding:
    """One source of a checkpoint, and how its data differ from what the checkpoint saw, if they do."""

    name: str
    source: str
    differences: tuple[str, ...]


def verify_data(record: Record, data_root: Path | None) -> list[Finding]:
    """Return for every source in ``record`` how today's data differ, in the order of the record.

    Raises:
        InputError: The record names no data, or its recipe is not one this version can read.
    """
    if not record.data:
        raise InputError(
            f"the record of this {record.stage} checkpoint names no data; there is nothing to verify."
        )
    recipe = from_table(Recipe, _without_none(record.config), "the recipe in record.json")
    now = (
        _mixture(recipe, data_root)
        if record.stage == "sft"
        else _documents(recipe, data_root, len(record.data))
    )
    return [_compare(seen, found) for seen, found in zip(record.data, now, strict=True)]


def _mixture(recipe: Recipe, data_root: Path | None) -> list[dict[str, Any] | PicoError]:
    found: list[dict[str, Any] | PicoError] = []
    for source in recipe.mixture:
        try:
            found.append(describe(source, open_source(source, source.split, recipe, data_root)))
        except PicoError as error:
            found.append(error)
    return found


def _documents(recipe: Recipe, data_root: Path | None, count: int) -> list[dict[str, Any] | PicoError]:
    try:
        corpus = open_corpus(recipe.pretrain.sources, data_root=data_root, seed=recipe.seed, num_validation=1)
    except PicoError as error:
        return [error] * count
    return list(corpus.provenance)


def _compare(seen: Mapping[str, Any], now: Mapping[str, Any] | PicoError) -> Finding:
    name = str(seen.get("name") or seen.get("task") or seen["source"])
    if isinstance(now, PicoError):
        return Finding(name, seen["source"], (str(now),))
    found = []
    if now["sha256"] != seen["sha256"]:
        found.append(f"sha256 {now['sha256'][:12]}..., was {seen['sha256'][:12]}...")
    before, after = seen.get("files", {}), now.get("files", {})
    for file in sorted({*before, *after} if before else ()):
        if file not in after:
            found.append(f"{file} is missing")
        elif file not in before:
            found.append(f"{file} is new")
        elif before[file] != after[file]:
            found.append(f"{file} is {after[file][:12]}..., was {before[file][:12]}...")
    for step, rows in seen.get("steps", {}).items():
        if now["steps"].get(step) != rows:
            found.append(f"{now['steps'].get(step, 0):,} rows ({step}), was {rows:,}")
    return Finding(name, str(now["source"]), tuple(found))


def _without_none(value: Any) -> Any:
    """Return a recipe as TOML says it, in which a field that is left out is not there."""
    if isinstance(value, Mapping):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, list | tuple) else value
