"""A checkpoint in the files of other programs: GGUF for llama.cpp, with a Modelfile for Ollama."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from picollm import adapter
from picollm.checkpoint import Checkpoint
from picollm.errors import InputError
from picollm.interop.gguf import write_gguf
from picollm.interop.gguf_model import context_length
from picollm.interop.ollama import modelfile
from picollm.paths import atomic_file

MODELFILE = "Modelfile"


@dataclass(frozen=True)
class Exported:
    """The files that were written, and what their user should know."""

    files: list[Path]
    notes: list[str]


def export(checkpoint: Checkpoint, directory: Path, kind: str = "f16", *, ollama: bool = False) -> Exported:
    """Write a GGUF file of the given type to ``directory``, and with ``ollama`` a Modelfile beside it.

    Raises:
        InputError: llama.cpp or Ollama cannot express the model, its tokenizer or its chat format.
        UnavailableError: the ``gguf`` package is missing, or there is no room or permission.
    """
    file = directory / f"{checkpoint.path.resolve().name}-{kind}.gguf"
    text = None
    if ollama:
        if checkpoint.format is None:
            raise InputError(
                "a base model has no chat format to write an Ollama template of; fine-tune it first."
            )
        text = modelfile(checkpoint.format, file.name, context_length(checkpoint.model.config)[0])
    notes = write_gguf(checkpoint, file, kind)
    if text is None:
        return Exported([file], notes)
    with atomic_file(directory / MODELFILE) as place:
        place.write_text(text, encoding="utf-8")
    if checkpoint.format is not None and checkpoint.format.has_tools:
        notes.append("Ollama's messages are plain text: replies there cannot call the calculator")
    return Exported([file, directory / MODELFILE], notes)


def write_merged(checkpoint: Checkpoint, directory: Path) -> Checkpoint:
    """Write a loaded adapter, merged with its base, as a checkpoint of its own, and return it.

    Raises:
        InputError: ``checkpoint`` is no adapter, or ``directory`` holds something else.
        UnavailableError: no room or permission.
    """
    if not (checkpoint.path / adapter.CONFIG).is_file():
        raise InputError(f"{checkpoint.path} is no adapter; there is nothing to merge.")
    record = replace(checkpoint.record, files={})
    Checkpoint.save(directory, checkpoint.model, checkpoint.tokenizer, checkpoint.format, record)
    return Checkpoint.load(directory)
