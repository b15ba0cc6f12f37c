"""Weights between a directory of safetensors files and a ``Model``: checked before read, never copied twice.

Equal dtype on the CPU means no copy at all: parameters are private views of the memory-mapped file, so
loading costs one pass over the data. Otherwise tensors are converted in groups, so that the mapped pages of
one group are the only extra memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from picollm.errors import CheckpointError
from picollm.model.config import ModelConfig
from picollm.model.llama import Model

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"  # PEFT's name
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_GROUP_BYTES = 48 << 20


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint directory: one, or those that its index names.

    Raises:
        CheckpointError: there is none, or a shard is missing.
    """
    for name in (SINGLE, ADAPTER):
        if (directory / name).is_file():
            return [directory / name]
    if not (directory / INDEX).is_file():
        raise CheckpointError(
            f"{directory} has no {SINGLE} and no {INDEX}. Only safetensors are read, never pickled weights."
        )
    try:
        named = sorted(
            set(json.loads((directory / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{directory / INDEX} is damaged: it has no readable weight_map.") from error
    for name in named:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{directory / INDEX} names a shard {name!r}; expected a file name.")
        if not (directory / name).is_file():
            raise CheckpointError(f"{directory} lacks the shard {name}, one of {len(named)}. Copy it again.")
    return [directory / name for name in named]


def read_model(directory: Path, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Model:
    """Return the model of a checkpoint directory, its weights checked against ``config`` before any is read.

    Raises:
        CheckpointError: a damaged file, a missing, unknown or misshapen tensor, or a NaN.
    """
    where: dict[str, Path] = {}
    shapes: dict[str, list[int]] = {}
    dtypes: set[str] = set()
    for path in weight_files(directory):
        for name, shape, kind in _header(path):
            where[name], shapes[name] = path, shape
            dtypes.add(kind)
    if config.tie_word_embeddings and EMBEDDING not in where and HEAD in where:
        # Files saved from a shared tensor may keep either of its two names.
        where[EMBEDDING], shapes[EMBEDDING] = where[HEAD], shapes[HEAD]
    _check_depth(shapes, config, directory)
    try:
        with torch.device("meta"):
            model = Model(config)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        first = str(error).partition("\n")[0]
        raise CheckpointError(f"{directory}: config.json describes no model ({first}).") from error
    expected = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    _check_shapes(expected, shapes, directory)
    loaded: dict[str, Tensor] = {}
    convert = device.type != "cpu" or dtypes != {_DTYPE_NAMES.get(dtype)}
    wanted = {name: where[name] for name in (*expected, HEAD) if name in where}
    for name, tensor in _tensors(wanted, dtype, device, convert):
        _check_numbers(name, tensor, where[name])
        loaded[name] = tensor
    if HEAD not in expected and HEAD in loaded and not torch.equal(loaded.pop(HEAD), loaded[EMBEDDING]):
        raise CheckpointError(f"{directory}: config.json ties the embeddings, but {HEAD} differs from them.")
    model.load_state_dict(loaded, assign=True)
    return model.requires_grad_(True)


def write_model(directory: Path, model: Model, dtype: torch.dtype | None) -> None:
    """Write the model's weights to ``directory/model.safetensors``, as ``dtype`` or as they are."""
    state = {
        name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(state, directory / SINGLE, metadata={"format": "pt"})
    (directory / SINGLE).chmod(0o644)  # the library writes files that nobody else may read


def grow_embeddings(model: Model, vocab_size: int, added: Iterable[int], known: int) -> Model:
    """Return the model with room for ``vocab_size`` tokens and a sane start for the ``added`` ids.

    The rows of added tokens, in the embedding and in an untied head, become the mean of the first ``known``
    rows, the tokens that were trained: their first logits are then average, and so is the first loss. Rows of
    other ids never change. All other weights are shared with ``model``.
    """
    state = dict(model.state_dict())
    size = max(vocab_size, model.config.vocab_size)
    rows = torch.tensor(sorted(added), dtype=torch.long)
    for name in (EMBEDDING, HEAD):
        if name not in state:
            continue
        old = state[name]
        mean = old[:known].float().mean(0).to(old.dtype)
        grown = mean.expand(size, -1).clone()
        grown[: len(old)] = old
        grown[rows.to(old.device)] = mean
        state[name] = grown
    with torch.device("meta"):
        larger = Model(replace(model.config, vocab_size=size))
    larger.load_state_dict(state, assign=True)
    return larger.requires_grad_(True)


def _header(path: Path) -> Iterator[tuple[str, list[int], str]]:
    """Yield name, shape and dtype of each tensor; the library checks that the file holds them all."""
    try:
        path.open("rb").close()  # the library tells a missing permission as a missing file
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dictionary
                piece = file.get_slice(name)
                kind = piece.get_dtype()
                if kind not in _DTYPES:
                    raise CheckpointError(f"{path}: {name} is {kind}; picoLLM reads {', '.join(_DTYPES)}.")
                yield name, piece.get_shape(), kind
    except PermissionError as error:
        raise CheckpointError(f"{path} may not be read by this user. Change its permissions.") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}, of {path.stat().st_size:,} bytes, is truncated or damaged ({error}). Copy it again."
        ) from error


def _check_depth(shapes: Mapping[str, Any], config: ModelConfig, directory: Path) -> None:
    """Refuse a configuration of absurd depth before a module is built for each layer."""
    layers = {name.split(".")[2] for name in shapes if name.startswith("model.layers.")}
    if len(layers) != config.num_hidden_layers:
        raise CheckpointError(
            f"{directory}: config.json has {config.num_hidden_layers} layers, the weights have {len(layers)}."
        )


def _check_shapes(expected: Mapping[str, list[int]], found: Mapping[str, list[int]], directory: Path) -> None:
    missing = sorted(set(expected) - set(found))
    if missing:
        raise CheckpointError(
            f"{directory} lacks {len(missing)} of {len(expected)} weights, the first is {missing[0]}. "
            "Copy it again, or check that config.json belongs to it."
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(
                f"{directory}: {name} has shape {found[name]}; config.json implies {shape}."
            )
    # Old Llama files store the rotation's frequencies, which follow from the configuration.
    known = (*expected, HEAD)
    unknown = sorted(name for name in found if name not in known and not name.endswith("rotary_emb.inv_freq"))
    if unknown:
        raise CheckpointError(
            f"{directory} holds {len(unknown)} weights that config.json does not explain, as {unknown[0]}."
        )


def _tensors(
    where: Mapping[str, Path], dtype: torch.dtype, device: torch.device, convert: bool
) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor, mapped or converted; a group opens its file anew, which releases mapped pages."""
    for path in sorted(set(where.values())):
        names = [name for name, place in where.items() if place == path]
        while names:
            num_bytes = 0
            with safe_open(path, framework="pt") as file:
                stored = set(file.keys())
                while names and (num_bytes < _GROUP_BYTES or not convert):
                    name = names.pop(0)
                    mapped = file.get_tensor(name if name in stored else HEAD)
                    num_bytes += mapped.nbytes
                    yield name, mapped.to(device, dtype, copy=True) if convert else mapped
                    del mapped


def _check_numbers(name: str, tensor: Tensor, path: Path) -> None:
    # One pass, no temporary: a sum is finite unless a term is not, or it overflows float16 and is looked at.
    # Summing bfloat16 as float32 (dtype=) leaves the vectorized path and takes 25 times as long.
    if not torch.sum(tensor).isfinite():
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            raise CheckpointError(f"{path}: {name} holds {wrong} values that are no finite numbers.")
