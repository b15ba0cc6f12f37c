"""Native operations equal the plain formulas, and so do their gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from picollm.model import kernels, native

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
    "norm beside a stream": (
        lambda x, w: torch.cat(kernels.fork_rms_norm(x, w, 1e-5), -1),
        [(T, E), (E,)],
    ),
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
    for is_plain in (True, False):
        monkeypatch.setattr(native, "is_plain", lambda _, on=is_plain: on)
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


def test_a_norm_whose_output_nobody_used_passes_the_streams_gradient_on() -> None:
    x, w = _inputs(torch.float32, (T, E), (E,))
    stream, _ = kernels.fork_rms_norm(x, w, 1e-5)
    stream.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.ones(T, E)) and w.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_cross_entropy_equals_torchs_and_leaves_its_gradient(dtype: torch.dtype, arithmetic: str) -> None:
    (logits,) = _inputs(dtype, (7, 301))
    with torch.no_grad():
        logits.mul_(8)[3, 5] = 200.0  # nearly all of the probability
    targets = torch.tensor([0, 300, 5, 5, 17, 16, 15])
    truth = logits.detach().double().requires_grad_()
    expected = 0.5 * torch.nn.functional.cross_entropy(truth, targets, reduction="sum")
    expected.backward()
    given = logits.detach().clone()
    loss = kernels.cross_entropy_(given, targets, 0.5)
    near = 1e-6 if dtype == torch.float32 else 4e-3
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(given.double(), truth.grad, rtol=near, atol=near / 10)


def test_no_targets_cost_nothing(arithmetic: str) -> None:
    assert kernels.cross_entropy_(torch.zeros(0, 40), torch.zeros(0, dtype=torch.int64), 1.0) == 0.0


def test_a_loss_that_is_not_a_number_stays_none(arithmetic: str) -> None:
    logits = torch.zeros(2, 40, dtype=torch.bfloat16)
    logits[1, 3] = torch.nan
    assert kernels.cross_entropy_(logits, torch.tensor([0, 0]), 1.0).isnan()
    assert logits[1].isnan().all() and not logits[0].isnan().any()


def test_gradients_are_added_in_float32(arithmetic: str) -> None:
    (x,) = _inputs(torch.bfloat16, (33, 17))
    for piece in (x.detach(), x.detach()[0]):
        total = torch.full(piece.shape, 0.1)
        kernels.add_(total, piece)
        assert torch.equal(total, 0.1 + piece.float())


def test_a_target_outside_the_vocabulary_is_an_error(arithmetic: str) -> None:
    for target in (-1, 40):
        with pytest.raises((IndexError, RuntimeError)):
            kernels.cross_entropy_(torch.zeros(1, 40), torch.tensor([target]), 1.0)
