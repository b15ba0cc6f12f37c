"""What is written out equals the plain formulas, and so do its gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from picollm.model import kernels

T, E, HEADS, D = 40, 24, 3, 8


def _inputs(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def _angles() -> tuple[Tensor, Tensor]:
    angle = torch.arange(T)[:, None] / (1 + torch.arange(D // 2))
    return angle.cos(), angle.sin()


CASES: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "linear": (lambda x, w: kernels.linear(x, w, None), [(T, E), (16, E)]),
    "linear with bias": (kernels.linear, [(T, E), (16, E), (16,)]),
    "norm": (lambda x, w: kernels.rms_norm(x, w, 1e-5), [(T, E), (E,)]),
    "norm of heads": (lambda x, w: kernels.rms_norm(x, w, 1e-5), [(T, HEADS, D), (D,)]),
    "gate": (kernels.gate, [(T, E), (T, E)]),
    "rotate": (lambda x: kernels.rotate(x, _angles()), [(T, HEADS, D)]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_results_and_gradients_equal_the_plain_formulas(
    case: tuple[Callable[..., Tensor], list[tuple[int, ...]]],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operation, shapes = case
    found = []
    for written_out in (True, False):
        monkeypatch.setattr(kernels, "_written_out", lambda _, on=written_out: on)
        inputs = _inputs(dtype, *shapes)
        out = operation(*inputs)
        weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(dtype)
        found.append([out, *torch.autograd.grad(out, inputs, weights)])
    near = 1e-5 if dtype == torch.float32 else 3e-2
    for one, other in zip(*found, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other, rtol=near, atol=near)


def test_inference_runs_the_plain_formulas() -> None:
    x, w = _inputs(torch.float32, (T, E), (16, E))
    with torch.no_grad():
        assert torch.equal(kernels.linear(x, w, None), torch.nn.functional.linear(x, w))
    assert type(kernels.linear(x, w, None).grad_fn).__name__ == "_LinearBackward"
