"""A configuration survives Hugging Face's spelling, and says by name what it cannot run."""

from __future__ import annotations

from typing import Any

import pytest

from picollm.errors import CheckpointError, InputError
from picollm.model.config import ModelConfig

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 8},
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "num_key_value_heads": 2},
        {"model_type": "qwen2", "architectures": None, "num_key_value_heads": 2},
        {
            "model_type": "qwen3",
            "architectures": ["Qwen3ForCausalLM"],
            "num_key_value_heads": 4,
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 2,
        },
        {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 500.0},
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 700.0}},
    ],
)
def test_a_config_survives_the_round_trip_through_hugging_face(changes: dict[str, Any]) -> None:
    config = ModelConfig.from_hf({**LLAMA, **changes})
    assert ModelConfig.from_hf(config.to_hf()) == config


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_what_a_config_leaves_out_is_what_transformers_assumes(model_type: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {
        **LLAMA,
        "model_type": model_type,
        "architectures": None,
        "hidden_size": 128,
        "num_attention_heads": 32,
    }
    theirs = transformers.AutoConfig.for_model(**{k: v for k, v in sizes.items() if v is not None})
    assert ModelConfig.from_hf(sizes) == ModelConfig.from_hf(theirs.to_dict())


@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_what_to_hf_writes() -> None:
    transformers = pytest.importorskip("transformers")
    config = ModelConfig(100, 64, 96, 4, 4, sliding_window=8, windowed_layers=(1, 3))
    theirs = transformers.AutoConfig.for_model(**config.to_hf())
    assert theirs.layer_types == ["full_attention", "sliding_attention"] * 2
    assert ModelConfig.from_hf(theirs.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel.*LlamaForCausalLM"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"model_type": None, "architectures": None}, "not one that picoLLM runs"),
        ({"hidden_act": "gelu"}, "'gelu'; picoLLM runs 'silu'"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "multiple of num_key_value_heads"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"head_dim": 7}, "head_dim is 7"),
        ({"rope_scaling": {"rope_type": "mrope"}}, "RoPE type 'mrope'.*linear"),
        ({"rope_scaling": {"rope_type": "linear"}}, "needs 'factor'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": "big"}}, "'factor' is 'big'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "mystery": 1}}, "no parameter 'mystery'"),
        ({"partial_rotary_factor": 0.5}, "whole heads only"),
        ({"rope_theta": -1}, "rope_theta is -1"),
        (
            {"model_type": "qwen2", "architectures": None, "num_key_value_heads": 4,
             "use_sliding_window": True,
             "sliding_window": 4,
             "layer_types": ["chunked_attention"] * 4},
            "layer_types",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        ModelConfig.from_hf({**LLAMA, **changes})


def test_a_wrong_size_in_code_is_an_input_error() -> None:
    with pytest.raises(InputError, match="hidden_size is 0"):
        ModelConfig(100, 0, 96, 4, 4)


def test_matrix_parameters_are_what_multiplies_a_token() -> None:
    config = ModelConfig(100, 64, 96, 2, 4, num_key_value_heads=2)
    layer = 64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 96
    assert config.num_matrix_parameters == 2 * layer + 100 * 64
