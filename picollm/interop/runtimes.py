"""The ways in which others read a checkpoint: each turns conversations into ids, and some also reply.

A checkpoint may come from anybody. Its template runs in a child process under limits, whatever runs it here.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from picollm.chat.conversation import Conversation
from picollm.chat.format_template import Probe, render_foreign
from picollm.checkpoint import Checkpoint
from picollm.errors import CheckpointError, InputError, UnavailableError, nearest
from picollm.files import TEMPLATE, read_json
from picollm.interop.gguf import read_fields, write_gguf
from picollm.interop.gguf_vocabulary import Encoder, Vocabulary
from picollm.weights import weight_files

_CHILD = Path(__file__).with_name("child.py")
SECONDS, MEMORY_BYTES = 300, 16 << 30
"""What a runtime's process may use: processor time, and address space beside the weights, mostly unused."""


class Row(NamedTuple):
    """What is to be rendered; ``prompt``: up to where the assistant starts to speak."""

    conversation: Conversation
    prompt: bool


@dataclass(frozen=True)
class Answer:
    """What a runtime made of the rows, and of the prompts where it can generate."""

    version: str
    ids: Sequence[list[int] | str | None]
    """For each row its ids, or the error as a string, or None where it has no place for such a message."""
    replies: list[list[int]] | None = None
    notes: tuple[str, ...] = ()


def by_transformers(
    checkpoint: Checkpoint, rows: Sequence[Row], prompts: list[list[int]], max_tokens: int, gguf: Path | None
) -> Answer:
    """Return what ``transformers`` makes of the directory, with the classes that ``Auto...`` chooses."""
    return _by_child("transformers", checkpoint, rows, prompts, max_tokens)


def by_vllm(
    checkpoint: Checkpoint, rows: Sequence[Row], prompts: list[list[int]], max_tokens: int, gguf: Path | None
) -> Answer:
    """Return what vLLM makes of the directory: its chat endpoint's prompts and its engine's replies."""
    plain = [all(isinstance(m.content, str) for m in row.conversation.messages) for row in rows]
    asked = [row for row, is_plain in zip(rows, plain, strict=True) if is_plain]
    answer = _by_child("vllm", checkpoint, asked, prompts, max_tokens)
    ids = iter(answer.ids)
    left_out = "vLLM's messages are plain text: it cannot be sent calls of the calculator"
    notes = () if all(plain) else (left_out,)
    return replace(answer, ids=[next(ids) if is_plain else None for is_plain in plain], notes=notes)


