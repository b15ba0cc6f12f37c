"""GGUF: the one file in which llama.cpp reads weights, tokenizer and chat template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from picollm.checkpoint import Checkpoint
from picollm.errors import CheckpointError, InputError, UnavailableError
from picollm.files import read_json
from picollm.interop.gguf_model import ARCHITECTURES, check_runnable, context_length, settings, tensors
from picollm.interop.gguf_vocabulary import Vocabulary
from picollm.paths import atomic_file

if TYPE_CHECKING:
    from gguf import GGUFWriter

TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
"""The types of matrices that are written, with llama.cpp's names of such files; vectors stay float32."""


def write_gguf(checkpoint: Checkpoint, target: Path, kind: str = "f16") -> list[str]:
    """Write ``checkpoint`` as one GGUF file; return what a user of the file should know, perhaps nothing.

    Raises:
        InputError: llama.cpp cannot run the model or its tokenizer, or ``kind`` is unknown.
        UnavailableError: the ``gguf`` package is missing, or there is no room or permission.
    """
    gguf = import_gguf()
    if kind not in TYPES:
        raise InputError(f"GGUF type {kind!r} is not written here; expected one of {', '.join(TYPES)}.")
    config = checkpoint.model.config
    check_runnable(config)
    vocabulary = Vocabulary.of(read_json(checkpoint.path / "tokenizer.json"), config.vocab_size)
    vocabulary.check(checkpoint.tokenizer)
    notes = [note for note in (context_length(config)[1], vocabulary.limits) if note]
    with atomic_file(target) as place:
        writer = gguf.GGUFWriter(place, ARCHITECTURES[config.model_type])
        writer.add_name(checkpoint.path.resolve().name)
        writer.add_file_type(gguf.LlamaFileType[TYPES[kind]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for name, value in settings(config).items():
            _add(writer, f"{writer.arch}.{name}", value)
        for name, value in _tokenizer_fields(checkpoint, vocabulary).items():
            _add(writer, name, value)
        half = 0
        for name, tensor in tensors(checkpoint.model):
            stored, data = quantized(tensor, kind)
            half += stored != kind and tensor.ndim > 1
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[stored.upper()])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    if half:
        notes.append(
            f"{half} matrices are f16: their rows are no multiple of the 32 numbers of a {kind} block"
        )
    return notes


def import_gguf() -> Any:
    """Return the ``gguf`` package. Raises UnavailableError when it is not installed."""
    try:
        import gguf
    except ImportError as error:
        raise UnavailableError("GGUF files need the gguf package: pip install 'picollm[gguf]'.") from error
    return gguf


def quantized(tensor: torch.Tensor, kind: str) -> tuple[str, np.ndarray[Any, Any]]:
    """Return the type that ``tensor`` is stored in, vectors always f32, and its numbers in that type."""
    gguf = import_gguf()
    if tensor.ndim == 1:
        kind = "f32"
    elif kind == "q8_0" and tensor.shape[-1] % 32:
        kind = "f16"
    numbers = tensor.float().numpy()
    return kind, gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[kind.upper()])


def read_fields(path: Path) -> dict[str, Any]:
    """Return all metadata of the GGUF file at ``path``. Raises CheckpointError when it is none."""
    gguf = import_gguf()
    try:
        reader = gguf.GGUFReader(path)
        return {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise CheckpointError(f"{path} is no readable GGUF file ({error}).") from error


def _tokenizer_fields(checkpoint: Checkpoint, vocabulary: Vocabulary) -> dict[str, Any]:
    fields = vocabulary.to_fields()
    chat_format = checkpoint.format
    if chat_format is None:
        config = read_json(checkpoint.path / "config.json")
        stops, begin, pad = config.get("eos_token_id"), config.get("bos_token_id"), config.get("pad_token_id")
        ends = [stops] if isinstance(stops, int) else [*(stops or [])]
        adds_bos = begin is not None and vocabulary.begins_with(begin)
    else:
        ends = sorted(chat_format.stop_ids, key=lambda token_id: (token_id != chat_format.end_id, token_id))
        begin, pad, adds_bos = chat_format.bos_id, chat_format.pad_id, False
        fields["tokenizer.chat_template"] = chat_format.chat_template_plain
        fields["picollm.format"] = chat_format.name
        fields["picollm.fingerprint"] = chat_format.fingerprint
    # The template spells the beginning of a conversation itself.
    fields["tokenizer.ggml.add_bos_token"] = adds_bos
    fields["tokenizer.ggml.add_eos_token"] = False
    ids = {"bos": begin, "padding": pad, "eos": ends[0] if ends else None}
    ids |= {"eot": ends[1]} if len(ends) > 1 else {}
    if len(ends) > 2:
        raise InputError(f"the chat format has {len(ends)} tokens that end a reply; a GGUF file names two.")
    return fields | {f"tokenizer.ggml.{name}_token_id": i for name, i in ids.items() if i is not None}


def _add(writer: GGUFWriter, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)
