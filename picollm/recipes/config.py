"""A recipe: everything a run of the story depends on, as one frozen value read from one TOML file.

``pretrain``, ``sft`` and ``compare`` each read their own table; ``[[mixture]]`` tables say what SFT is
made of and why. A key nobody reads is an error, never ignored.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from picollm import paths
from picollm.data.mixture import CurriculumStage, Source, check_mixture
from picollm.errors import InputError, nearest
from picollm.model.lora_config import Lora
from picollm.train.config import TrainConfig

TOO_LONG = ("drop", "raise", "split")
T = TypeVar("T")


@dataclass(frozen=True)
class TokenizerRecipe:
    """The tokenizer of a model trained from scratch."""

    vocab_size: int = 2048
    """Entries, control tokens included."""
    num_documents: int = 20_000
    """How many pretraining documents it is trained on."""


@dataclass(frozen=True)
class ModelShape:
    """The Transformer of a model trained from scratch (``Qwen3ForCausalLM``), in Hugging Face's names."""

    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 1024
    """The longest sequence the model is meant to see, in tokens."""


@dataclass(frozen=True)
class PretrainRecipe:
    """Base training on plain documents."""

    sources: tuple[str, ...] = ("primer",)
    """``primer`` (the offline generator); or folders of files with a ``text`` column, below --data-root, and
    ``hub:org/name@revision``."""
    num_validation_documents: int = 500
    batch_tokens: int = 4096
    """Tokens computed at once; ``train.tokens_per_step`` may be a multiple of it."""
    shape: ModelShape = ModelShape()
    train: TrainConfig = field(default_factory=lambda: TrainConfig(num_tokens=1_000_000))
    """``num_tokens`` is how many tokens the run sees; the documents repeat when they are fewer."""


@dataclass(frozen=True)
class SftRecipe:
    """Supervised fine-tuning on the mixture."""

    base: str = "pico-base"
    """The base checkpoint: ``pico-base`` (shipped), a directory, or a Hub id."""
    format: str = "picollm"
    """The chat format the checkpoint is taught, and from then on served in."""
    max_tokens: int = 1024
    """The longest conversation kept whole."""
    too_long: str = "drop"
    """What happens to a longer one: drop, raise or split (at a turn boundary); always counted."""
    num_validation_rows: int = 64
    """Held-out rows of each source that the validation loss is measured on."""
    batch_tokens: int = 4096
    """Tokens computed at once, in whole conversations."""
    shares: Literal["rows", "supervised_tokens"] = "rows"
    """What a mixture source's ``share`` is a share of."""
    lora: Lora | None = None
    """Train low-rank updates of frozen matrices, and save them alone, in PEFT's layout."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=1.0))

    def __post_init__(self) -> None:
        if self.too_long not in TOO_LONG:
            raise InputError(f"too_long is {self.too_long!r}; {nearest(self.too_long, TOO_LONG)}")
        for name in ("max_tokens", "num_validation_rows", "batch_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 1 or more.")


@dataclass(frozen=True)
class CompareRecipe:
    """The base-versus-SFT comparison."""

    tasks: tuple[str, ...] = ("facts", "identity", "gsm8k", "spelling", "spelling_bee", "mmlu")
    limit: int = 150
    """Questions per task."""
    limits: dict[str, int] = field(default_factory=dict)
    """Questions of single tasks, in place of ``limit``."""
    base_limit: int = 50
    """Questions per task for the base model in chat form, which answers none of them and never stops."""
    max_tokens: int = 96
    """The longest reply, in tokens."""
    num_documents: int = 100
    """Held-out documents that bits per byte is measured on."""


@dataclass(frozen=True)
class Recipe:
    """One TOML file of ``configs``."""

    name: str = "recipe"
    why: str = ""
    seed: int = 1
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    pretrain: PretrainRecipe = PretrainRecipe()
    sft: SftRecipe = SftRecipe()
    mixture: tuple[Source, ...] = field(default=())
    stage: tuple[CurriculumStage, ...] = field(default=())
    """A curriculum: the epochs of SFT one after the other, in place of ``sft.train.epochs``."""
    compare: CompareRecipe = CompareRecipe()

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; expected 0 or more.")
        check_mixture(self.mixture, self.stage)


def load_recipe(path: Path) -> Recipe:
    """Read the recipe at ``path``; the shipped ones also answer to their name, such as ``pico-cpu``.

    Raises:
        InputError: The file is missing, is not TOML, or has a key or a value no recipe has (named, with the
            nearest legal one).
    """
    shipped = paths.CONFIGS / f"{path.stem}.toml"
    named = not path.is_file() and path in (Path(path.stem), Path("configs", shipped.name))
    try:
        table = tomllib.loads((shipped if named and shipped.is_file() else path).read_text(encoding="utf-8"))
    except OSError as error:
        names = ", ".join(sorted(file.stem for file in paths.CONFIGS.glob("*.toml")))
        raise InputError(
            f"cannot read the recipe {path}: {error.strerror}. Expected a TOML file, or one of {names}."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a TOML file: {error}.") from error
    return from_table(Recipe, table, str(path))


def from_table(kind: type[T], table: dict[str, Any], where: str) -> T:
    """Build the dataclass ``kind`` from a TOML table; ``where`` names the place in error messages."""
    hints = typing.get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise InputError(f"{where}: no key {key!r} here; {nearest(key, sorted(hints))}")
    return kind(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
        return _value(kind, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise InputError(f"{where} is {value!r}; expected a list.")
        item = typing.get_args(kind)[0]
        return tuple(_value(item, entry, f"{where}[{index}]") for index, entry in enumerate(value))
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise InputError(
                f"{where} is {value!r}; expected one of {', '.join(map(repr, typing.get_args(kind)))}."
            )
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise InputError(f"{where} is {value!r}; expected a table.")
        return from_table(kind, value, where)
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(kind, type) and type(value) is not kind:
        raise InputError(f"{where} is {value!r}; expected {kind.__name__}.")
    return value
