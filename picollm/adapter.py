"""A LoRA adapter on disk, in PEFT's layout, with the tokenizer and the record of a checkpoint beside it.

::

    adapter_config.json            rank, alpha, targets, and where the base is
    adapter_model.safetensors      lora_A and lora_B of every matrix
    tokenizer.json, ..., chat_template.jinja, record.json     as in a checkpoint

``Checkpoint.load`` opens such a directory: the base with the adapter merged into it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from picollm.chat.format import ChatFormat
from picollm.errors import CheckpointError
from picollm.files import RECORD, TEMPLATE, check_replaceable, fingerprint, write_json
from picollm.model.llama import Model
from picollm.model.lora import add_lora, merge_lora
from picollm.model.lora_config import Lora
from picollm.paths import atomic_directory
from picollm.record import Record
from picollm.weights import ADAPTER

CONFIG, WEIGHTS = "adapter_config.json", ADAPTER
_PREFIX = "base_model.model."


def save_adapter(
    directory: Path, model: Model, lora: Lora, base: Path, fmt: ChatFormat, record: Record
) -> Record:
    """Write the adapter of ``model`` to ``directory``, or nothing; return the record as it was written."""
    check_replaceable(directory)
    with atomic_directory(directory) as place:
        tensors = {
            f"{_PREFIX}{name}.weight": parameter.detach().cpu().float().contiguous()
            for name, parameter in model.named_parameters()
            if name.endswith(("lora_A", "lora_B"))
        }
        save_file(tensors, place / WEIGHTS, metadata={"format": "pt"})
        (place / WEIGHTS).chmod(0o644)
        write_json(place / CONFIG, _config(lora, base))
        fmt.tokenizer.save(place, model_max_length=model.config.max_position_embeddings)
        (place / TEMPLATE).write_text(fmt.chat_template, encoding="utf-8")
        files = {file.name: fingerprint(file) for file in sorted(place.iterdir())}
        record = replace(record, files=files, format=fmt.to_record())
        (place / RECORD).write_text(record.to_json(), encoding="utf-8")
    return record


def _config(lora: Lora, base: Path) -> dict[str, Any]:
    return {
        "base_model_name_or_path": str(base.resolve()),
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": list(lora.targets),
        "task_type": "CAUSAL_LM",
    }


def read_adapter_config(directory: Path) -> tuple[Lora, str]:
    """Return the shape of an adapter, and where its base is.

    Raises:
        CheckpointError: it is damaged, or of a kind of adapter that picoLLM does not merge.
    """
    try:
        found = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        lora = Lora(int(found["r"]), float(found["lora_alpha"]), tuple(found["target_modules"]))
        base, kind = str(found["base_model_name_or_path"]), found["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{directory / CONFIG} cannot be read as a LoRA adapter: {error!r}") from error
    unusual = [name for name in ("use_dora", "use_rslora", "modules_to_save") if found.get(name)]
    if kind != "LORA" or unusual or found.get("bias", "none") != "none":
        raise CheckpointError(
            f"{directory / CONFIG} is {kind} with {', '.join(unusual) or found.get('bias')}; "
            "picoLLM merges plain LoRA."
        )
    return lora, base


def merged(base: Model, directory: Path, lora: Lora) -> Model:
    """Return ``base`` itself with the adapter of ``directory`` merged into it.

    Raises:
        CheckpointError: the tensors are not those of this base and this configuration.
    """
    add_lora(base, lora)
    own = {name: p for name, p in base.named_parameters() if name.endswith(("lora_A", "lora_B"))}
    try:
        tensors = load_file(directory / WEIGHTS)
    except Exception as error:
        raise CheckpointError(f"{directory / WEIGHTS} is missing or damaged. Copy it again.") from error
    given = {name.removeprefix(_PREFIX).removesuffix(".weight"): tensor for name, tensor in tensors.items()}
    wrong = [
        n
        for n in own.keys() | given.keys()
        if n not in own or n not in given or own[n].shape != given[n].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{directory / WEIGHTS} does not fit its base: {min(wrong)} is missing or misshapen."
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(given[name])
    return merge_lora(base)
