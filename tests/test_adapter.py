"""An adapter: what ``peft`` makes of its files equals what opens here, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from picollm import Checkpoint
from picollm.adapter import CONFIG, WEIGHTS, save_adapter
from picollm.checkpoint import verify
from picollm.errors import CheckpointError
from picollm.model.lora import add_lora
from picollm.model.lora_config import Lora
from picollm.recipes.config import Recipe

LORA = Lora(4, 12.0, ("q_proj", "v_proj", "down_proj"))


@pytest.fixture
def adapter(story: tuple[Path, Recipe], tmp_path: Path) -> Path:
    """Return the directory of an adapter with random weights on the miniature's base."""
    base = Checkpoint.load(story[0] / "base")
    add_lora(base.model, LORA)
    with torch.no_grad():
        for name, parameter in base.model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0.0, 0.1)
    record = Checkpoint.load(story[0] / "sft").record
    assert base.format is not None
    save_adapter(tmp_path / "adapter", base.model, LORA, base.path, base.format, record)
    return tmp_path / "adapter"


@pytest.mark.filterwarnings("ignore")
def test_peft_computes_the_same_logits(adapter: Path, story: tuple[Path, Recipe]) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    ids = torch.arange(5, 40)
    base = transformers.AutoModelForCausalLM.from_pretrained(story[0] / "base", dtype=torch.float32)
    with torch.no_grad():
        plain = base(ids[None]).logits[0]
        expected = peft.PeftModel.from_pretrained(base, str(adapter)).eval()(ids[None]).logits[0]
        found = Checkpoint.load(adapter).model(ids, torch.arange(len(ids)))
    assert not torch.allclose(plain, expected, atol=1e-2)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_an_adapter_opens_like_a_checkpoint(adapter: Path, story: tuple[Path, Recipe]) -> None:
    opened = Checkpoint.load(adapter)
    assert opened.format is not None and opened.record.stage == verify(adapter).stage == "sft"
    assert opened.model.config == Checkpoint.load(story[0] / "base").model.config
    place = adapter.with_name("merged")
    Checkpoint.save(place, opened.model, opened.tokenizer, opened.format, opened.record)
    again = Checkpoint.load(place).model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in opened.model.state_dict().items())


def test_damage_is_named(adapter: Path) -> None:
    whole = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors missing or altered"):
        Checkpoint.load(adapter)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "use_dora; picoLLM merges plain LoRA"),
        ({"r": 8}, "does not fit its base"),
        ({"peft_type": "IA3"}, "is IA3"),
        ({"r": None}, "cannot be read as a LoRA adapter"),
        ({"base_model_name_or_path": "/nowhere/at/all"}, "/nowhere/at/all"),
    ],
)
def test_adapters_of_others_are_opened_or_refused_by_name(adapter: Path, change: dict, said: str) -> None:
    (adapter / "record.json").unlink()
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=said):
        Checkpoint.load(adapter)
