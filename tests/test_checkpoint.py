"""A checkpoint is a Hugging Face directory that comes back as it went, or says what is wrong with it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import random
import runpy
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from picollm.chat.conversation import Conversation, Message, Part
from picollm.chat.format import ChatFormat
from picollm.checkpoint import Checkpoint, Record, grow_embeddings, verify
from picollm.errors import CheckpointError, FormatMismatchError, InputError, UnavailableError
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.tokenizer import Tokenizer

TALK = Conversation(
    [
        Message("system", "Be brief."),
        Message("user", "Héllo <|assistant_end|>"),
        Message("assistant", [Part("text", "2+2 is "), Part("python", "2+2"), Part("python_output", "4")]),
        Message("user", " bye\n"),
        Message("assistant", "Bye."),
    ]
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["two plus two is four " * 8], 320, ChatFormat.required_tokens("picollm"))


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Model:
    model = Model(ModelConfig(len(tokenizer), 32, 48, 2, 4, 2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


@pytest.fixture
def saved(tmp_path: Path, model: Model, tokenizer: Tokenizer) -> Path:
    chat_format = ChatFormat.named("picollm", tokenizer)
    record = Record("sft", config={"lr": 1e-3}, seed=4, curve=[{"step": 1, "loss": float("nan")}])
    Checkpoint.save(tmp_path / "ckpt", model, tokenizer, chat_format, record)
    return tmp_path / "ckpt"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(9), torch.arange(9))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def forget_files(directory: Path, **changes: Any) -> None:
    """Make ``directory`` a foreign checkpoint (no record), with a changed config.json."""
    (directory / "record.json").unlink()
    edit(directory / "config.json", **changes)


def test_a_checkpoint_comes_back_as_it_went(saved: Path, model: Model, tokenizer: Tokenizer) -> None:
    loaded = Checkpoint.load(saved)
    assert torch.equal(logits(loaded.model), logits(model))
    assert loaded.model.config == model.config and loaded.tokenizer.sha256 == tokenizer.sha256
    assert loaded.format is not None and loaded.format.fingerprint == loaded.record.format["fingerprint"]
    assert (loaded.record.stage, loaded.record.seed, loaded.record.config) == ("sft", 4, {"lr": 1e-3})
    assert loaded.record.curve == [{"step": 1, "loss": None}], "a NaN must not make the record unreadable"
    assert verify(saved) == loaded.record
    assert sorted(loaded.record.files) == sorted(p.name for p in saved.iterdir() if p.name != "record.json")


def test_saving_twice_replaces_the_first_and_leaves_nothing_else(
    saved: Path, model: Model, tokenizer: Tokenizer
) -> None:
    Checkpoint.save(saved, model, tokenizer, None, Record("pretrain"))
    assert Checkpoint.load(saved).record.stage == "pretrain" and not (saved / "chat_template.jinja").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["ckpt"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_stored_and_read_in_the_dtype_one_asks_for(
    tmp_path: Path, model: Model, tokenizer: Tokenizer, dtype: torch.dtype
) -> None:
    Checkpoint.save(tmp_path / "half", model, tokenizer, None, Record("pretrain"), dtype=dtype)
    exact, half = (
        Checkpoint.load(tmp_path / "half").model,
        Checkpoint.load(tmp_path / "half", dtype=dtype).model,
    )
    for one, two, original in zip(exact.parameters(), half.parameters(), model.parameters(), strict=True):
        assert one.dtype == torch.float32 and two.dtype == dtype
        assert torch.equal(one, original.to(dtype).float()) and torch.equal(two.float(), one)


def test_training_a_loaded_model_never_writes_to_its_file(saved: Path) -> None:
    before = (saved / "model.safetensors").read_bytes()
    loaded = Checkpoint.load(saved).model
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(1.0)
    assert (saved / "model.safetensors").read_bytes() == before
    verify(saved)


@pytest.mark.filterwarnings("ignore")
def test_transformers_opens_the_directory_with_equal_logits_template_and_ends(saved: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = Checkpoint.load(saved)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved)
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    with torch.no_grad():
        found = theirs(torch.arange(9)[None]).logits[0]
    torch.testing.assert_close(found, logits(ours.model), atol=1e-4, rtol=1e-4)
    assert theirs.dtype == torch.float32 and type(theirs).__name__ == "Qwen3ForCausalLM"

    assert ours.format is not None
    rendered = ours.format.render_conversation(TALK)
    messages = TALK.to_dict()["messages"]
    encoded = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True, tokenize=True
    )
    plain = [messages[0], {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    easy = ours.format.render_conversation(Conversation.from_dict({"messages": plain}))
    assert tokenizer.apply_chat_template(plain, return_dict=False) == easy.ids
    assert len(encoded["input_ids"]) <= len(rendered.ids), "only control-token text may be read differently"

    ends = theirs.generation_config.eos_token_id
    assert set(ends if isinstance(ends, list) else [ends]) == ours.format.stop_ids
    assert tokenizer.eos_token_id == ours.format.end_id and tokenizer.pad_token_id == ours.format.pad_id


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer_config.json", "generation_config.json", "config.json"]
)
@pytest.mark.parametrize("damage", ["remove", "truncate", "flip"])
def test_every_damage_to_a_file_is_named(saved: Path, name: str, damage: str) -> None:
    file = saved / name
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content[: -1 if damage == "truncate" else None])
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        Checkpoint.load(saved)
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        verify(saved)


def test_no_flipped_bit_anywhere_goes_unnoticed(saved: Path) -> None:
    choice = random.Random(0)
    for _ in range(25):
        file = choice.choice(sorted(saved.iterdir()))
        whole = file.read_bytes()
        at, bit = choice.randrange(len(whole)), choice.randrange(8)
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        with pytest.raises(CheckpointError) as caught:
            Checkpoint.load(saved)
        assert "\n" not in str(caught.value) and str(saved) in str(caught.value)
        file.write_bytes(whole)
    Checkpoint.load(saved)


def test_a_save_killed_anywhere_leaves_the_old_checkpoint_or_the_new_one(saved: Path, tmp_path: Path) -> None:
    """A save is a series of syncs and renames: it dies at the first sync, at the second, and so on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["picollm.checkpoint"])
    script = str(Path(__file__).with_name("worker.py"))
    place, kept = tmp_path / "saves" / "ckpt", []
    before = logits(Checkpoint.load(saved).model)
    for number in itertools.count(1):
        shutil.rmtree(place.parent, ignore_errors=True)
        shutil.copytree(saved, place)
        job = {"place": str(place), "kill_at_sync": number}
        process = context.Process(target=runpy.run_path, args=(script, {"job": job}, "__main__"))
        process.start()
        process.join()
        kept.append(torch.equal(logits(Checkpoint.load(place).model), before))
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert len(kept) > 8 and kept == sorted(kept, reverse=True) and not kept[-1]


