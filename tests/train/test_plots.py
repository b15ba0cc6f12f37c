"""Pictures of a run: drawn from what there is."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from picollm.train.plots import draw_curves

CURVE = [
    {"step": 1, "loss": 3.0, "learning_rate": 1e-3},
    {
        "step": 2,
        "loss": 2.0,
        "learning_rate": 5e-4,
        "validation/chat": 2.5,
        "validation/chat/bits_per_byte": 1.0,
    },
]


@pytest.mark.parametrize("curve", [CURVE, CURVE[:1], []])
def test_loss_and_learning_rate_become_pictures(curve: list, tmp_path: Path) -> None:
    drawn = draw_curves(tmp_path, curve)
    assert [path.name for path in drawn] == ["loss.svg", "learning_rate.svg"]
    for path in drawn:
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    text = drawn[0].read_text()
    assert ("validation/chat" in text) == (len(curve) == 2) and "bits_per_byte" not in text
