"""Checkpoints of every family come in as transformers wrote them, and go out as transformers reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from picollm.chat.format import ChatFormat
from picollm.checkpoint import Checkpoint, Record
from picollm.errors import CheckpointError
from picollm.tokenizer import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")

# Every family and option, and with them each dtype of a file, in one file or in shards.
CASES = {
    "llama": (torch.float32, "5MB"),
    "llama-untied-biases": (torch.bfloat16, "20KB"),
    "llama-head-dim": (torch.float16, "5MB"),
    "llama-linear": (torch.float32, "20KB"),
    "llama-dynamic": (torch.bfloat16, "5MB"),
    "llama-llama3": (torch.float16, "20KB"),
    "llama-yarn": (torch.float32, "5MB"),
    "mistral": (torch.float32, "20KB"),
    "mistral-window": (torch.float16, "5MB"),
    "qwen2": (torch.bfloat16, "5MB"),
    "qwen2-window": (torch.float32, "5MB"),
    "qwen3": (torch.float16, "20KB"),
    "qwen3-bias-untied-yarn": (torch.float32, "20KB"),
}
# Beyond the trained length first, for the kinds of RoPE that look at it; then short ones.
LENGTHS = (150, 1, 40)


def theirs_and_ids(config: dict[str, Any]) -> tuple[Any, Tensor]:
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.25)
    return model, torch.randint(0, config["vocab_size"], (sum(LENGTHS),))


def expected_logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(document[None]).logits[0] for document in ids.split(LENGTHS)])


def logits_of(checkpoint: Checkpoint, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return checkpoint.model(ids, torch.cat([torch.arange(length) for length in LENGTHS]))


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers_on_the_way_in_and_out(
    case: str, families: Any, plain_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    dtype, shard = CASES[case]
    config = {**families(case, len(plain_tokenizer)), "max_position_embeddings": 128}
    theirs, ids = theirs_and_ids(config)
    theirs.to(dtype).save_pretrained(tmp_path / "theirs", max_shard_size=shard)
    plain_tokenizer.save(tmp_path / "theirs")
    assert (tmp_path / "theirs/model.safetensors.index.json").is_file() == (shard == "20KB")

    ours = Checkpoint.load(tmp_path / "theirs")
    # Read back in float32: converting the model itself would also round its table of frequencies.
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.float32)
    expected = expected_logits(theirs, ids)
    assert expected.abs().max() > 1
    torch.testing.assert_close(logits_of(ours, ids), expected, atol=1e-4, rtol=1e-4)

    Checkpoint.save(tmp_path / "ours", ours.model, ours.tokenizer, None, Record("import"))
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert type(back) is type(theirs) and back.dtype == torch.float32
    torch.testing.assert_close(expected_logits(back, ids), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["chatml", "picollm"])
def test_a_published_model_is_taught_a_format_and_no_id_moves(name: str, shared_data: Path) -> None:
    published = shared_data / "checkpoints/tinystories-656k"
    base = Checkpoint.load(published)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(published)
    ids = torch.randint(0, 2048, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits_of(base, ids), expected_logits(theirs, ids), atol=1e-4, rtol=1e-4)

    tokenizer = base.tokenizer.with_special_tokens(ChatFormat.required_tokens(name))
    assert set(tokenizer.special_tokens) >= set(base.tokenizer.special_tokens)
    # Not AutoTokenizer: its LlamaTokenizer drops a leading space that tokenizer.json keeps.
    peer = transformers.PreTrainedTokenizerFast.from_pretrained(published)
    for text in ("Once upon a time", "  two  spaces\n\nand lines ", 'Lily said: "Don\'t!" 12 times.'):
        assert tokenizer.encode(text) == peer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(tokenizer.encode(text)) == peer.decode(
            peer(text, add_special_tokens=False)["input_ids"]
        )


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("GPT2LMHeadModel", "gpt2"), ("GemmaForCausalLM", "gemma"), ("MixtralForCausalLM", "mixtral")],
)
def test_an_architecture_we_do_not_run_is_refused_by_name_with_the_list(
    architecture: str, kind: str, chat_checkpoint: Any, edited: Any
) -> None:
    place = edited(chat_checkpoint(), model_type=kind, architectures=[architecture])
    with pytest.raises(CheckpointError, match=rf"{architecture} .*Llama.*Mistral.*Qwen2.*Qwen3ForCausalLM"):
        Checkpoint.load(place)
