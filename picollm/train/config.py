"""TrainConfig: every decision of a training run that is not data, in one frozen record."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from picollm.errors import InputError

MOST_EPOCHS = 1000
# These decide what is written and when, not what is learned: a run may be resumed with other values.
OUTPUT_FIELDS = frozenset({"log_every", "save_every", "keep_states", "validate_every"})


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, with which optimizer and schedule, and what to write on the way."""

    epochs: float | None = None
    """Passes over the examples. Give exactly one of epochs, num_tokens and num_steps."""
    num_tokens: int | None = None
    """Tokens to train on: ``num_tokens / tokens_per_step`` steps, rounded up."""
    num_steps: int | None = None
    """Optimizer steps to take."""
    max_seconds: float | None = None
    """Shorten the horizon to what fits in this time, judged once by the pace of the first steps."""

    tokens_per_step: int | None = None
    """Token budget of a step over all processes: a multiple of the batch's. None: one batch."""
    optimizer: Literal["muon", "adamw"] = "adamw"
    """``muon``: Muon for hidden matrices and AdamW for the rest; ``adamw``: AdamW for all."""
    learning_rate: float = 1e-3
    """Peak learning rate of hidden matrices; Muon's is scaled to AdamW's update size."""
    embedding_learning_rate: float | None = None
    """Peak learning rate of embeddings, head and norms. None: the same as ``learning_rate``."""
    weight_decay: float = 0.1
    """Decoupled decay of hidden matrices; embeddings and norms never decay."""
    beta1: float = 0.9
    """AdamW: memory of the gradient."""
    beta2: float = 0.95
    """AdamW: memory of the squared gradient."""
    momentum: float = 0.95
    """Muon: memory of the gradient (Nesterov)."""
    clip_norm: float | None = 1.0
    """Scale a gradient down whose global norm is larger. None: never."""

    schedule: Literal["constant", "linear", "cosine", "wsd"] = "linear"
    """Shape after the warm-up; ``wsd`` holds the peak and falls linearly over the last ``decay_fraction``."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly to its peak."""
    decay_fraction: float = 0.4
    """``wsd``: share of the run that the final descent takes."""
    final_fraction: float = 0.0
    """Learning rate at the end, as a share of the peak."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """What the model computes in; masters, optimizer and loss are fp32. ``auto`` measures both on a batch."""
    device: str = "cpu"
    """Where to train: ``cpu``, ``cuda`` (each process takes its own), ``mps``."""
    compile: bool = False
    """Compile the layers with ``torch.compile``: for GPUs; on a CPU the native kernels are faster."""
    explosion_factor: float = 3.0
    """Stop when the smoothed loss exceeds this multiple of the lowest so far, or of 1 if that is lower."""

    keep: Literal["last", "best"] = "last"
    """Which weights the model ends with: the last, or those with the lowest mean of the validation losses."""

    log_every: int = 10
    """Steps per line of metrics."""
    validate_every: int | None = None
    """Steps between validations. None: only at the end, and with ``keep`` "best" up to ten times."""
    save_every: int = 200
    """Steps between saved training states."""
    keep_states: int = 2
    """How many of the newest states stay on disk."""

    def __post_init__(self) -> None:
        horizons = [self.epochs, self.num_tokens, self.num_steps]
        if sum(h is not None for h in horizons) != 1:
            raise InputError(
                f"epochs={self.epochs}, num_tokens={self.num_tokens}, num_steps={self.num_steps}: "
                "give exactly one of them, so that the end of the run is known at its start."
            )
        self._check(
            "positive", "epochs", "num_tokens", "num_steps", "max_seconds", "tokens_per_step", "learning_rate"
        )
        self._check(
            "positive", "embedding_learning_rate", "clip_norm", "log_every", "validate_every", "save_every"
        )
        self._check("positive", "keep_states", "explosion_factor")
        self._check(
            "a share from 0 to 1", "beta1", "beta2", "momentum", "decay_fraction", "final_fraction", high=1.0
        )
        self._check("0 or more", "weight_decay", "warmup_steps")
        for name in ("beta1", "beta2", "momentum"):
            if getattr(self, name) == 1.0:
                raise InputError(
                    f"{name} is 1; an optimizer that never forgets never learns. Usual: 0.9 to 0.99."
                )
        if (self.epochs or 0) > MOST_EPOCHS:
            raise InputError(f"epochs is {self.epochs:g}; at most {MOST_EPOCHS}. Usual: 1 to 3.")
        for name in ("learning_rate", "embedding_learning_rate"):
            if (getattr(self, name) or 0.0) > 1.0:
                raise InputError(
                    f"{name} is {getattr(self, name):g}; anything above 1 diverges. Usual: 1e-5 to 2e-2."
                )
        if self.weight_decay * self.learning_rate > 1.0:
            raise InputError(
                f"weight_decay is {self.weight_decay:g} at a learning rate of {self.learning_rate:g}: "
                "weights would change their sign in every step. Usual: 0 to 0.1; the product is 1 at most."
            )

    def _check(self, rule: str, *names: str, high: float | None = None) -> None:
        for name in names:
            value = getattr(self, name)
            if value is None:
                continue
            low_enough = value <= high if high is not None else math.isfinite(value)
            legal = low_enough and (value > 0 if rule == "positive" else value >= 0)
            if not legal:
                raise InputError(f"{name} is {value}; it must be {rule}.")

    def learning(self) -> dict[str, Any]:
        """Return the fields that decide what is learned: a state only continues a run where these agree."""
        decides = {"validate_every"} if self.keep == "best" else set()
        return {n: value for n, value in asdict(self).items() if n not in OUTPUT_FIELDS or n in decides}
