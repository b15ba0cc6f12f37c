"""One call for all texts of a stream: torch's real ``varlen_attn``, its CUDA kernels replaced by formulas.

Everything but FlashAttention itself runs here: where texts begin, windows, shared heads, selected queries,
and torch's own way back. On a machine with a GPU the same tests run on the kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from picollm.errors import PicoError
from picollm.model import varlen
from picollm.model.attention import Documents
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.train import compiling
from picollm.train.batches import NO_TARGET, Batch
from picollm.train.step import summed_loss

pytest.importorskip("torch.nn.attention.varlen", reason="torch has varlen_attn since 2.10")
HAS_CUDA = torch.cuda.is_available() and varlen.is_possible(torch.device("cuda"))
IS_POSSIBLE = varlen.is_possible
DEVICE = "cuda" if HAS_CUDA else "cpu"
LENGTHS = [5, 250, 1, 139, 40]


def _texts(offsets: Tensor, left: int | None, right: int | None) -> Iterator[tuple[slice, Tensor]]:
    """Yield where each text lies and its mask, as torch documents windows: tokens before and after."""
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        ahead = torch.arange(end - start) - torch.arange(end - start)[:, None]
        mask = torch.ones_like(ahead, dtype=torch.bool)
        for limit, distance in ((right, ahead), (left, -ahead)):
            if limit is not None and limit >= 0:
                mask &= distance <= limit
        yield slice(start, end), mask


def _shared(x: Tensor, heads: int) -> Tensor:
    return x.float().repeat_interleave(heads, 1)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, _: Tensor, *rest: Any, **options: Any
) -> tuple[Tensor, ...]:
    out, log_sum, group = torch.empty_like(q), torch.empty(q.shape[1], len(q)), q.shape[1] // k.shape[1]
    for at, mask in _texts(offsets, options["window_size_left"], options["window_size_right"]):
        scores = torch.einsum("ihd,jhd->hij", q[at].float(), _shared(k[at], group)) * options["scale"]
        scores = scores.masked_fill(~mask, -torch.inf)
        log_sum[:, at] = scores.logsumexp(-1)
        out[at] = torch.einsum("hij,jhd->ihd", scores.softmax(-1), _shared(v[at], group)).to(q.dtype)
    return out, log_sum, torch.zeros(2, dtype=torch.uint64), torch.empty(0), torch.empty(0)


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum: Tensor, offsets: Tensor, *rest: Any,
    **options: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    group, grads = q.shape[1] // k.shape[1], [torch.zeros(x.shape) for x in (q, k, v)]
    for at, mask in _texts(offsets, options["window_size_left"], options["window_size_right"]):
        asked, keys, values = q[at].float(), _shared(k[at], group), _shared(v[at], group)
        scores = torch.einsum("ihd,jhd->hij", asked, keys) * options["scale"]
        weights, g = (scores - log_sum[:, at, None]).exp() * mask, grad[at].float()
        mean = (g * out[at].float()).sum(-1).T[..., None]
        pull = weights * (torch.einsum("ihd,jhd->hij", g, values) - mean) * options["scale"]
        grads[0][at] = torch.einsum("hij,jhd->ihd", pull, keys)
        for total, way, to in ((grads[1], pull, asked), (grads[2], weights, g)):
            total[at] = torch.einsum("hij,ihd->jhd", way, to).unflatten(1, (-1, group)).sum(2)
    return tuple(x.to(q.dtype) for x in grads)


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On a CPU, put formulas where torch's function expects FlashAttention."""
    if HAS_CUDA:
        yield
        return
    monkeypatch.setattr(varlen, "is_possible", lambda device: True)
    monkeypatch.setattr(varlen, "DTYPES", (torch.float32, torch.bfloat16))
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_flash_attention_forward", _forward, "CPU")
        library.impl("_flash_attention_backward", _backward, "CPU")
        yield


