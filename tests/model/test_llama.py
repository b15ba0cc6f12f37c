"""The model equals transformers on every family and option, and packing changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from picollm.errors import InputError
from picollm.model.config import ModelConfig
from picollm.model.llama import Model

TINY = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-biases-tied": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "llama-head-dim": {"model_type": "llama", "head_dim": 24, "num_key_value_heads": 4},
    "mistral-window": {"model_type": "mistral", "sliding_window": 5},
    "mistral-full": {"model_type": "mistral", "sliding_window": None, "num_key_value_heads": 1},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2-window": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "qwen3-options": {
        "model_type": "qwen3",
        "head_dim": 8,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "use_sliding_window": True,
        "sliding_window": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 2.5},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    },
    "yarn": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8},
    "yarn-options": {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 8,
        "beta_fast": 4.0,
        "beta_slow": 0.5,
        "mscale": 0.7,
        "mscale_all_dim": 0.3,
        "truncate": False,
    },
}
CASES = {**FAMILIES} | {
    f"llama-rope-{name}": {"model_type": "llama", "rope_scaling": scaling, "rope_theta": 300.0}
    for name, scaling in SCALINGS.items()
}
# Longer than the trained context of 16 first, then shorter: "dynamic" must stretch each on its own.
LENGTHS = (23, 1, 9, 2, 16)


def peer(case: dict[str, Any]) -> Any:
    """Return transformers' model of a random tiny configuration, with weights large enough to matter."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(5)
    config = transformers.AutoConfig.for_model(**{**TINY, **case})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.25)
    return model


def ours(theirs: Any) -> Model:
    config = ModelConfig.from_hf(theirs.config.to_dict())
    model = Model(config)
    names = dict(model.named_parameters())
    model.load_state_dict({name: tensor for name, tensor in theirs.state_dict().items() if name in names})
    return model


def stream(lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, TINY["vocab_size"], (sum(lengths),), generator=generator)
    return ids, torch.cat([torch.arange(length) for length in lengths])


def small(**changes: Any) -> Model:
    model = Model(ModelConfig(**{**TINY, "head_dim": 8, **changes}))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_logits_of_packed_documents_equal_those_of_transformers_one_by_one(case: dict[str, Any]) -> None:
    theirs = peer(case)
    ids, positions = stream()
    select = torch.tensor([0, 3, 22, 23, 24, 40, 50])
    with torch.no_grad():
        expected = torch.cat([theirs(document[None]).logits[0] for document in ids.split(LENGTHS)])
        model = ours(theirs)
        found, chosen = model(ids, positions), model(ids, positions, select)
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(chosen, expected[select], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "changes", [{}, {"sliding_window": 4, "windowed_layers": (0, 2)}], ids=["full", "window"]
)
@pytest.mark.parametrize("chosen", ["some", "all", "one"])
def test_packing_and_selection_leave_every_gradient_as_it_was(changes: dict[str, Any], chosen: str) -> None:
    ids, positions = stream()
    rows = {"some": torch.arange(2, len(ids), 3), "all": torch.arange(len(ids)), "one": torch.tensor([30])}
    select = rows[chosen]
    weights = torch.linspace(-1, 1, len(select) * TINY["vocab_size"]).reshape(len(select), -1)

    packed = small(**changes)
    (packed(ids, positions, select) * weights).sum().backward()
    separate = small(**changes)
    logits = torch.cat([separate(document, torch.arange(len(document))) for document in ids.split(LENGTHS)])
    (logits[select] * weights).sum().backward()

    for (name, one), two in zip(packed.named_parameters(), separate.parameters(), strict=True):
        assert one.grad is not None and two.grad is not None, name
        torch.testing.assert_close(
            one.grad, two.grad, atol=2e-4, rtol=2e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_gradients_equal_those_of_transformers() -> None:
    theirs = peer(FAMILIES["qwen3-options"]).train()
    model = ours(theirs)
    ids, positions = stream((14,))
    theirs(ids[None]).logits.square().sum().backward()
    model(ids, positions).square().sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-2, rtol=1e-3)


def test_a_change_in_one_document_leaves_the_others_bit_for_bit() -> None:
    model = small()
    ids, positions = stream()
    changed = ids.clone()
    changed[:23] = (changed[:23] + 1) % TINY["vocab_size"]
    with torch.no_grad():
        before, after = model(ids, positions), model(changed, positions)
    assert torch.equal(before[23:], after[23:]) and not torch.equal(before[:23], after[:23])


@pytest.mark.parametrize("autocast", [False, True], ids=["bf16 weights", "autocast"])
def test_bfloat16_is_close_to_float32_and_logits_are_float32(autocast: bool) -> None:
    model = small()
    ids, positions = stream()
    select = torch.arange(0, 50, 2)
    with torch.no_grad():
        exact = model(ids, positions, select)
    lower = model if autocast else model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = lower(ids, positions, select)
    logits.sum().backward()
    assert logits.dtype == torch.float32
    assert all(parameter.grad is not None for parameter in lower.parameters())
    assert torch.nn.functional.cosine_similarity(logits.flatten(), exact.flatten(), dim=0) > 0.995


class Recorder:
    """A cache that keeps nothing and attends inside the chunk: enough to see what the model hands over."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, torch.Size, torch.Size]] = []

    def attend(self, layer_index: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, scale: float) -> Tensor:
        self.calls.append((layer_index, q_THD.shape, k_TKD.shape))
        q, k, v = (x.transpose(0, 1)[None] for x in (q_THD, k_TKD, v_TKD))
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=True
        )
        return out[0].transpose(0, 1)


def test_a_cache_gets_every_query_and_key_of_every_layer_and_select_still_holds() -> None:
    model, cache = small(), Recorder()
    ids, positions = stream((12,))
    select = torch.tensor([11])
    with torch.no_grad():
        found = model(ids, positions, select, cache=cache)
        expected = model(ids, positions, select)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert cache.calls == [(index, (12, 4, 8), (12, 2, 8)) for index in range(3)]


def test_initialization_is_a_function_of_the_seed_and_starts_at_a_uniform_guess() -> None:
    config = ModelConfig(500, 64, 128, 2, 4)
    one, two, other = Model(config, seed=1), Model(config, seed=1), Model(config, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.lm_head_weight, other.lm_head_weight)
    ids = torch.arange(200)
    loss = torch.nn.functional.cross_entropy(one(ids, ids), (ids + 7) % 500)
    assert abs(loss.item() - torch.log(torch.tensor(500.0)).item()) < 0.15


def test_the_head_is_the_embedding_when_tied_and_its_own_matrix_otherwise() -> None:
    tied, untied = small(), small(tie_word_embeddings=False)
    assert tied.lm_head_weight is tied.model.embed_tokens.weight
    assert untied.lm_head_weight is dict(untied.named_parameters())["lm_head.weight"]
    for model in (tied, untied):
        assert sum(p.numel() for p in model.parameters()) == model.config.num_parameters


def test_a_stream_that_begins_inside_a_document_is_refused() -> None:
    with pytest.raises(InputError, match="first position must be 0"):
        small()(torch.arange(4), torch.arange(2, 6))


def test_the_logits_of_a_published_model_equal_those_of_transformers(shared_data: Any) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(shared_data / "checkpoints/tinystories-656k")
    model = ours(theirs)
    ids = torch.randint(0, 2048, (300,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.cat([theirs(part[None]).logits[0] for part in ids.split((200, 100))])
        found = model(ids, torch.cat([torch.arange(200), torch.arange(100)]))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
