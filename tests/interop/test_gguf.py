"""A GGUF file holds the model, its tokenizer and its template, as independent readers see them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers

from picollm.checkpoint import Checkpoint
from picollm.errors import CheckpointError, InputError, UnavailableError
from picollm.interop.gguf import TYPES, quantized, read_fields, write_gguf
from picollm.interop.gguf_model import check_runnable
from picollm.interop.gguf_vocabulary import Vocabulary
from picollm.model.rope import Rope

YARN = {"factor": 4.0, "original_max_position_embeddings": 128}
REFUSED = {"qwen3-bias-untied-yarn"}
RUNNABLE = [
    "llama", "llama-untied-biases", "llama-head-dim", "llama-linear", "llama-dynamic", "llama-llama3",
    "llama-yarn", "mistral", "mistral-window", "qwen2", "qwen2-window", "qwen3",
]  # fmt: skip
# What transformers, as a reader of GGUF, understands too; of qwen3 it does not read the head width.
READABLE = ["llama", "llama-head-dim", "mistral", "qwen2"]


def packages_name(name: str, config: Any) -> str:
    """Return the name that the gguf package's own table gives a weight of Hugging Face."""
    kind = gguf.MODEL_ARCH[{"mistral": "LLAMA"}.get(config.model_type, config.model_type.upper())]
    found = gguf.get_tensor_name_map(kind, config.num_hidden_layers).get_name(name, (".weight", ".bias"))
    assert found is not None
    return str(found)