def _by_child(
    name: str, checkpoint: Checkpoint, rows: Sequence[Row], prompts: list[list[int]], max_tokens: int
) -> Answer:
    """Return the answer of a runtime in a process of its own, under limits."""
    weights = sum(file.stat().st_size for file in weight_files(checkpoint.path))
    memory_bytes = MEMORY_BYTES + 4 * weights
    job = {
        "runtime": name,
        "directory": str(checkpoint.path),
        "rows": [{"messages": r.conversation.to_dict()["messages"], "prompt": r.prompt} for r in rows],
        "prompts": prompts,
        "max_tokens": max_tokens,
        "context": checkpoint.model.config.max_position_embeddings,
        "seconds": SECONDS,
        "memory_bytes": memory_bytes,
        "file_bytes": 1 << (40 if name == "vllm" else 20),  # vLLM's processes share memory as files
    }
    run = None
    try:
        run = subprocess.run(
            [sys.executable, "-P", str(_CHILD)],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=2 * SECONDS,
            check=False,
        )
        answer = json.loads(run.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        last = "time" if run is None else (run.stderr.strip().splitlines() or ["no answer"])[-1]
        raise CheckpointError(
            f"{checkpoint.path}: {name} did not read it within {SECONDS} s and "
            f"{memory_bytes >> 20:,} MiB ({last[:200]})."
        ) from error
    return Answer(answer["version"], answer["ids"], answer["replies"])


def by_jinja(
    checkpoint: Checkpoint, rows: Sequence[Row], prompts: list[list[int]], max_tokens: int, gguf: Path | None
) -> Answer:
    """Return what a bare Jinja makes of ``chat_template.jinja``, and ``tokenizer.json`` of the text."""
    template = (checkpoint.path / TEMPLATE).read_text(encoding="utf-8")
    texts = _rendered(template, rows, checkpoint.path)
    encode = checkpoint.tokenizer.encode_template
    return Answer(version("jinja2"), [error or encode(text) for text, error in texts])


def by_gguf(
    checkpoint: Checkpoint, rows: Sequence[Row], prompts: list[list[int]], max_tokens: int, gguf: Path | None
) -> Answer:
    """Return what the template and the tokenizer inside a GGUF file make of the rows."""
    with tempfile.TemporaryDirectory() as directory:
        file, notes = _gguf_file(checkpoint, gguf, Path(directory))
        fields = read_fields(file)
    encode = Vocabulary.from_fields(fields).encoder()
    texts = _rendered(fields.get("tokenizer.chat_template", ""), rows, checkpoint.path)
    found = (fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot"))
    ends = {token_id for token_id in found if token_id is not None}
    if checkpoint.format is not None and ends != checkpoint.format.stop_ids:
        notes.append(
            f"a reply ends at {sorted(ends)}, in the checkpoint at {sorted(checkpoint.format.stop_ids)}"
        )
    ids = [error or _tried(encode, text) for text, error in texts]
    return Answer(f"gguf {version('gguf')}", ids, notes=tuple(notes))


def by_llama_cpp(
    checkpoint: Checkpoint, rows: Sequence[Row], prompts: list[list[int]], max_tokens: int, gguf: Path | None
) -> Answer:
    """Return what llama.cpp itself makes of a float32 GGUF file: its tokenizer and its greedy replies."""
    from llama_cpp import GGML_TYPE_F32, Llama, llama_model_get_vocab, llama_vocab_is_eog

    with tempfile.TemporaryDirectory() as directory:
        file, notes = _gguf_file(checkpoint, gguf, Path(directory))
        fields = read_fields(file)
        context = max(map(len, prompts)) + max_tokens
        # By default it caches keys and values in half precision, which is not what is compared here.
        exact = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32}
        llama = Llama(str(file), n_ctx=context, n_threads=1, n_batch=512, verbose=False, **exact)
        vocab = llama_model_get_vocab(llama.model)
        texts = _rendered(fields.get("tokenizer.chat_template", ""), rows, checkpoint.path)
        ids = [error or llama.tokenize(t.encode("utf-8"), add_bos=False, special=True) for t, error in texts]
        replies = []
        for prompt in prompts:
            reply: list[int] = []
            for token_id in llama.generate(prompt, temp=0.0, repeat_penalty=1.0):
                reply.append(token_id)
                if len(reply) == max_tokens or llama_vocab_is_eog(vocab, token_id):
                    break
            replies.append(reply)
        llama.close()
    return Answer(f"llama-cpp-python {version('llama-cpp-python')}", ids, replies, tuple(notes))


RUNTIMES = {
    "transformers": (by_transformers, "transformers"),
    "jinja": (by_jinja, "jinja2"),
    "gguf": (by_gguf, "gguf"),
    "llama.cpp": (by_llama_cpp, "llama_cpp"),
    "vllm": (by_vllm, "vllm"),
}
"""Each runtime, and the package without which it is not there."""


def installed() -> list[str]:
    """Return the runtimes that can run here."""
    return [name for name, (_, package) in RUNTIMES.items() if importlib.util.find_spec(package)]


def check_names(names: Sequence[str]) -> None:
    """Raise InputError for a runtime nobody knows, UnavailableError for one that is not installed."""
    for name in names:
        if name not in RUNTIMES:
            raise InputError(f"no runtime is called {name!r}; {nearest(name, RUNTIMES)}")
        if name not in installed():
            raise UnavailableError(f"the runtime {name} is not installed: it needs {RUNTIMES[name][1]}.")


def _tried(encode: Encoder, text: str) -> list[int] | str:
    try:
        return encode(text)
    except InputError as error:
        return str(error)


def _rendered(template: str, rows: Sequence[Row], directory: Path) -> list[tuple[str, str | None]]:
    special = _special_names(directory)
    found = render_foreign(template, [Probe(r.conversation.messages, r.prompt) for r in rows], special)
    return [(rendering.text or "", rendering.error) for rendering in found]


def _special_names(directory: Path) -> dict[str, str]:
    """Return what ``tokenizer_config.json`` calls ``bos_token`` and so on."""
    try:
        config = read_json(directory / "tokenizer_config.json")
    except CheckpointError:
        return {}
    named = {name: value for name, value in config.items() if name.endswith("_token")}
    texts = {name: v.get("content") if isinstance(v, dict) else v for name, v in named.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _gguf_file(checkpoint: Checkpoint, given: Path | None, directory: Path) -> tuple[Path, list[str]]:
    """Return the GGUF file to look at: the one given, or a new one of float32."""
    if given is not None:
        return given, []
    file = directory / "checkpoint.gguf"
    return file, write_gguf(checkpoint, file, "f32")