def _results(
    select: Tensor | None,
    inputs: list[Tensor],
    window: int | None,
    monkeypatch: pytest.MonkeyPatch,
    one: bool,
) -> list[Tensor]:
    """Return output and gradients; in ``one`` call, or by a call per text in float64."""
    monkeypatch.setattr(varlen.Varlen, "takes", lambda self, q: one)
    positions = torch.cat([torch.arange(length) for length in LENGTHS]).to(DEVICE)
    q, k, v = (x.clone().requires_grad_() for x in inputs)
    asking = q if select is None else q[select]
    out = Documents.of(positions, select).attend(asking, k, v, 0.3, window)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out)
    return [out, *torch.autograd.grad(out, (q, k, v), weights)]


@pytest.mark.parametrize("shares_heads", [True, False], ids=["since torch 2.12", "torch 2.11"])
@pytest.mark.parametrize("window", [None, 70])
@pytest.mark.parametrize("selected", [False, True], ids=["all", "selected"])
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(6, 6, 64), (6, 2, 16)])
def test_one_call_equals_a_call_per_text(
    heads: int,
    kv_heads: int,
    width: int,
    selected: bool,
    window: int | None,
    shares_heads: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not shares_heads:
        monkeypatch.setattr(varlen, "inspect", _OlderSignature)
    generator = torch.Generator().manual_seed(3)
    shapes = [(sum(LENGTHS), n, width) for n in (heads, kv_heads, kv_heads)]
    inputs = [torch.randn(shape, generator=generator).to(DEVICE, torch.bfloat16) for shape in shapes]
    select = torch.arange(0, sum(LENGTHS), 3, device=DEVICE) if selected else None
    truth = _results(select, [x.double() for x in inputs], window, monkeypatch, one=False)
    for ours, true in zip(_results(select, inputs, window, monkeypatch, one=True), truth, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - true).norm() < 5e-3 * true.norm()


class _OlderSignature:
    """Of ``inspect`` what the module uses; torch 2.11's function has no ``enable_gqa``."""

    class signature:
        def __init__(self, function: Any) -> None:
            self.parameters = {"window_size": None}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # asked by dynamo
def test_compiled_layers_learn_the_same_from_streams_of_any_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    if not HAS_CUDA:
        monkeypatch.setattr(compiling, "BACKEND", "aot_eager")  # inductor wants a C++ compiler
    config = ModelConfig(64, 32, 48, 3, 4, num_key_value_heads=2)
    with torch.device(DEVICE):
        model, plain = Model(config), Model(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for one, other in zip(model.parameters(), plain.parameters(), strict=True):
            other.copy_(one.normal_(0, 0.2).bfloat16().float())
            one.copy_(other)
    dtype, near = (torch.bfloat16, 0.1) if HAS_CUDA else (torch.float32, 1e-4)
    model = model.to(dtype)
    with compiling.compiled(model.model.layers, True):
        for number in range(4):
            lengths = torch.randint(5, 60, (3 + number,), generator=generator)
            positions = torch.cat([torch.arange(int(n)) for n in lengths])
            ids, targets = torch.randint(0, 64, (2, len(positions)), generator=generator)
            targets[::2] = NO_TARGET
            batch = Batch(ids, targets, positions, int((targets != NO_TARGET).sum())).to(torch.device(DEVICE))
            for each in (model, plain):
                summed_loss(each, batch, 1 / batch.num_targets).backward()
        with compiling.uncompiled(True), torch.no_grad():
            assert torch.isfinite(summed_loss(model, batch))
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert (one.grad.float() - other.grad).norm() < near * other.grad.norm()
    # One for all layers, one for the last, which selects; again when a size was first taken as fixed.
    assert counters["stats"]["unique_graphs"] <= 4 and not counters["graph_break"]
    assert all(layer._compiled_call_impl is None for layer in model.model.layers)


def test_a_compiler_that_cannot_work_is_one_line() -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    with (
        pytest.raises(PicoError, match=r"torch.compile does not work here: .*no compiler"),
        compiling.compiled([torch.nn.Linear(1, 1)], True),
    ):
        raise BackendCompilerFailed(print, RuntimeError("no compiler"), None)


def test_a_cpu_has_no_flash_attention() -> None:
    assert not IS_POSSIBLE(torch.device("cpu"))