def rotated_as_in_llama_cpp(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Return rows with those that Hugging Face rotates together, i and i + D/2, beside each other."""
    heads = []
    for start in range(0, len(rows), head_dim):
        head = rows[start : start + head_dim]
        for i in range(head_dim // 2):
            heads += [head[i], head[i + head_dim // 2]]
    return np.stack(heads)


@pytest.mark.parametrize("case", RUNNABLE)
def test_every_tensor_is_there_under_its_name_and_equal(
    case: str, chat_checkpoint: Any, tmp_path: Path
) -> None:
    checkpoint = Checkpoint.load(chat_checkpoint(case))
    config = checkpoint.model.config
    write_gguf(checkpoint, tmp_path / "m.gguf", "f32")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    for name, tensor in checkpoint.model.state_dict().items():
        expected = tensor.numpy()
        if config.model_type in ("llama", "mistral") and (".q_proj." in name or ".k_proj." in name):
            expected = rotated_as_in_llama_cpp(expected, config.head_dim)
        assert np.array_equal(found.pop(packages_name(name, config)), expected), name
    assert set(found) == ({"rope_freqs.weight"} if case == "llama-llama3" else set())


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_reads_back_as_exactly_as_it_can(kind: str, chat_checkpoint: Any, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(chat_checkpoint())
    notes = write_gguf(checkpoint, tmp_path / "m.gguf", kind)
    assert notes == []
    worst = {"f32": 0.0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 2**-7}[kind]
    for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
        vector = len(tensor.shape) == 1
        assert tensor.tensor_type.name == ("F32" if vector else kind.upper())
    for name, tensor in checkpoint.model.state_dict().items():
        stored, data = quantized(tensor, kind)
        back = gguf.dequantize(data, gguf.GGMLQuantizationType[stored.upper()])
        scale = 0.0 if tensor.ndim == 1 else worst * tensor.abs().max().item()
        assert np.abs(back - tensor.numpy()).max() <= scale, name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", READABLE)
def test_another_reader_of_gguf_computes_the_same_logits(
    case: str, chat_checkpoint: Any, tmp_path: Path
) -> None:
    checkpoint = Checkpoint.load(chat_checkpoint(case))
    write_gguf(checkpoint, tmp_path / "m.gguf", "f32")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32
    )
    ids = torch.randint(0, len(checkpoint.tokenizer), (60,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = theirs(ids[None]).logits[0], checkpoint.model(ids, torch.arange(60))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["picollm", "chatml", "llama3"])
def test_tokenizer_template_and_ends_are_the_formats(name: str, chat_checkpoint: Any, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(chat_checkpoint("qwen3", name))
    chat_format = checkpoint.format
    assert chat_format is not None
    write_gguf(checkpoint, tmp_path / "m.gguf", "f16")
    fields = read_fields(tmp_path / "m.gguf")
    assert fields["general.architecture"] == "qwen3"
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "qwen2")
    assert fields["tokenizer.chat_template"] == chat_format.chat_template_plain
    ends = {fields.get(f"tokenizer.ggml.{end}_token_id") for end in ("eos", "eot")} - {None}
    assert ends == chat_format.stop_ids and fields["tokenizer.ggml.eos_token_id"] == chat_format.end_id
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["picollm.fingerprint"] == chat_format.fingerprint
    control = [i for i, kind in enumerate(fields["tokenizer.ggml.token_type"]) if kind == 3]
    assert control == sorted(checkpoint.tokenizer.special_tokens.values())


def test_a_published_model_is_written_in_sentencepiece_s_way(shared_data: Path, tmp_path: Path) -> None:
    base = Checkpoint.load(shared_data / "checkpoints/tinystories-656k")
    notes = write_gguf(base, tmp_path / "m.gguf", "q8_0")
    assert any("no byte tokens" in note for note in notes)
    fields = read_fields(tmp_path / "m.gguf")
    assert fields["tokenizer.ggml.model"] == "llama" and fields["tokenizer.ggml.add_bos_token"] is True
    assert fields["tokenizer.ggml.bos_token_id"] == 1 and fields["tokenizer.ggml.eos_token_id"] == 2
    encode = Vocabulary.from_fields(fields).encoder()
    stories = [
        'Once upon a time, there was a girl named Lily.\n\nShe said: "I\'m not sad!"  And so on.',
        "\n",
        " a ",
    ]
    for text in stories:
        assert encode(text) == base.tokenizer.encode(text)
    with pytest.raises(InputError, match="no byte tokens; llama"):
        encode("\u65e5")


def test_what_llama_cpp_cannot_run_is_refused_in_one_line(chat_checkpoint: Any, tmp_path: Path) -> None:
    for case in REFUSED:
        with pytest.raises(InputError, match="attention biases in a qwen3 model"):
            write_gguf(Checkpoint.load(chat_checkpoint(case)), tmp_path / "m.gguf")
    checkpoint = Checkpoint.load(chat_checkpoint())
    with pytest.raises(InputError, match="'q4' is not written here; expected one of f32, f16, bf16, q8_0"):
        write_gguf(checkpoint, tmp_path / "m.gguf", "q4")
    yarn = replace(checkpoint.model.config, rope=Rope(1e4, "yarn", {**YARN, "beta_fast": 16.0}))
    with pytest.raises(InputError, match="YaRN with beta_fast 16 and beta_slow 1"):
        check_runnable(yarn)
    (tmp_path / "closed").mkdir(mode=0o500)
    if not _is_root():
        with pytest.raises(UnavailableError, match="not allowed to write"):
            write_gguf(checkpoint, tmp_path / "closed/m.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["closed"], "nothing half-written"


def test_a_window_becomes_the_context_and_is_said(chat_checkpoint: Any, tmp_path: Path) -> None:
    notes = write_gguf(Checkpoint.load(chat_checkpoint("mistral-window")), tmp_path / "m.gguf")
    assert notes == ["llama.cpp has no sliding window here: the context is the window, 12 tokens"]
    assert read_fields(tmp_path / "m.gguf")["llama.context_length"] == 12


def test_what_is_no_gguf_file_is_refused_in_one_line(tmp_path: Path) -> None:
    for content in (b"", b"GGUF", b"x" * 5000, b"GGUF" + bytes(200)):
        (tmp_path / "m.gguf").write_bytes(content)
        with pytest.raises(CheckpointError, match="no readable GGUF"):
            read_fields(tmp_path / "m.gguf")


def _is_root() -> bool:
    import os

    return os.geteuid() == 0
