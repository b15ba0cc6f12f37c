"""What a model is made of, and how a Hugging Face ``config.json`` says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from picollm.errors import CheckpointError, InputError
from picollm.model.rope import Rope

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# What transformers assumes where a config.json says nothing.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131_072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"max_position_embeddings": 32_768, "num_key_value_heads": 32},
    "qwen3": {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "head_dim": 128},
}
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a decoder-only transformer of the Llama family; field names are Hugging Face's.

    The defaults are what picoLLM trains from scratch: Qwen3 (QK-norm, no biases, tied embeddings). Leave
    ``head_dim`` and ``num_key_value_heads`` out to get ``hidden_size / num_attention_heads`` and full heads.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int = 0
    head_dim: int = 0
    model_type: str = "qwen3"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    """Biases on query, key and value; on the output projection too, except for Qwen2."""
    mlp_bias: bool = False
    sliding_window: int | None = None
    windowed_layers: tuple[int, ...] = ()
    """Layers that see only the last ``sliding_window`` tokens."""
    rope: Rope = field(default_factory=Rope)

    def __post_init__(self) -> None:
        heads = self.num_attention_heads
        # A frozen dataclass completes itself through object.__setattr__: the derived defaults are part of it.
        object.__setattr__(self, "num_key_value_heads", self.num_key_value_heads or heads)
        object.__setattr__(self, "head_dim", self.head_dim or self.hidden_size // max(heads, 1))
        for name in (*_SIZES, "num_key_value_heads", "head_dim", "max_position_embeddings"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; expected a positive whole number.")
        if self.model_type not in ARCHITECTURES:
            raise InputError(f"model_type is {self.model_type!r}; picoLLM runs {', '.join(ARCHITECTURES)}.")
        if heads % self.num_key_value_heads:
            raise InputError(
                f"num_attention_heads is {heads}; expected a multiple of num_key_value_heads "
                f"({self.num_key_value_heads})."
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim is {self.head_dim}; rotary embeddings need an even number.")

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> ModelConfig:
        """Return the configuration that the dictionary of a ``config.json`` describes.

        Raises:
            CheckpointError: an architecture, activation or RoPE type that picoLLM does not run, or a missing
                or impossible size.
        """
        kind = config.get("model_type")
        named = config.get("architectures") or [ARCHITECTURES.get(str(kind))]
        if kind not in ARCHITECTURES or named != [ARCHITECTURES[kind]]:
            raise CheckpointError(
                f"architecture {', '.join(map(str, named))} (model_type {kind!r}) is not one that picoLLM "
                f"runs: {', '.join(ARCHITECTURES.values())}."
            )
        if config.get("hidden_act", "silu") != "silu":
            raise CheckpointError(f"hidden_act is {config['hidden_act']!r}; picoLLM runs 'silu'.")
        if config.get("quantization_config"):
            raise CheckpointError(
                "the weights are quantized; picoLLM runs float32, bfloat16 and float16 weights."
            )
        missing = [name for name in _SIZES if config.get(name) is None]
        if missing:
            raise CheckpointError(f"config.json lacks {', '.join(missing)}.")
        merged = {**_DEFAULTS[kind], **config}
        window, windowed = _windows(kind, merged)
        try:
            return cls(
                **{name: merged[name] for name in _SIZES},
                num_key_value_heads=merged.get("num_key_value_heads") or 0,
                head_dim=merged.get("head_dim") or 0,
                model_type=kind,
                max_position_embeddings=merged["max_position_embeddings"],
                rms_norm_eps=merged.get("rms_norm_eps", 1e-6),
                tie_word_embeddings=merged.get("tie_word_embeddings", False),
                attention_bias=kind == "qwen2" or (kind != "mistral" and merged.get("attention_bias", False)),
                mlp_bias=kind == "llama" and merged.get("mlp_bias", False),
                sliding_window=window,
                windowed_layers=windowed,
                rope=Rope.from_hf(config),
            )
        except InputError as error:
            raise CheckpointError(f"config.json cannot be run: {error}") from error

    def to_hf(self) -> dict[str, Any]:
        """Return the dictionary for ``config.json``; ``from_hf`` of it equals this configuration."""
        plain = [f.name for f in fields(self) if f.name not in ("rope", "sliding_window", "windowed_layers")]
        config: dict[str, Any] = {
            "architectures": [ARCHITECTURES[self.model_type]],
            **{name: getattr(self, name) for name in plain},
            **self.rope.to_hf(),
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "attention_dropout": 0.0,
            "use_cache": True,
        }
        if self.model_type == "mistral":
            config["sliding_window"] = self.sliding_window
        elif self.model_type != "llama":
            layers = range(self.num_hidden_layers)
            kinds = ["sliding_attention" if i in self.windowed_layers else "full_attention" for i in layers]
            first = min(self.windowed_layers, default=self.num_hidden_layers)
            config |= {
                "use_sliding_window": self.sliding_window is not None,
                "sliding_window": self.sliding_window,
            }
            config |= {"max_window_layers": first, "layer_types": kinds}
        return config

    def window(self, layer_index: int) -> int | None:
        """Return how many tokens, itself included, a query of this layer sees; None for all before it."""
        return self.sliding_window if layer_index in self.windowed_layers else None

    @property
    def num_matrix_parameters(self) -> int:
        """Return the weights that multiply every token: all matrices and the output head, no look-ups."""
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        layer = 2 * self.hidden_size * (q + kv) + 3 * self.hidden_size * self.intermediate_size
        return self.num_hidden_layers * layer + self.vocab_size * self.hidden_size

    @property
    def num_parameters(self) -> int:
        """Return the number of trainable weights, tied embeddings counted once."""
        q, kv = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        vectors = 2 * self.hidden_size + (2 * self.head_dim if self.model_type == "qwen3" else 0)
        vectors += (q + 2 * kv) if self.attention_bias else 0
        vectors += self.hidden_size if self.output_bias else 0
        vectors += (2 * self.intermediate_size + self.hidden_size) if self.mlp_bias else 0
        embeddings = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        return self.num_matrix_parameters + embeddings + self.num_hidden_layers * vectors + self.hidden_size

    @property
    def output_bias(self) -> bool:
        """Return whether attention's output projection has a bias: Qwen2's never has."""
        return self.attention_bias and self.model_type != "qwen2"

    @property
    def qk_norm(self) -> bool:
        """Return whether queries and keys are normalized per head, as in Qwen3."""
        return self.model_type == "qwen3"


def _windows(kind: str, config: Mapping[str, Any]) -> tuple[int | None, tuple[int, ...]]:
    """Return the window and the layers it applies to, by each family's own rule."""
    window, layers = config.get("sliding_window"), range(config["num_hidden_layers"])
    if kind == "llama" or window is None:
        return None, ()
    if kind == "mistral":
        return window, tuple(layers)
    if not config.get("use_sliding_window", False):
        return None, ()
    kinds = config.get("layer_types")
    if kinds is None:
        return window, tuple(i for i in layers if i >= config.get("max_window_layers", 28))
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    if unknown or len(kinds) != len(layers):
        raise CheckpointError(
            f"layer_types is {kinds}; expected full_attention or sliding_attention per layer."
        )
    return window, tuple(i for i in layers if kinds[i] == "sliding_attention")
