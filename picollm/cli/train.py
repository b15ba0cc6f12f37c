"""``picollm tokenizer``, ``pretrain`` and ``sft``: thin faces of the recipes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from picollm import paths
from picollm.cli.console import console, print_json, progress
from picollm.errors import InputError
from picollm.recipes.config import Recipe, load_recipe

ConfigPath = Annotated[Path, tyro.conf.arg(help="the recipe, a TOML file of configs/")]
DataRoot = Annotated[
    Path | None, tyro.conf.arg(help="a directory of data sets in the published Hugging Face layouts")
]
Json = Annotated[bool, tyro.conf.arg(help="print one JSON document about the result on stdout")]
PICO_CPU = Path("configs/pico-cpu.toml")


def read_recipe(config: Path, data_root: Path | None) -> Recipe:
    """Return the recipe of ``--config``. Raises InputError when it, or ``--data-root``, cannot be used."""
    if data_root is not None and not data_root.is_dir():
        raise InputError(
            f"--data-root {data_root} is not a directory; it should hold chat/, gsm8k/, mmlu/, ..."
        )
    return load_recipe(config)


def tokenizer(
    config: ConfigPath = PICO_CPU, data_root: DataRoot = None, out: Path | None = None, json: Json = False
) -> None:
    """Train a byte-level BPE tokenizer whose vocabulary has the control tokens of the chat format."""
    from picollm.recipes.tokenizer import train_tokenizer

    out = out or paths.home() / "tokenizer"
    summary = train_tokenizer(read_recipe(config, data_root), out, data_root=data_root, progress=progress())
    size, ratio = summary["vocab_size"], summary["bytes_per_token"]
    console.print(f"tokenizer -> {out}  {size:,} entries, {ratio:.2f} bytes a token", markup=False)
    if json:
        print_json(summary)


def pretrain(
    config: ConfigPath = PICO_CPU,
    data_root: DataRoot = None,
    tokenizer: Annotated[
        Path | None, tyro.conf.arg(help="directory of the tokenizer; default: runs/tokenizer")
    ] = None,
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Train a base model from scratch: next-token prediction on plain documents."""
    from picollm.recipes.pretrain import pretrain as run

    out = out or paths.home() / "base"
    tokenizer = tokenizer or paths.home() / "tokenizer"
    record = run(read_recipe(config, data_root), tokenizer, out, data_root=data_root, progress=progress())
    console.print(f"base model -> {out}  {_measured(record.measured)}", markup=False)
    if json:
        print_json(dataclasses.asdict(record))


def sft(
    config: ConfigPath = PICO_CPU,
    base: Annotated[str | None, tyro.conf.arg(help="pico-base (shipped), a directory, or a Hub id")] = None,
    data_root: DataRoot = None,
    out: Path | None = None,
    format: Annotated[
        str | None, tyro.conf.arg(help="chat format to teach: picollm, chatml, llama3, ...")
    ] = None,
    max_tokens: Annotated[int | None, tyro.conf.arg(help="longest conversation, in tokens")] = None,
    too_long: Annotated[str | None, tyro.conf.arg(help="a longer one: drop, raise or split")] = None,
    json: Json = False,
) -> None:
    """Fine-tune a base checkpoint on the recipe's mixture of conversations, assistant tokens only."""
    from picollm.recipes.sft import finetune

    recipe = read_recipe(config, data_root)
    part = recipe.sft
    changed = dataclasses.replace(
        part,
        base=base or part.base,
        format=format or part.format,
        max_tokens=max_tokens or part.max_tokens,
        too_long=too_long or part.too_long,
    )
    recipe = dataclasses.replace(recipe, sft=changed)
    out = out or paths.chat_checkpoint()
    record = finetune(recipe, out, data_root=data_root, progress=progress())
    console.print(f"chat model -> {out}  {_measured(record.measured)}", markup=False)
    if json:
        print_json(dataclasses.asdict(record))


def _measured(measured: dict[str, float]) -> str:
    return f"{measured.get('seconds', 0):,.0f} s, peak {measured.get('peak_rss_mib', 0):,.0f} MiB"
