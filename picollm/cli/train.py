"""``picollm tokenizer``, ``pretrain`` and ``sft``: thin faces of the recipes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro

from picollm import paths
from picollm.cli.chat import AllowMismatch
from picollm.cli.console import console, print_json, progress
from picollm.errors import InputError
from picollm.model.lora_config import Lora
from picollm.recipes.config import Recipe, SftRecipe, load_recipe
from picollm.train.config import TrainConfig

if TYPE_CHECKING:
    from picollm.record import Record

ConfigPath = Annotated[Path, tyro.conf.arg(help="the recipe: a TOML file, or the name of a shipped one")]
DataRoot = Annotated[
    Path | None, tyro.conf.arg(help="a directory of data sets in the published Hugging Face layouts")
]
Json = Annotated[bool, tyro.conf.arg(help="print one JSON document about the result on stdout")]
SaveEvery = Annotated[int | None, tyro.conf.arg(help="steps between saved training states")]
ValidateEvery = Annotated[int | None, tyro.conf.arg(help="steps between validations")]
Track = Annotated[str | None, tyro.conf.arg(help="send metrics to wandb or trackio too")]
Shard = Annotated[str | None, tyro.conf.arg(help="full: spread the model over all processes (FSDP2)")]
Precision = Annotated[str | None, tyro.conf.arg(help="what the model computes in: auto, fp32 or bf16")]
Device = Annotated[str | None, tyro.conf.arg(help="cpu, cuda or mps; default: the recipe's")]
Compile = Annotated[bool, tyro.conf.arg(help="compile the layers with torch.compile; for GPUs")]
PICO_CPU = Path("pico-cpu")
Settings = TypeVar("Settings", SftRecipe, TrainConfig)


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
    save_every: SaveEvery = None,
    validate_every: ValidateEvery = None,
    precision: Precision = None,
    device: Device = None,
    compile: Compile = False,
    track: Track = None,
    shard: Shard = None,
    json: Json = False,
) -> None:
    """Train a base model from scratch: next-token prediction on plain documents."""
    from picollm.recipes.pretrain import pretrain as run

    recipe = read_recipe(config, data_root)
    out = out or paths.home() / "base"
    tokenizer = tokenizer or paths.home() / "tokenizer"
    hardware = {"precision": precision, "device": device, "compile": compile or None}
    schedule = _changed(
        recipe.pretrain.train, save_every=save_every, validate_every=validate_every, **hardware
    )
    part = dataclasses.replace(recipe.pretrain, train=schedule)
    recipe = dataclasses.replace(recipe, pretrain=part)
    record = run(
        recipe, tokenizer, out, data_root=data_root, progress=progress(), track=track, shard=_sharded(shard)
    )
    _report("base model", out, record, json)


def sft(
    base: Annotated[
        str | None, tyro.conf.arg(help="pico-base (shipped), a directory, or a Hub id; default: the recipe's")
    ] = None,
    format: Annotated[
        str | None, tyro.conf.arg(help="chat format to teach: picollm, chatml, llama3, ...")
    ] = None,
    config: ConfigPath = PICO_CPU,
    out: Annotated[Path | None, tyro.conf.arg(help="the chat model; default: runs/sft")] = None,
    learning_rate: Annotated[float | None, tyro.conf.arg(help="its peak; default: the recipe's")] = None,
    epochs: Annotated[float | None, tyro.conf.arg(help="passes over the mixture")] = None,
    data_root: DataRoot = None,
    max_tokens: Annotated[int | None, tyro.conf.arg(help="longest conversation, in tokens")] = None,
    too_long: Annotated[str | None, tyro.conf.arg(help="a longer one: drop, raise or split")] = None,
    tokens_per_step: Annotated[int | None, tyro.conf.arg(help="tokens of a step, over all processes")] = None,
    save_every: SaveEvery = None,
    validate_every: ValidateEvery = None,
    keep: Annotated[
        str | None, tyro.conf.arg(help="weights to end with: last, or best by validation")
    ] = None,
    lora_rank: Annotated[int | None, tyro.conf.arg(help="train a LoRA adapter of this rank")] = None,
    lora_alpha: Annotated[float | None, tyro.conf.arg(help="its weight; default: twice the rank")] = None,
    lora_targets: Annotated[str | None, tyro.conf.arg(help="its matrices: q_proj,v_proj,...")] = None,
    precision: Precision = None,
    device: Device = None,
    compile: Compile = False,
    track: Track = None,
    shard: Shard = None,
    allow_format_mismatch: AllowMismatch = False,
    json: Json = False,
) -> None:
    """Fine-tune a base checkpoint on the recipe's mixture of conversations, assistant tokens only."""
    from picollm.recipes.sft import finetune

    recipe = read_recipe(config, data_root)
    part = recipe.sft
    steps: dict[str, Any] = {
        "learning_rate": learning_rate,
        "tokens_per_step": tokens_per_step,
        "save_every": save_every,
        "validate_every": validate_every,
        "precision": precision,
        "device": device,
        "compile": compile or None,
    }
    horizon: dict[str, Any] = (
        {} if epochs is None else {"epochs": epochs, "num_tokens": None, "num_steps": None}
    )
    schedule = dataclasses.replace(_changed(part.train, keep=keep, **steps), **horizon)
    part = _changed(part, base=base, format=format, max_tokens=max_tokens, too_long=too_long, train=schedule)
    part = dataclasses.replace(part, lora=_lora(part.lora, lora_rank, lora_alpha, lora_targets))
    recipe = dataclasses.replace(recipe, sft=part)
    out = out or paths.chat_checkpoint()
    record = finetune(
        recipe,
        out,
        data_root=data_root,
        progress=progress(),
        track=track,
        shard=_sharded(shard),
        allow_format_mismatch=allow_format_mismatch,
    )
    _report("chat model" if part.lora is None else "adapter", out, record, json)


def _changed(part: Settings, **given: Any) -> Settings:
    """Return ``part`` with every field replaced that was given on the command line."""
    wanted = {name: value for name, value in given.items() if value is not None}
    for name, value in wanted.items():
        kind = get_type_hints(type(part))[name]
        if get_origin(kind) is Literal and value not in get_args(kind):
            legal = ", ".join(get_args(kind))
            raise InputError(f"--{name.replace('_', '-')} is {value!r}; expected one of {legal}.")
    return dataclasses.replace(part, **wanted)


def _sharded(given: str | None) -> bool:
    if given not in (None, "full"):
        raise InputError(f"--shard is {given!r}; expected full, or leave it out.")
    return given == "full"


def _lora(known: Lora | None, rank: int | None, alpha: float | None, targets: str | None) -> Lora | None:
    if rank is None and known is None:
        if alpha is not None or targets is not None:
            raise InputError("--lora-alpha and --lora-targets change an adapter; add --lora-rank, usually 8.")
        return None
    known_rank = (known or Lora()).rank
    rank = known_rank if rank is None else rank
    wanted = tuple(name.strip() for name in targets.split(",")) if targets else (known or Lora()).targets
    if alpha is None:
        alpha = 2.0 * rank if known is None else known.alpha
    return Lora(rank, alpha, wanted)


def _report(what: str, out: Path, record: Record, json: bool) -> None:
    """Say where the result lies; of several processes, the first one does."""
    if paths.environment("RANK") in (None, "0"):
        console.print(f"{what} -> {out}  {_measured(record.measured)}", markup=False)
        if json:
            print_json(dataclasses.asdict(record))


def _measured(measured: dict[str, float]) -> str:
    return f"{measured.get('seconds', 0):,.0f} s, peak {measured.get('peak_rss_mib', 0):,.0f} MiB"
