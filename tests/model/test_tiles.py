"""Attention in tiles equals torch's own, document by document, and so do its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from picollm.model import attention, tiles
from picollm.model.attention import Documents

HEADS, D = 6, 16


def _stream(lengths: list[int], kv_heads: int) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    positions = torch.cat([torch.arange(length) for length in lengths])
    shapes = [(len(positions), heads, D) for heads in (HEADS, kv_heads, kv_heads)]
    return positions, [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]


def _results(documents: Documents, inputs: list[Tensor], window: int | None) -> list[Tensor]:
    q, k, v = (tensor.clone().requires_grad_() for tensor in inputs)
    asking = q if documents.select is None else q[documents.select]
    out = documents.attend(asking, k, v, 0.3, window)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out.dtype)
    return [out, *torch.autograd.grad(out, (q, k, v), weights)]


@pytest.mark.parametrize("window", [None, 70])
@pytest.mark.parametrize("selected", [False, True], ids=["all", "selected"])
@pytest.mark.parametrize("kv_heads", [6, 2])
@pytest.mark.parametrize(
    "lengths", [[300], [128, 64, 192], [5, 250, 1, 139, 40]], ids=["one", "even", "uneven"]
)
def test_tiles_equal_one_call_per_document(
    lengths: list[int], kv_heads: int, selected: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "TILED_LENGTH", 0)
    positions, inputs = _stream(lengths, kv_heads)
    select = torch.arange(len(positions))[positions % 3 != 1] if selected else None
    documents = Documents.of(positions, select)
    truth = _results(documents, [tensor.double() for tensor in inputs], window)
    for ours, true in zip(_results(documents, inputs, window), truth, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - true).norm() < 0.01 * true.norm()


def test_a_tile_sees_what_its_queries_see() -> None:
    positions = torch.cat([torch.arange(200), torch.arange(100)])
    first, second, third = tiles.cut(positions, torch.arange(300), None)
    assert [(tile.lo, tile.hi) for tile in (first, second, third)] == [(0, 128), (0, 256), (192, 320)]
    assert second.mask_RL[71].eq(0.0).nonzero().flatten().tolist() == list(range(200))  # token 199
    assert second.mask_RL[73].eq(0.0).nonzero().flatten().tolist() == [200, 201]  # token 201
    assert third.mask_RL[44:].eq(0.0).all(), "rows beyond the end ask nothing, and no row may be all hidden"


def test_only_long_documents_in_bf16_training_go_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    tiled: list[int] = []
    attend = tiles.attend
    monkeypatch.setattr(tiles, "attend", lambda q, *rest: tiled.append(len(q)) or attend(q, *rest))
    for lengths, dtype in (([110], torch.bfloat16), ([90, 90], torch.bfloat16), ([110], torch.float32)):
        positions, inputs = _stream(lengths, 2)
        _results(Documents.of(positions, None), [tensor.to(dtype) for tensor in inputs], None)
    assert tiled == [110]
