"""Reading weights: every layout of files, and every way in which they can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from picollm.errors import CheckpointError
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.weights import grow_embeddings, read_model, write_model

CPU = torch.device("cpu")
CONFIG = ModelConfig(50, 16, 24, 2, 2)
UNTIED = ModelConfig(50, 16, 24, 2, 2, tie_word_embeddings=False)


def state(config: ModelConfig = CONFIG) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in Model(config, seed=3).state_dict().items()}


def shards(directory: Path, tensors: dict[str, Tensor], **where: Any) -> None:
    names = list(tensors)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, directory / file)
    index = {name: file for file, members in parts.items() for name in members}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {**index, **where}}))


def equal(model: Model, expected: dict[str, Tensor]) -> bool:
    return all(torch.equal(parameter, expected[name]) for name, parameter in model.named_parameters())


def test_sharded_files_equal_a_single_one(tmp_path: Path) -> None:
    shards(tmp_path, state())
    assert equal(read_model(tmp_path, CONFIG, torch.float32, CPU), state())


def test_shards_of_different_dtypes_become_one(tmp_path: Path) -> None:
    mixed = {name: t.bfloat16() if "layers.0" in name else t for name, t in state().items()}
    shards(tmp_path, mixed)
    model = read_model(tmp_path, CONFIG, torch.float32, CPU)
    assert equal(model, {name: t.float() for name, t in mixed.items()})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("names", ["head only", "both"])
def test_tied_weights_are_read_under_either_name(tmp_path: Path, names: str, dtype: torch.dtype) -> None:
    tensors = state()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    if names == "head only":
        del tensors["model.embed_tokens.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    expected = {name: tensor.to(dtype) for name, tensor in state().items()}
    assert equal(read_model(tmp_path, CONFIG, dtype, CPU), expected)


def test_a_tied_config_over_different_matrices_is_refused(tmp_path: Path) -> None:
    tensors = state()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs"):
        read_model(tmp_path, CONFIG, torch.float32, CPU)


def test_the_frequencies_of_old_llama_files_are_ignored(tmp_path: Path) -> None:
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file({**state(), **extra}, tmp_path / "model.safetensors")
    assert equal(read_model(tmp_path, CONFIG, torch.float32, CPU), state())


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"model.norm.weight": "c.safetensors"}, r"lacks the shard c\.safetensors, one of 3"),
        ({"model.norm.weight": "../c.safetensors"}, "names a shard '../c.safetensors'"),
        ({"model.norm.weight": 3}, "names a shard 3|no readable weight_map"),
    ],
)
def test_an_index_that_leads_nowhere_is_refused(tmp_path: Path, where: dict[str, Any], message: str) -> None:
    shards(tmp_path, state(), **where)
    with pytest.raises(CheckpointError, match=message):
        read_model(tmp_path, CONFIG, torch.float32, CPU)


def test_a_directory_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="never pickled"):
        read_model(tmp_path, CONFIG, torch.float32, CPU)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no readable weight_map"):
        read_model(tmp_path, CONFIG, torch.float32, CPU)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_a_truncated_file_is_refused_at_any_length(tmp_path: Path, kept: float) -> None:
    write_model(tmp_path, Model(CONFIG), None)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole)) if kept == 0.5 else int(kept)])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_model(tmp_path, CONFIG, torch.float32, CPU)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_refused_by_name(tmp_path: Path, value: float) -> None:
    tensors = state()
    tensors["model.layers.1.mlp.up_proj.weight"][3, 2] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight holds 1 value"):
        read_model(tmp_path, CONFIG, torch.float32, CPU)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    tensors = {**state(), "model.norm.weight": torch.ones(16, dtype=torch.int8)}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="is I8; picoLLM reads F32, BF16, F16"):
        read_model(tmp_path, CONFIG, torch.float32, CPU)


@pytest.mark.parametrize("config", [CONFIG, UNTIED], ids=["tied", "untied"])
def test_grown_rows_are_the_mean_of_the_trained_ones_and_nothing_else_moves(config: ModelConfig) -> None:
    model = Model(config, seed=1)
    grown = grow_embeddings(model, 53, [50, 52, 48], known=48)
    for name in {"model.embed_tokens.weight", "lm_head.weight"} & {n for n, _ in model.named_parameters()}:
        old, new = model.state_dict()[name], grown.state_dict()[name]
        mean = old[:48].mean(0)
        assert new.shape[0] == 53 and torch.equal(new[:48], old[:48]) and torch.equal(new[49], old[49])
        for row in (48, 50, 52):
            torch.testing.assert_close(new[row], mean)
    assert grown.config.vocab_size == 53 and all(p.requires_grad for p in grown.parameters())
    kept = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(grown.state_dict()[kept], model.state_dict()[kept])


def test_room_that_is_already_there_is_used(tmp_path: Path) -> None:
    grown = grow_embeddings(Model(CONFIG), 45, [44], known=44)
    assert grown.config.vocab_size == 50
