"""The kernels of ``native.c`` against torch, at sizes that fill no block, on one thread and on several."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from picollm.model import native
from picollm.model.attention import Documents

pytestmark = pytest.mark.skipif(
    not native.is_available(), reason="the native kernels were not built; install with a C compiler"
)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def _stream(lengths: list[int], heads: int, kv_heads: int, width: int) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    positions = torch.cat([torch.arange(length) for length in lengths])
    shapes = [(len(positions), n, width) for n in (heads, kv_heads, kv_heads)]
    return positions, [torch.randn(shape, generator=generator) for shape in shapes]


def _results(documents: Documents, inputs: list[Tensor], window: int | None) -> list[Tensor]:
    q, k, v = (tensor.clone().requires_grad_() for tensor in inputs)
    asking = q if documents.select is None else q[documents.select]
    out = documents.attend(asking, k, v, 0.3, window)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out.dtype)
    return [out, *torch.autograd.grad(out, (q, k, v), weights)]


@DTYPES
@pytest.mark.parametrize("window", [None, 70])
@pytest.mark.parametrize("selected", [False, True], ids=["all", "selected"])
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(6, 6, 64), (6, 2, 16), (4, 1, 40), (6, 3, 21)])
@pytest.mark.parametrize(
    "lengths", [[300], [128, 64, 192], [5, 250, 1, 139, 40]], ids=["one", "even", "uneven"]
)
def test_attention_equals_one_call_per_document(
    lengths: list[int],
    heads: int,
    kv_heads: int,
    width: int,
    selected: bool,
    window: int | None,
    dtype: torch.dtype,
) -> None:
    """An odd width never makes pairs: bf16 goes the way of processors that do not multiply it."""
    positions, inputs = _stream(lengths, heads, kv_heads, width)
    select = torch.arange(len(positions))[positions % 3 != 1] if selected else None
    documents = Documents.of(positions, select)
    inputs = [tensor.to(dtype) for tensor in inputs]
    truth = _results(documents, [tensor.double() for tensor in inputs], window)  # float64 is torch's
    near = 1e-5 if dtype == torch.float32 else 5e-3
    for ours, true in zip(_results(documents, inputs, window), truth, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - true).norm() < near * true.norm()


def test_a_document_that_asks_nothing_gets_no_gradient() -> None:
    positions, inputs = _stream([30, 20, 10], 2, 2, 16)
    documents = Documents.of(positions, torch.arange(30, 50))
    _, *gradients = _results(documents, inputs, None)
    for gradient in gradients:
        assert gradient[30:50].abs().sum() > 0
        assert not gradient[:30].any() and not gradient[50:].any()


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_documents_never_meet(poison: float) -> None:
    positions, inputs = _stream([70, 70, 70], 4, 2, 16)
    documents = Documents.of(positions, None)
    before = _results(documents, inputs, None)
    for tensor in inputs:
        tensor[70:140] = poison
    for clean, beside in zip(before, _results(documents, inputs, None), strict=True):
        assert torch.equal(clean[:70], beside[:70]) and torch.equal(clean[140:], beside[140:])


@DTYPES
@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize(("inputs", "outputs"), [(37, 7), (64, 3), (16, 101)])
def test_a_product_of_few_rows_equals_torchs(
    rows: int, inputs: int, outputs: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight, bias, added = (
        torch.randn(shape, generator=generator).to(dtype)
        for shape in ((rows, inputs), (outputs, inputs), (outputs,), (rows, outputs))
    )
    for b, a in ((None, None), (bias, None), (None, added), (bias, added)):
        out = torch.full((rows, outputs), torch.nan, dtype=dtype)
        native.call("product", dtype, x, weight, b, a, rows, inputs, outputs, out)
        expected = x.double() @ weight.double().T
        expected = expected + (0 if b is None else b.double()) + (0 if a is None else a.double())
        near = 1e-5 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(out.double(), expected, rtol=near, atol=near)


def test_numbers_are_rounded_to_bfloat16_as_torch_rounds_them() -> None:
    x = torch.randn(64, 2, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    x[0, 0, :4] = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0])
    cos, sin = torch.full((64, 16), 1 / 3), torch.zeros(64, 16)
    out = torch.empty_like(x)
    native.call("rotate", x.dtype, x, cos, sin, 1.0, 64, 2, 16, out)
    expected = (x.float() * (1 / 3)).bfloat16()
    turned = x.isfinite() & x.roll(16, -1).isfinite()  # infinity times a sine of zero is no number
    assert torch.equal(out[turned], expected[turned]) and out[0, 0, 2].isnan()


def test_takes_only_what_the_kernels_can_read() -> None:
    x = torch.zeros(4, 6)
    assert native.takes(x) and native.takes(x, x[1:]) and native.takes(x.bfloat16())
    assert not native.takes(x, x.T)
    assert not native.takes(x, x.bfloat16())
    assert not native.takes(x.double()) and not native.takes(x.to("meta"))


def test_a_library_of_another_version_or_none_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    load = native._functions.__wrapped__
    assert load() is not None
    monkeypatch.setattr(native, "VERSION", native.VERSION + 1)
    assert load() is None
    monkeypatch.undo()
    monkeypatch.setenv("PICOLLM_NATIVE", "0")
    assert load() is None
    monkeypatch.undo()
    monkeypatch.setattr(native, "EXTENSION_SUFFIXES", [".nowhere"])
    assert load() is None
