"""How a reply is drawn and where it ends; plain data, importable without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from picollm.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How one reply is drawn and where it ends; temperature 0 is greedy.

    ``stop`` strings end a reply in front of them, ``stop_token_ids`` at them. ``logprobs=n`` reports each
    token's log-probability under the model (before penalty and temperature) and the ``n`` most likely
    alternatives.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the most likely tokens until their probabilities reach this sum."""
    min_p: float = 0.0
    """Keep tokens at least this fraction as likely as the most likely one."""
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        _expect_integer("max_tokens", self.max_tokens, minimum=1)
        _expect_integer("top_k", self.top_k, minimum=0)
        _expect_number("temperature", self.temperature, 0.0, 100.0)
        _expect_number("top_p", self.top_p, 0.0, 1.0)
        _expect_number("min_p", self.min_p, 0.0, 1.0)
        _expect_number("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        if self.top_p == 0:
            raise InputError(
                "top_p is 0; expected more than 0, up to 1. For greedy decoding use temperature 0."
            )
        if self.seed is not None:
            _expect_integer("seed", self.seed, minimum=None)
        if self.logprobs is not None:
            _expect_integer("logprobs", self.logprobs, minimum=0)
        if not all(isinstance(s, str) and s for s in stop):
            raise InputError(f"stop is {self.stop!r}; expected non-empty strings.")

    @property
    def is_greedy(self) -> bool:
        """Return whether the most likely token is always taken."""
        return self.temperature == 0

    @property
    def is_plain(self) -> bool:
        """Return whether nothing but the logits and the temperature decides the distribution."""
        return self.top_k == 0 and self.top_p == 1.0 and self.min_p == 0.0


def _expect_integer(name: str, value: object, minimum: int | None) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or (minimum is not None and value < minimum):
        at_least = "" if minimum is None else f" of at least {minimum}"
        raise InputError(f"{name} is {value!r}; expected a whole number{at_least}.")


def _expect_number(name: str, value: object, low: float, high: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= float(value) <= high:  # type: ignore[arg-type]
        raise InputError(f"{name} is {value!r}; expected a number from {low:g} to {high:g}.")