def test_a_save_on_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(
    model: Model, tokenizer: Tokenizer, disk: Path, nearly_full: Callable[[int], AbstractContextManager[Path]]
) -> None:
    chat_format = ChatFormat.named("picollm", tokenizer)
    place, other = disk / "ckpt", Model(dataclasses.replace(model.config), seed=5)
    Checkpoint.save(place, model, tokenizer, chat_format, Record("sft"))
    size = sum(file.stat().st_size for file in place.iterdir())
    for room in (0, 1, 4096, size // 4, size // 2, size - 4096):
        with nearly_full(room), pytest.raises(UnavailableError, match="no room left on the disk") as error:
            Checkpoint.save(place, other, tokenizer, chat_format, Record("sft"))
        assert "\n" not in str(error.value) and [*disk.iterdir()] == [place]
        assert torch.equal(logits(Checkpoint.load(place).model), logits(model))
    Checkpoint.save(place, other, tokenizer, chat_format, Record("sft"))
    assert torch.equal(logits(Checkpoint.load(place).model), logits(other))


def test_a_foreign_directory_without_a_record_is_an_import(saved: Path, model: Model) -> None:
    forget_files(saved)
    loaded = Checkpoint.load(saved)
    assert loaded.record.stage == "import" and loaded.format is None
    assert torch.equal(logits(loaded.model), logits(model))
    with pytest.raises(CheckpointError, match="only checkpoints written by picoLLM"):
        verify(saved)


def test_a_checkpoint_of_a_changed_format_does_not_load(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picollm.chat.format_record.MASK_RULE", "everything")
    with pytest.raises(FormatMismatchError, match="'picollm' differs from the installed one in 'mask_rule'"):
        Checkpoint.load(saved)
    allowed = Checkpoint.load(saved, allow_format_mismatch=True)
    assert len(allowed.record.allowed_mismatch) == 1 and "mask_rule" in allowed.record.allowed_mismatch[0]


def test_an_altered_tokenizer_or_template_is_a_format_mismatch_by_name(saved: Path, tmp_path: Path) -> None:
    template = saved / "chat_template.jinja"
    whole = template.read_text(encoding="utf-8")
    template.write_text(whole + " ", encoding="utf-8")
    with pytest.raises(FormatMismatchError, match=r"chat_template\.jinja"):
        Checkpoint.load(saved)
    template.write_text(whole, encoding="utf-8")
    other = Tokenizer.train(["two"], 260 + 12, ChatFormat.required_tokens("picollm"))
    other.save(tmp_path / "other")
    (saved / "tokenizer.json").write_bytes((tmp_path / "other/tokenizer.json").read_bytes())
    with pytest.raises(FormatMismatchError, match=r"special_ids|tokenizer_sha256"):
        Checkpoint.load(saved)


def test_a_format_that_is_not_installed_is_named(saved: Path) -> None:
    record = Record.from_json((saved / "record.json").read_text(encoding="utf-8"))
    renamed = Record("sft", format={**(record.format or {}), "name": "martian"}, files=record.files)
    (saved / "record.json").write_text(renamed.to_json(), encoding="utf-8")
    with pytest.raises(FormatMismatchError, match="'martian' cannot be built here"):
        Checkpoint.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}, "GPT2LMHeadModel.*Qwen3ForCausalLM"),
        ({"num_hidden_layers": 3}, "3 layers, the weights have 2"),
        ({"num_hidden_layers": 10**12}, "layers, the weights have 2"),
        ({"intermediate_size": 64}, "gate_proj.weight has shape .48, 32.; config.json implies .64, 32"),
        ({"vocab_size": 10}, "the embedding only 10 rows"),
        ({"tie_word_embeddings": False}, "lacks 1 of .*lm_head.weight"),
        ({"model_type": "llama", "architectures": None}, "not explain, as model.layers.0.self_attn.k_norm"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_refused(saved: Path, changes: dict[str, Any], message: str) -> None:
    forget_files(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.load(saved)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{", "\udcff"], ids=["deep", "list", "cut", "bytes"])
def test_a_config_that_is_no_configuration_is_refused_in_one_line(saved: Path, text: str) -> None:
    forget_files(saved)
    (saved / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json") as caught:
        Checkpoint.load(saved)
    assert "\n" not in str(caught.value)


def test_two_special_tokens_with_one_id_are_refused(saved: Path) -> None:
    forget_files(saved)
    tokens = json.loads((saved / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    tokens[1] = {**tokens[1], "id": tokens[0]["id"]}
    edit(saved / "tokenizer.json", added_tokens=tokens)
    with pytest.raises(CheckpointError, match=r"share id|not a tokenizer"):
        Checkpoint.load(saved)


def test_a_directory_that_is_no_checkpoint_is_never_replaced(
    tmp_path: Path, model: Model, tokenizer: Tokenizer
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="will not be replaced"):
        Checkpoint.save(tmp_path, model, tokenizer, None, Record("sft"))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_tokenizer_that_outgrew_the_model_is_not_saved(
    tmp_path: Path, model: Model, tokenizer: Tokenizer
) -> None:
    larger = tokenizer.with_special_tokens(["<|new|>"])
    with pytest.raises(CheckpointError, match="was not grown"):
        Checkpoint.save(tmp_path / "ckpt", model, larger, None, Record("sft"))
    grown = grow_embeddings(model, len(larger), [larger.special_id("<|new|>")], len(tokenizer))
    Checkpoint.save(tmp_path / "ckpt", grown, larger, None, Record("sft"))
    assert Checkpoint.load(tmp_path / "ckpt").model.config.vocab_size == len(larger)


def test_the_hash_of_the_weights_changes_with_them(saved: Path, model: Model, tokenizer: Tokenizer) -> None:
    before = Checkpoint.load(saved).weights_sha256
    other = Model(model.config, seed=9)
    Checkpoint.save(saved, other, tokenizer, None, Record("sft"))
    assert Checkpoint.load(saved).weights_sha256 != before


@pytest.mark.filterwarnings("ignore")
def test_a_published_checkpoint_gets_a_format_and_still_opens_in_transformers(
    shared_data: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    base = Checkpoint.load(shared_data / "checkpoints/tinystories-656k")
    known = len(base.tokenizer)
    tokenizer = base.tokenizer.with_special_tokens(ChatFormat.required_tokens("chatml"))
    chat_format = ChatFormat.named("chatml", tokenizer)
    grown = grow_embeddings(base.model, len(tokenizer), range(known, len(tokenizer)), known)
    Checkpoint.save(tmp_path / "chat", grown, tokenizer, chat_format, Record("sft"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "chat")
    loaded = Checkpoint.load(tmp_path / "chat")
    with torch.no_grad():
        expected = theirs(torch.arange(9)[None]).logits[0]
    torch.testing.assert_close(logits(loaded.model), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(loaded.model)[:, :known], logits(base.model))
