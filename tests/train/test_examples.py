"""What goes into Examples comes out of it, and nothing that cannot be learned is kept."""

from __future__ import annotations

from collections import namedtuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picollm.errors import InputError
from picollm.train.examples import Examples

Rendered = namedtuple("Rendered", "ids loss_mask")
renders = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 1)), min_size=1, max_size=30).map(
    lambda pairs: Rendered(*map(list, zip(*pairs, strict=True)))
)


@settings(deadline=None)
@given(st.lists(renders, max_size=20))
def test_examples_keep_every_render_up_to_its_last_target(given_renders: list[Rendered]) -> None:
    examples = Examples()
    kept = [r for r in given_renders if examples.append(r, "source")]
    assert kept == [r for r in given_renders if any(r.loss_mask[1:])]
    assert len(examples) == len(kept)
    assert examples.num_without_targets == len(given_renders) - len(kept)
    for index, render in enumerate(kept):
        end = max(i for i, bit in enumerate(render.loss_mask) if bit) + 1
        assert examples.ids(index).tolist() == render.ids[:end]
        assert examples.mask(index).tolist() == [bool(bit) for bit in render.loss_mask[:end]]
        assert examples.costs[index] == end - 1
        assert examples.num_targets_of(index) == sum(render.loss_mask[1:])


def test_examples_know_their_sources() -> None:
    examples = Examples()
    for source in ("chat", "math", "chat"):
        examples.append(Rendered([1, 2], [0, 1]), source)
    assert examples.sources == ["chat", "math"]
    assert [examples.source(i) for i in range(3)] == ["chat", "math", "chat"]
    assert examples.of_source("chat").tolist() == [0, 2]


def test_the_digest_covers_ids_mask_and_borders() -> None:
    def digest(*renders: Rendered) -> str:
        examples = Examples()
        for render in renders:
            examples.append(render)
        return examples.digest

    one = digest(Rendered([1, 2, 3], [0, 0, 1]), Rendered([4, 5], [0, 1]))
    assert one == digest(Rendered([1, 2, 3], [0, 0, 1]), Rendered([4, 5], [0, 1]))
    others = {
        digest(Rendered([1, 2, 9], [0, 0, 1]), Rendered([4, 5], [0, 1])),
        digest(Rendered([1, 2, 3], [0, 1, 1]), Rendered([4, 5], [0, 1])),
        digest(Rendered([1, 2, 3, 4, 5], [0, 0, 1, 0, 1])),
    }
    assert len(others | {one}) == 4


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match="2 ids but 1 mask"):
        Examples().append(Rendered([1, 2], [1]))
