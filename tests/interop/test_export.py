"""What ``picollm export`` writes, and what it refuses to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from picollm.adapter import save_adapter
from picollm.checkpoint import Checkpoint, Record, verify
from picollm.cli.main import main
from picollm.model.lora import add_lora
from picollm.model.lora_config import Lora


def test_an_adapter_becomes_one_checkpoint_and_a_gguf_file(
    chat_checkpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Checkpoint.load(chat_checkpoint())
    assert base.format is not None
    model, lora = Checkpoint.load(base.path).model, Lora(rank=2)
    add_lora(model, lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(0.0, 0.2)
    parent = {"name": str(base.path), "sha256": base.weights_sha256}
    save_adapter(tmp_path / "adapter", model, lora, base.path, base.format, Record("sft", parent=parent))

    out = tmp_path / "one"
    assert main(["export", str(tmp_path / "adapter"), "--merge", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"files": [str(out)], "notes": []}
    assert verify(out).parent == parent
    whole, ids = Checkpoint.load(out), torch.arange(40)
    with torch.no_grad():
        found = whole.model(ids, ids)
        torch.testing.assert_close(found, model(ids, ids), atol=1e-4, rtol=1e-4)
        assert (found - base.model(ids, ids)).abs().max() > 0.1
    assert main(["export", str(out), "--merge"]) == 2 and "no adapter" in capsys.readouterr().err


def test_a_base_model_has_a_gguf_file_but_no_modelfile(
    plain_tokenizer: Any, chat_checkpoint: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Checkpoint.load(chat_checkpoint())
    Checkpoint.save(tmp_path / "base", checkpoint.model, checkpoint.tokenizer, None, Record("pretrain"))
    assert main(["export", str(tmp_path / "base"), "--gguf", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(tmp_path / "base.export/base-f16.gguf")]
    assert main(["export", str(tmp_path / "base"), "--ollama"]) == 2
    assert "no chat format to write an Ollama template of" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "base")]) == 2
    assert "nothing to write: give --gguf, --ollama or --merge" in capsys.readouterr().err
