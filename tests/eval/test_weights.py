"""Weight movement: known moves are measured as what they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from picollm.checkpoint import Checkpoint, grow_embeddings
from picollm.eval.weights import config_differences, overall_movement, weight_movement
from picollm.model.llama import Model


def copied(model: Model) -> Model:
    twin = Model(model.config)
    twin.load_state_dict(model.state_dict())
    return twin


def test_the_same_model_has_not_moved(checkpoint: Checkpoint) -> None:
    movement = weight_movement(checkpoint.model, copied(checkpoint.model))
    assert overall_movement(movement) == 0.0
    assert sum(m.num_parameters for m in movement) == sum(p.numel() for p in checkpoint.model.parameters())
    assert movement[0].kind == "embeddings" and movement[-1] == replace(
        movement[-1], layer=None, kind="norms"
    )
    assert [m.kind for m in movement if m.layer == 1] == [
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "norms")
    ]


def test_a_matrix_scaled_by_1_1_moved_by_a_tenth_and_nothing_else_did(checkpoint: Checkpoint) -> None:
    moved = copied(checkpoint.model)
    with torch.no_grad():
        moved.model.layers[1].self_attn.v_proj.weight.mul_(1.1)  # type: ignore[union-attr, operator]
    found = {(m.layer, m.kind): m.relative for m in weight_movement(checkpoint.model, moved)}
    assert found.pop((1, "v_proj")) == pytest.approx(0.1, rel=1e-5)
    assert set(found.values()) == {0.0}


def test_a_grown_vocabulary_differs_in_one_field_and_moves_nothing(checkpoint: Checkpoint) -> None:
    size = checkpoint.model.config.vocab_size
    grown = grow_embeddings(checkpoint.model, size + 3, range(size, size + 3), size)
    assert [d.field for d in config_differences(checkpoint.model.config, grown.config)] == ["vocab_size"]
    assert overall_movement(weight_movement(checkpoint.model, grown)) == 0.0
    assert config_differences(checkpoint.model.config, checkpoint.model.config) == []


def test_what_began_at_zero_and_moved_counts_as_wholly_moved(checkpoint: Checkpoint) -> None:
    fresh = Model(checkpoint.model.config)  # output projections start at zero
    found = {(m.layer, m.kind): m.relative for m in weight_movement(fresh, checkpoint.model)}
    assert found[0, "o_proj"] == 1.0


def test_networks_of_other_shapes_are_compared_only_where_they_can_be(checkpoint: Checkpoint) -> None:
    wider = Model(replace(checkpoint.model.config, intermediate_size=96, vocab_size=7))
    assert {m.kind for m in weight_movement(checkpoint.model, wider)}.isdisjoint({"up_proj", "down_proj"})
    narrow = Model(replace(checkpoint.model.config, hidden_size=16))
    assert {m.kind for m in weight_movement(checkpoint.model, narrow)} <= {"norms"}
