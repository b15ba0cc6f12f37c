"""llama.cpp itself reads our GGUF files as we do: tokenizer, template and greedy replies.

``pip install llama-cpp-python`` compiles for half an hour, so this is not among the tests' requirements.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from picollm.checkpoint import Checkpoint
from picollm.interop.cases import cases
from picollm.interop.certify import certify
from picollm.interop.gguf import write_gguf

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

FAMILIES = [
    "llama", "llama-untied-biases", "llama-head-dim", "llama-linear", "llama-llama3", "llama-yarn", "mistral",
    "qwen2", "qwen3",
]  # fmt: skip


@pytest.mark.parametrize("case", FAMILIES)
def test_ids_and_greedy_replies_are_ours(case: str, chat_checkpoint: Any) -> None:
    certificate = certify(Checkpoint.load(chat_checkpoint(case)), ["llama.cpp"], max_tokens=12)
    assert certificate.holds, certificate.findings[0].differences
    assert (certificate.findings[0].num_reply_tokens or 0) > 80


@pytest.mark.parametrize("name", ["picollm", "chatml", "llama3"])
def test_its_own_chat_formatter_and_tokenizer_make_our_prompts(
    name: str, chat_checkpoint: Any, tmp_path: Path
) -> None:
    checkpoint = Checkpoint.load(chat_checkpoint("qwen3", name))
    write_gguf(checkpoint, tmp_path / "m.gguf", "f32")
    llama = llama_cpp.Llama(str(tmp_path / "m.gguf"), n_ctx=64, vocab_only=True, verbose=False)
    formatter = llama_cpp.llama_chat_format.Jinja2ChatFormatter(
        template=llama.metadata["tokenizer.chat_template"], eos_token="", bos_token=""
    )
    assert checkpoint.format is not None
    for case in cases(checkpoint.format):
        if not case.spells_control:
            text = formatter(messages=case.asked.to_dict()["messages"]).prompt
            ids = llama.tokenize(text.encode("utf-8"), add_bos=False, special=True)
            assert ids == checkpoint.format.render_for_completion(case.asked), case.name
    llama.close()
