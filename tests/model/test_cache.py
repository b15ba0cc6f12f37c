"""The cached model equals the uncached one, however a text is cut and whoever runs beside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from picollm.model.cache import KVCache, Segment
from picollm.model.config import ModelConfig
from picollm.model.llama import Model

SHAPES = {
    "qwen3": {},
    "grouped": {"num_key_value_heads": 2},
    "llama": {"model_type": "llama", "num_key_value_heads": 1},
    "windowed": {"sliding_window": 5, "windowed_layers": (1,)},
}


@pytest.fixture(params=SHAPES, scope="module")
def model(request: pytest.FixtureRequest) -> Model:
    config = ModelConfig(64, 32, 48, 3, 4, **SHAPES[request.param])
    return randomized(Model(config))


def randomized(model: Model) -> Model:
    """Return the model with no projection at zero, so that attention matters."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.5 if parameter.ndim == 1 else 0.0, 0.3)
    return model.eval().requires_grad_(False)


def text(seed: int, length: int) -> Tensor:
    return torch.randint(0, 64, (length,), generator=torch.Generator().manual_seed(seed))


def alone(model: Model, ids: Tensor) -> Tensor:
    return model(ids, torch.arange(len(ids)))


def run(
    model: Model, cache: KVCache, decode: list[tuple[Tensor, Segment]], prefill: list[tuple[Tensor, Segment]]
) -> list[Tensor]:
    """Return the logits of each segment; each comes with its slot's whole text."""
    both = [*decode, *prefill]
    ids = torch.cat([text[s.start : s.start + s.length] for text, s in both])
    positions = torch.cat([torch.arange(s.start, s.start + s.length) for _, s in both])
    cache.reserve(max(s.start + s.length for _, s in both))
    logits = model(ids, positions, None, cache.view([s for _, s in decode], [s for _, s in prefill]))
    return list(logits.split([s.length for _, s in both]))


def test_a_packed_prefill_equals_separate_uncached_texts(model: Model, arithmetic: str) -> None:
    texts = [text(i, n) for i, n in enumerate((7, 1, 13))]
    cache = KVCache(model.config, 3, capacity=16)
    outs = run(model, cache, [], [(t, Segment(i, 0, len(t))) for i, t in enumerate(texts)])
    for out, ids in zip(outs, texts, strict=True):
        torch.testing.assert_close(out, alone(model, ids))


@pytest.mark.parametrize("pieces", [(1,) * 12, (5, 1, 6), (11, 1), (3, 9)])
def test_a_text_in_pieces_equals_the_whole(model: Model, pieces: tuple[int, ...], arithmetic: str) -> None:
    ids, cache, start = text(0, 12), KVCache(model.config, 2, capacity=4), 0
    outs = []
    for length in pieces:
        segment = (ids, Segment(1, start, length))
        single = length == 1
        outs += run(model, cache, [segment] if single else [], [] if single else [segment])
        start += length
    torch.testing.assert_close(torch.cat(outs), alone(model, ids))


