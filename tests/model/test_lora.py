"""LoRA: starts as nothing, trains beside frozen weights, and merges into them."""

from __future__ import annotations

import pytest
import torch

from picollm.errors import InputError
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.model.lora import add_lora, merge_lora
from picollm.model.lora_config import Lora

IDS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])


def small() -> Model:
    model = Model(ModelConfig(61, 32, 48, 2, 4, 2))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


def test_a_new_adapter_changes_nothing_and_only_it_is_trained() -> None:
    model = small()
    before = model(IDS, torch.arange(8))
    add_lora(model, Lora(4, targets=("q_proj", "down_proj")))
    after = model(IDS, torch.arange(8))
    assert torch.equal(before, after)
    after.sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(trained) == 8 and all(name.endswith(("lora_A", "lora_B")) for name in trained)


def test_merged_equals_beside_and_leaves_a_plain_model() -> None:
    model, plain = small(), small()
    add_lora(model, Lora(4, 12.0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0.0, 0.2)
    beside = model(IDS, torch.arange(8))
    assert not torch.allclose(beside, plain(IDS, torch.arange(8)))
    merged = merge_lora(model)
    torch.testing.assert_close(merged(IDS, torch.arange(8)), beside, rtol=1e-4, atol=1e-4)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert all(parameter.requires_grad for parameter in merged.parameters())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 0}, "expected a rank of 1 or more"),
        ({"alpha": 0.0}, "an alpha above 0"),
        ({"targets": ("q_proj", "k")}, "LoRA targets k; expected some of q_proj"),
        ({"targets": ()}, "expected some of"),
    ],
)
def test_impossible_adapters_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Lora(**settings)


def test_a_rank_beyond_the_matrices_names_the_largest() -> None:
    with pytest.raises(InputError, match="expected 1 to 16"):
        add_lora(small(), Lora(17))
