"""Rotary position embeddings: which angle each position turns each pair of channels by.

The layout is Hugging Face's "half split": channel ``i`` is paired with channel ``i + D/2``, so imported
weights need no permutation. Four rescalings for contexts longer than the trained one are known, each under
the name that ``config.json`` gives it.

Shapes: T tokens, D head width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from picollm.errors import CheckpointError

REQUIRED: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
OPTIONAL: dict[str, tuple[str, ...]] = {
    "linear": ("original_max_position_embeddings",),
    "dynamic": ("original_max_position_embeddings",),
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
}
_SPELLING = {"type", "rope_type", "rope_theta", "partial_rotary_factor", "finetuned"}


@dataclass(frozen=True)
class Rope:
    """The rotation of queries and keys: base wavelength, kind of rescaling, and that kind's numbers."""

    theta: float = 10_000.0
    type: str = "default"
    parameters: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Rope:
        """Return the rotation that a ``config.json`` describes, in transformers 4 or 5 spelling.

        Version 4 has ``rope_theta`` beside ``rope_scaling``; version 5 has both inside ``rope_parameters``.

        Raises:
            CheckpointError: an unknown type, a missing or unknown number, or rotation of a part of the head.
        """
        found = {**(config.get("rope_parameters") or {}), **(config.get("rope_scaling") or {})}
        kind = found.get("rope_type") or found.get("type") or "default"
        if kind not in REQUIRED:
            raise CheckpointError(f"RoPE type {kind!r} is not known; picoLLM runs {', '.join(REQUIRED)}.")
        partial = found.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1.0
        if partial != 1.0:
            raise CheckpointError(
                f"partial_rotary_factor is {partial}; picoLLM rotates whole heads only (1.0)."
            )
        parameters = {k: v for k, v in found.items() if k not in _SPELLING and v is not None}
        if kind in ("llama3", "yarn"):
            trained = config.get("original_max_position_embeddings", config.get("max_position_embeddings"))
            if trained is not None:
                parameters.setdefault("original_max_position_embeddings", trained)
        theta = found.get("rope_theta") or config.get("rope_theta") or 10_000.0
        return cls(float(theta), kind, {} if kind == "default" else parameters)

    def __post_init__(self) -> None:
        required = REQUIRED[self.type]
        for name in required:
            if name not in self.parameters:
                raise CheckpointError(
                    f"RoPE type {self.type!r} needs {name!r}, which the configuration lacks."
                )
        for name, value in self.parameters.items():
            if name not in (*required, *OPTIONAL.get(self.type, ())):
                raise CheckpointError(f"RoPE type {self.type!r} has no parameter {name!r}.")
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise CheckpointError(f"RoPE parameter {name!r} is {value!r}; expected a number.")
        if self.theta <= 0:
            raise CheckpointError(f"rope_theta is {self.theta}; expected a positive number.")

    def to_hf(self) -> dict[str, Any]:
        """Return the fields of ``config.json`` in the spelling that transformers 4 and 5 both read."""
        scaling = None if self.type == "default" else {"rope_type": self.type, **self.parameters}
        return {"rope_theta": self.theta, "rope_scaling": scaling}

    @property
    def magnitude(self) -> float:
        """Return the factor on cosine and sine: YaRN's attention temperature (arXiv 2309.00071), else 1."""
        if self.type != "yarn":
            return 1.0
        given = self.parameters.get("attention_factor")
        if given is not None:
            return given
        mscale, mscale_all = self.parameters.get("mscale"), self.parameters.get("mscale_all_dim")
        if mscale and mscale_all:
            return self._temperature(mscale) / self._temperature(mscale_all)
        return self._temperature(1.0)

    def _temperature(self, mscale: float) -> float:
        factor = self.parameters["factor"]
        return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0

    def frequencies(self, head_dim: int, device: torch.device) -> Tensor:
        """Return each channel pair's angle per position, float32 ``[D/2]`` ("dynamic": in a short text)."""
        channel = torch.arange(0, head_dim, 2, dtype=torch.int64, device=device).float()
        frequency = 1.0 / (self.theta ** (channel / head_dim))
        if self.type == "linear":
            return frequency / self.parameters["factor"]
        if self.type == "llama3":
            return _llama3(frequency, self.parameters)
        if self.type == "yarn":
            return _yarn(frequency, self.theta, self.parameters)
        return frequency

    def cos_sin(self, positions: Tensor, head_dim: int, trained_length: int) -> tuple[Tensor, Tensor]:
        """Return float32 ``cos, sin``, each ``[T, D/2]``, for ``positions[T]``.

        Only "dynamic" looks at ``trained_length``: it stretches the base for every run of consecutive
        positions (a document, or the newest tokens of a request) by how far the run reaches beyond it.
        """
        if self.type == "dynamic":
            frequency = self._dynamic_frequencies(positions, head_dim, trained_length)
        else:
            frequency = self.frequencies(head_dim, positions.device)
        angle = positions[:, None].float() * frequency
        return angle.cos() * self.magnitude, angle.sin() * self.magnitude

    def _dynamic_frequencies(self, positions: Tensor, head_dim: int, trained_length: int) -> Tensor:
        factor = self.parameters["factor"]
        starts = torch.ones_like(positions, dtype=torch.bool)
        starts[1:] = positions[1:] != positions[:-1] + 1
        run = starts.cumsum(0) - 1
        last = torch.cat([positions[:-1][starts[1:]], positions[-1:]])
        length = last[run].add(1).clamp(min=trained_length).float()
        stretch = (factor * length / trained_length - (factor - 1)) ** (head_dim / (head_dim - 2))
        exponent = torch.arange(0, head_dim, 2, dtype=torch.int64, device=positions.device).float() / head_dim
        return 1.0 / ((self.theta * stretch)[:, None] ** exponent)


def _llama3(frequency: Tensor, parameters: Mapping[str, float]) -> Tensor:
    """Return Llama 3.1's frequencies: slow ones divided by ``factor``, fast ones kept, a ramp between."""
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = parameters["original_max_position_embeddings"] * frequency / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return frequency * (keep + (1 - keep) / parameters["factor"])


def _yarn(frequency: Tensor, theta: float, parameters: Mapping[str, float]) -> Tensor:
    """Return YaRN's frequencies (arXiv 2309.00071): interpolated where a context holds few full turns."""
    half = frequency.numel()
    trained = parameters["original_max_position_embeddings"]

    def channel_with(turns: float) -> float:
        return half * math.log(trained / (turns * 2 * math.pi)) / math.log(theta)

    low = channel_with(parameters.get("beta_fast") or 32)
    high = channel_with(parameters.get("beta_slow") or 1)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    ramp = (torch.arange(half, device=frequency.device).float() - low) / (high - low or 0.001)
    stretched = ramp.clamp(0.0, 1.0)
    return frequency * (1 - stretched) + frequency / parameters["factor"] * stretched
