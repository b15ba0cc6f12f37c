"""A checkpoint: one directory that Hugging Face tools open, plus ``record.json``.

::

    config.json                 the model's shape             model.safetensors       its weights
    tokenizer.json, tokenizer_config.json, chat_template.jinja    how text becomes ids
    generation_config.json      where a reply ends            record.json             how all this was made

The chat format is part of the checkpoint: its record is stored at saving, rebuilt and compared at loading. A
directory whose format is not the one installed does not load, because a model that is spoken to in a
format it was not trained in looks much worse than it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from picollm import adapter
from picollm.chat.format import ChatFormat
from picollm.errors import CheckpointError, FormatMismatchError, InputError
from picollm.files import (
    RECORD,
    TEMPLATE,
    check_files,
    check_replaceable,
    fingerprint,
    read_json,
    read_text,
    write_json,
)
from picollm.hub import resolve
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.paths import atomic_directory
from picollm.record import Record, verify
from picollm.tokenizer import Tokenizer
from picollm.weights import grow_embeddings, read_model, weight_files, write_model

__all__ = ["Checkpoint", "Record", "grow_embeddings", "verify"]

_FORMAT_FILES = ("tokenizer.json", TEMPLATE)
_ODD_VALUES = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)
_CONSEQUENCES = ("chat_template_sha256", "fingerprint", "golden")


@dataclass(frozen=True)
class Checkpoint:
    """A model with all that is needed to speak with it; ``format`` is None for a foreign base model."""

    model: Model
    tokenizer: Tokenizer
    format: ChatFormat | None
    record: Record
    path: Path

    @classmethod
    def load(
        cls,
        location: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        allow_format_mismatch: bool = False,
        verify: bool = True,
    ) -> Checkpoint:
        """Return the checkpoint in a directory, or under a Hugging Face Hub id, which is downloaded first.

        Weights become ``dtype`` on ``device``; on a CPU, in the dtype of the file, they stay mapped from it.
        ``verify=False`` trusts the checksum of the weight files and compares their sizes only.

        Raises:
            CheckpointError: something is missing, damaged, altered, or of an architecture we do not run.
            FormatMismatchError: it was trained in a chat format that is not the installed one, unless
                ``allow_format_mismatch``; the loaded record then names what differed.
            UnavailableError: the Hub could not be reached.
        """
        path = resolve(location, revision)
        if (path / adapter.CONFIG).is_file():
            return cls._load_adapter(path, dtype, device, revision, allow_format_mismatch)
        record = Record.of(path)
        weights = {name: file for name, file in record.files.items() if name.endswith(".safetensors")}
        # What decides the format has an error of its own, which says what differs.
        exempt = {*weights, *(() if record.format is None else _FORMAT_FILES)}
        check_files(path, {name: file for name, file in record.files.items() if name not in exempt})
        with ThreadPoolExecutor(1) as background:
            checked = background.submit(check_files, path, weights, hashed=verify)
            try:
                config = _read_config(path)
                tokenizer = _read_tokenizer(path, config)
                differing, chat_format = _rebuild_format(path, record, tokenizer)
                if differing and not allow_format_mismatch:
                    raise FormatMismatchError(
                        f"{path}: {differing}. Retrain it, or pass --allow-format-mismatch."
                    )
                model = read_model(path, config, dtype, torch.device(device))
            finally:
                checked.result()  # that weights were altered says more than what reading made of them
        if differing:
            record = replace(record, allowed_mismatch=[*record.allowed_mismatch, differing])
        return cls(model, tokenizer, chat_format, record, path)

    @classmethod
    def _load_adapter(
        cls,
        path: Path,
        dtype: torch.dtype,
        device: str | torch.device,
        revision: str | None,
        allow_format_mismatch: bool,
    ) -> Checkpoint:
        """Return the base that an adapter names, with the adapter merged in and its own tokenizer."""
        record = Record.of(path)
        check_files(path, record.files)
        lora, place = adapter.read_adapter_config(path)
        base = cls.load(place, device=device, revision=revision, allow_format_mismatch=allow_format_mismatch)
        expected = (record.parent or {}).get("sha256", base.weights_sha256)
        if base.weights_sha256 != expected:
            raise CheckpointError(f"{path} was trained on other weights than {place} holds now.")
        tokenizer = _read_tokenizer(path, base.model.config)
        differing, chat_format = _rebuild_format(path, record, tokenizer)
        if differing and not allow_format_mismatch:
            raise FormatMismatchError(f"{path}: {differing}. Retrain it, or pass --allow-format-mismatch.")
        model = adapter.merged(base.model, path, lora).to(dtype)
        return cls(model, tokenizer, chat_format or base.format, record, path)

    @property
    def weights_sha256(self) -> str:
        """The SHA-256 over the weight files: which weights a model that starts from here descends from."""
        total = hashlib.sha256()
        for file in weight_files(self.path):
            known = self.record.files.get(file.name) or fingerprint(file)
            total.update("".join(known["sha256"]).encode())
        return total.hexdigest()

    @staticmethod
    def save(
        directory: str | Path,
        model: Model,
        tokenizer: Tokenizer,
        format: ChatFormat | None,
        record: Record,
        dtype: torch.dtype | None = None,
    ) -> Record:
        """Write a complete checkpoint to ``directory``, or nothing; return the record as it was written.

        A previous checkpoint there is replaced in one step. ``dtype`` converts the weights on their way.

        Raises:
            InputError: ``directory`` holds something that is no checkpoint, or the tokenizer does not fit.
            UnavailableError: no room on the disk, or no permission.
        """
        target = Path(directory)
        check_replaceable(target)
        _check_tokenizer(target, tokenizer, model.config)
        with atomic_directory(target) as place:
            write_model(place, model, dtype)
            ends = _special_ids(format)
            stored = dtype or model.lm_head_weight.dtype
            settings = {**model.config.to_hf(), **ends, "torch_dtype": str(stored).removeprefix("torch.")}
            write_json(place / "config.json", settings)
            write_json(place / "generation_config.json", ends)
            tokenizer.save(
                place,
                **_special_names(tokenizer, ends),
                model_max_length=model.config.max_position_embeddings,
            )
            if format is not None:
                (place / TEMPLATE).write_text(format.chat_template, encoding="utf-8")
            files = {file.name: fingerprint(file) for file in sorted(place.iterdir())}
            record = replace(record, files=files, format=None if format is None else format.to_record())
            (place / RECORD).write_text(record.to_json(), encoding="utf-8")
        return record


def _read_config(path: Path) -> ModelConfig:
    found = read_json(path / "config.json")
    try:
        return ModelConfig.from_hf(found)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except _ODD_VALUES as error:
        raise CheckpointError(f"{path}: config.json holds a value of the wrong kind ({error}).") from error


def _read_tokenizer(path: Path, config: ModelConfig) -> Tokenizer:
    try:
        tokenizer = Tokenizer.load(path)
        _check_tokenizer(path, tokenizer, config)
    except InputError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except _ODD_VALUES as error:
        raise CheckpointError(f"{path}: tokenizer.json holds a value of the wrong kind ({error}).") from error
    return tokenizer


def _check_tokenizer(path: Path, tokenizer: Tokenizer, config: ModelConfig) -> None:
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {tokenizer.vocab_size:,} tokens, the embedding only "
            f"{config.vocab_size:,} rows. They do not belong together, or it was not grown for added tokens."
        )
    owners: dict[int, str] = {}
    for token, token_id in tokenizer.special_tokens.items():
        if token_id in owners:
            raise CheckpointError(
                f"{path}: {owners[token_id]!r} and {token!r} share id {token_id}; each needs its own."
            )
        owners[token_id] = token


def _rebuild_format(path: Path, record: Record, tokenizer: Tokenizer) -> tuple[str, ChatFormat | None]:
    """Return what differs between the stored and the installed format ("" for nothing), and the format."""
    if record.format is None:
        return "", None
    name = record.format.get("name")
    try:
        chat_format = ChatFormat.from_record(record.format, tokenizer)
    except InputError as error:
        raise FormatMismatchError(
            f"{path}: its chat format {name!r} cannot be built here: {error}"
        ) from error
    installed = json.loads(json.dumps(chat_format.to_record()))
    field = _first_difference(record.format, installed)
    if field is not None:
        return f"the chat format {name!r} differs from the installed one in {field!r}", chat_format
    if read_text(path / TEMPLATE) != chat_format.chat_template:
        return f"{TEMPLATE} is not the one that the format {name!r} generates", chat_format
    return "", chat_format


def _first_difference(stored: Any, installed: Any, field: str = "") -> str | None:
    """Return the path of the first field that differs; of a cause and its consequence, the cause."""
    if not (isinstance(stored, dict) and isinstance(installed, dict)):
        return None if stored == installed else field
    names = sorted({*stored, *installed}, key=lambda name: (name in _CONSEQUENCES, name))
    for name in names:
        inner = f"{field}.{name}" if field else name
        difference = _first_difference(stored.get(name), installed.get(name), inner)
        if difference is not None:
            return difference
    return None


def _special_ids(format: ChatFormat | None) -> dict[str, Any]:
    """Return what config.json and generation_config.json say of begin, end and padding."""
    if format is None:
        return {}
    stops = sorted(format.stop_ids, key=lambda token_id: (token_id != format.end_id, token_id))
    end = stops[0] if len(stops) == 1 else stops
    ends = {"bos_token_id": format.bos_id, "eos_token_id": end, "pad_token_id": format.pad_id}
    return {name: value for name, value in ends.items() if value is not None}


def _special_names(tokenizer: Tokenizer, ends: Mapping[str, Any]) -> dict[str, str]:
    """Return the same tokens by their text, as tokenizer_config.json has them."""
    text = {token_id: token for token, token_id in tokenizer.special_tokens.items()}
    named = {}
    for key, value in ends.items():
        first = value[0] if isinstance(value, list) else value
        if first in text:
            named[key.removesuffix("_id")] = text[first]
    return named