@pytest.mark.parametrize("lengths", [(7,), (9, 2), (4, 4, 4), (9, 2, 6)])
def test_a_batched_decode_step_equals_each_text_alone(
    model: Model, lengths: tuple[int, ...], arithmetic: str
) -> None:
    texts = [text(i, n + 1) for i, n in enumerate(lengths)]
    cache = KVCache(model.config, 4, capacity=8)
    run(model, cache, [], [(t, Segment(i, 0, len(t) - 1)) for i, t in enumerate(texts)])
    outs = run(model, cache, [(t, Segment(i, len(t) - 1, 1)) for i, t in enumerate(texts)], [])
    for out, ids in zip(outs, texts, strict=True):
        torch.testing.assert_close(out, alone(model, ids)[-1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("window", [None, 70])
def test_a_decode_step_reads_what_each_slot_holds(
    dtype: torch.dtype, window: int | None, arithmetic: str
) -> None:
    """Lengths around the sizes of blocks, slots in any order, against attention written out in float64."""
    layers = () if window is None else (0,)
    config = ModelConfig(
        64, 32, 48, 1, 6, num_key_value_heads=2, head_dim=24, sliding_window=window, windowed_layers=layers
    )
    cache, generator = KVCache(config, 8, 200, dtype), torch.Generator().manual_seed(0)
    for kept in cache.layers[0]:
        kept.copy_(torch.randn(kept.shape, generator=generator))
    segments = [Segment(slot, n, 1) for slot, n in ((5, 0), (2, 1), (7, 63), (0, 64), (1, 66), (3, 190))]
    q, k, v = (torch.randn(6, n, 24, generator=generator).to(dtype) for n in (6, 2, 2))
    out = cache.view(segments, []).attend(0, q, k, v, 0.3)
    keys, values = (x.double() for x in cache.layers[0])
    for row, (slot, n, _) in enumerate(segments):
        assert torch.equal(cache.layers[0][0][slot, :, n], k[row])
        assert torch.equal(cache.layers[0][1][slot, :, n], v[row])
        seen = slice(0 if window is None else max(0, n + 1 - window), n + 1)
        for head in range(6):
            weights = (0.3 * keys[slot, head // 3, seen] @ q[row, head].double()).softmax(-1)
            expected = (weights @ values[slot, head // 3, seen]).to(dtype)
            near = 1e-5 if dtype == torch.float32 else 2e-2
            torch.testing.assert_close(out[row, head], expected, rtol=near, atol=near)


def test_decode_and_prefill_in_one_pass_equal_each_text_alone(model: Model, arithmetic: str) -> None:
    """Slot 1 is in the middle of a prompt while slots 0 and 2 write: the decode rows have a hole."""
    texts = [text(0, 6), text(1, 10), text(2, 4), text(3, 5)]
    cache = KVCache(model.config, 4, capacity=16)
    run(model, cache, [], [(texts[i], Segment(i, 0, n)) for i, n in ((0, 5), (1, 4), (2, 3))])
    decode = [(texts[0], Segment(0, 5, 1)), (texts[2], Segment(2, 3, 1))]
    outs = run(model, cache, decode, [(texts[1], Segment(1, 4, 6)), (texts[3], Segment(3, 0, 5))])
    for out, ids in zip(outs, [texts[0], texts[2], texts[1], texts[3]], strict=True):
        torch.testing.assert_close(out, alone(model, ids)[-len(out) :])


def test_segments_that_share_a_slot_each_continue_its_beginning(model: Model, arithmetic: str) -> None:
    prefix, rests = text(0, 8), [text(1, 3), text(2, 1), text(3, 5)]
    cache = KVCache(model.config, 1, capacity=16)
    run(model, cache, [], [(prefix, Segment(0, 0, 8))])
    outs = run(model, cache, [], [(torch.cat([prefix, r]), Segment(0, 8, len(r))) for r in rests])
    for out, rest in zip(outs, rests, strict=True):
        torch.testing.assert_close(out, alone(model, torch.cat([prefix, rest]))[8:])


def test_copied_and_swapped_slots_continue_their_texts(model: Model, arithmetic: str) -> None:
    texts = [text(0, 7), text(1, 5)]
    cache = KVCache(model.config, 3, capacity=8)
    run(model, cache, [], [(t, Segment(i, 0, len(t) - 1)) for i, t in enumerate(texts)])
    cache.swap(0, 1, 6)
    cache.copy(1, 2, 6)
    where = [(texts[1], Segment(0, 4, 1)), (texts[0], Segment(1, 6, 1)), (texts[0], Segment(2, 6, 1))]
    for out, (ids, _) in zip(run(model, cache, where, []), where, strict=True):
        torch.testing.assert_close(out, alone(model, ids)[-1:])


def test_growing_keeps_what_slots_hold() -> None:
    config = ModelConfig(64, 32, 48, 1, 4)
    cache = KVCache(config, 2, capacity=4)
    cache.layers[0][0][1] = 3.0
    cache.reserve(5)
    assert cache.capacity == 6
    assert (cache.layers[0][0][1, :, :4] == 3.0).all()
    cache.reserve(100)
    assert cache.capacity == 100
    cache.reserve(7)
    assert cache.capacity == 100
