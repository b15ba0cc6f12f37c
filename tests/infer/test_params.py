"""Sampling parameters say at once what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

from picollm.errors import InputError
from picollm.infer.params import SamplingParams


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", -1),
        ("repetition_penalty", 0),
        ("seed", "x"),
        ("stop", [""]),
        ("stop", [3]),
        ("logprobs", -1),
    ],
)
def test_a_bad_value_is_named(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{name} is "):
        SamplingParams(**{name: value})


def test_stop_is_one_string_or_several() -> None:
    assert SamplingParams(stop="END").stop == ("END",)
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")
