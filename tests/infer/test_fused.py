"""The fused pass gives the model's own logits: every family, any number of rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from picollm.checkpoint import Checkpoint
from picollm.infer.fused import FusedModel
from picollm.model.cache import KVCache, Segment
from picollm.model.llama import Model
from picollm.model.rope import Rope
from picollm.record import Record
from picollm.tokenizer import Tokenizer

FAMILIES = {
    "qwen3": {},
    "qwen3, own head": {"tie_word_embeddings": False},
    "llama": {"model_type": "llama", "num_key_value_heads": 4},
    "llama with biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "qwen2": {"model_type": "qwen2", "attention_bias": True},
    "mistral": {"model_type": "mistral", "sliding_window": 3, "windowed_layers": (0, 1)},
    "wide heads": {"head_dim": 16},
    "scaled rope": {"rope": Rope(parameters={"factor": 4.0}, type="linear")},
    "dynamic rope": {"rope": Rope(parameters={"factor": 4.0}, type="dynamic"), "max_position_embeddings": 8},
}


def prefill(
    model: Callable[..., Tensor], config: object, ids: Tensor, select: Tensor | None = None
) -> Tensor:
    cache = KVCache(config, 1, capacity=32)
    return model(ids, torch.arange(len(ids)), select, cache.view([], [Segment(0, 0, len(ids))]))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_models(make_model: Callable[..., Model], family: str, arithmetic: str) -> None:
    model = make_model(**FAMILIES[family])
    ids = torch.arange(40, 52)
    expected = model(ids, torch.arange(12))
    fused = FusedModel(model)
    torch.testing.assert_close(prefill(fused, model.config, ids), expected, rtol=1e-4, atol=1e-4)
    some = torch.tensor([3, 11])
    torch.testing.assert_close(prefill(fused, model.config, ids, some), expected[some], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(ids, torch.arange(12)), expected)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 18])
def test_decode_steps_of_any_size_equal_the_models(
    make_model: Callable[..., Model], num_rows: int, arithmetic: str
) -> None:
    model = make_model(attention_bias=True, model_type="qwen2")
    fused, cache = FusedModel(model), KVCache(model.config, num_rows)
    texts = [torch.arange(row, row + 6) for row in range(num_rows)]
    for position in range(6):
        ids = torch.stack([text[position] for text in texts])
        view = cache.view([Segment(row, position, 1) for row in range(num_rows)], [])
        logits = fused(ids, torch.full((num_rows,), position), None, view)
        for row, text in enumerate(texts):
            expected = model(text[: position + 1], torch.arange(position + 1))[-1]
            torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-4)


def test_nothing_is_held_twice_but_the_packed_copy(make_model: Callable[..., Model]) -> None:
    model = make_model()
    attention = model.model.layers[0].self_attn
    layer = FusedModel(model).layers[0]
    shared = {x.untyped_storage().data_ptr() for x in (attention.q_proj.weight, attention.v_proj.weight)}
    assert shared == {layer.qkv.weight.untyped_storage().data_ptr()}


def test_a_second_engine_of_a_model_holds_no_second_copy(make_model: Callable[..., Model]) -> None:
    model = make_model(attention_bias=True, model_type="qwen2")
    one, other = FusedModel(model).layers[1], FusedModel(model).layers[1]
    assert one.qkv.weight.data_ptr() == other.qkv.weight.data_ptr()
    assert one.qkv.bias is not None and other.qkv.bias is not None
    assert one.qkv.bias.data_ptr() == other.qkv.bias.data_ptr()
    assert torch.equal(one.gate_up.weight, other.gate_up.weight)


def test_a_model_with_joined_weights_is_saved_as_it_was(
    make_model: Callable[..., Model], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    FusedModel(model)
    Checkpoint.save(tmp_path / "saved", model, tokenizer, None, Record("import"))
    after = Checkpoint.load(tmp_path / "saved").model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_bfloat16_stays_close_to_the_model(make_model: Callable[..., Model], arithmetic: str) -> None:
    model = make_model().to(torch.bfloat16)
    ids = torch.arange(40, 52)
    expected = model(ids, torch.arange(12))
    cache = KVCache(model.config, 1, dtype=torch.bfloat16)
    logits = FusedModel(model)(ids, torch.arange(12), None, cache.view([], [Segment(0, 0, 12)]))
    torch.testing.assert_close(logits, expected, rtol=0.1, atol=0.1 * float(expected.abs().max()))
