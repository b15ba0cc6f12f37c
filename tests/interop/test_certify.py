"""A certificate holds exactly when every runtime reads a checkpoint alike, and else says where not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from picollm.checkpoint import Checkpoint, Record
from picollm.cli.main import main
from picollm.errors import CheckpointError, InputError, UnavailableError
from picollm.infer.engine import Engine
from picollm.infer.params import SamplingParams
from picollm.interop import runtimes
from picollm.interop.cases import cases
from picollm.interop.certify import certify
from picollm.interop.export import export
from picollm.model.llama import Model
from picollm.tasks.registry import load_task
from picollm.tools.sandbox import Limits

FAMILIES = [
    "llama", "llama-untied-biases", "llama-head-dim", "llama-linear", "llama-dynamic", "llama-llama3",
    "llama-yarn", "mistral", "mistral-window", "qwen2", "qwen2-window", "qwen3", "qwen3-bias-untied-yarn",
]  # fmt: skip


def test_a_checkpoint_of_ours_holds_in_transformers_jinja_and_gguf(
    chat_checkpoint: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = shutil.copytree(chat_checkpoint(), tmp_path / "ckpt")
    assert main(["certify", str(directory), "--runtimes", "transformers,jinja,gguf", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    kept = json.loads((directory / "certificate.json").read_text(encoding="utf-8"))
    assert told == kept and kept["holds"] is True
    for finding in kept["findings"]:
        assert finding["num_rendered"] == 2 * len(kept["cases"]) and finding["num_mismatching"] == 0
        assert finding["num_injected"] == 2, "a template cannot protect text that spells control tokens"
    assert (
        kept["findings"][0]["num_reply_tokens"] > 50 and kept["findings"][0]["num_mismatching_replies"] == 0
    )
    Checkpoint.load(directory)


@pytest.mark.parametrize(
    "name", ["chatml", "llama3", "zephyr", "gemma", "nanochat", "mistral", "llama2", "plain"]
)
def test_every_format_holds_in_jinja_and_gguf(name: str, chat_checkpoint: Any) -> None:
    certificate = certify(Checkpoint.load(chat_checkpoint("llama", name)), ["jinja", "gguf"], max_tokens=2)
    assert certificate.holds, [f.differences for f in certificate.findings]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", FAMILIES)
def test_greedy_replies_of_every_family_equal_those_of_transformers(case: str, chat_checkpoint: Any) -> None:
    checkpoint = Checkpoint.load(chat_checkpoint(case))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32)
    assert checkpoint.format is not None
    asked = [case.asked for case in cases(checkpoint.format)][:4]
    params = SamplingParams(max_tokens=16, temperature=0.0)
    for conversation, reply in zip(
        asked, Engine(checkpoint, tools=None).complete_many(asked, params), strict=True
    ):
        ids = torch.tensor([checkpoint.format.render_for_completion(conversation)])
        mask = torch.ones_like(ids)
        out = theirs.generate(ids, attention_mask=mask, max_new_tokens=16, do_sample=False)[
            0, ids.shape[1] :
        ].tolist()
        assert reply.ids == (out[: len(reply.ids)] if reply.finish_reason == "foreign_role" else out)


@pytest.mark.filterwarnings("ignore")
def test_the_directory_opens_unchanged_in_transformers_and_stops_where_it_should(story: Any) -> None:
    runs, _ = story
    ours = Checkpoint.load(runs / "sft")
    chat = transformers.pipeline("text-generation", str(runs / "sft"), dtype=torch.float32)
    assert type(chat.model).__name__ == "Qwen3ForCausalLM" and ours.format is not None
    ends = chat.model.generation_config.eos_token_id
    assert {ends} if isinstance(ends, int) else set(ends) == ours.format.stop_ids
    rows = load_task("identity", "validation", limit=12)
    asked = [rows.prompt(index) for index in range(len(rows))]
    params = SamplingParams(max_tokens=12, temperature=0.0)
    for conversation, reply in zip(asked, Engine(ours, tools=None).complete_many(asked, params), strict=True):
        messages = conversation.to_dict()["messages"]
        said = chat(messages, max_new_tokens=12, do_sample=False)[0]["generated_text"]
        if reply.finish_reason != "foreign_role":
            assert said == [*messages, {"role": "assistant", "content": reply.text}]


def test_a_template_that_differs_by_one_space_is_found_token_by_token(
    chat_checkpoint: Any, tmp_path: Path
) -> None:
    directory = shutil.copytree(chat_checkpoint("llama", "chatml"), tmp_path / "ckpt")
    checkpoint = Checkpoint.load(directory)
    template = directory / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    template.write_text(text.replace("user\\n'", "user \\n'"), encoding="utf-8")
    certificate = certify(checkpoint, ["jinja"], max_tokens=2)
    assert not certificate.holds and certificate.findings[0].num_mismatching > 10
    first = certificate.findings[0].differences[0]
    assert (first.case, first.what, first.at) == ("one question", "prompt", 3)


def test_a_template_that_fails_is_a_difference_with_its_error(chat_checkpoint: Any, tmp_path: Path) -> None:
    directory = shutil.copytree(chat_checkpoint(), tmp_path / "ckpt")
    checkpoint = Checkpoint.load(directory)
    (directory / "chat_template.jinja").write_text("{{ raise_exception('no') }}", encoding="utf-8")
    certificate = certify(checkpoint, ["jinja"], max_tokens=2)
    assert {"TemplateError: no"} == {d.error for d in certificate.findings[0].differences}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for i in range(99999) %}{% for j in range(9**5) %}1{% endfor %}{% endfor %}", "limits|longer"),
        ("{{ 'x' * 10000000000 }}", "Memory|memory|longer"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "Recursion"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|Security"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "unsafe|Security|undefined"),
        ("{{ messages.__class__ }}{% set _ = messages.append(1) %}", "unsafe|Security"),
        ("{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}", "Recursion|Jinja|Memory|limits"),
        ("{% if %}", "Jinja|Syntax"),
    ],
    ids=["endless", "huge", "recursion", "subclasses", "globals", "mutation", "nesting", "syntax"],
)  # fmt: skip
def test_a_hostile_template_is_stopped_in_one_line(
    template: str, message: str, chat_checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "picollm.chat.format_template._LIMITS", Limits(seconds=2, memory_mib=256, kept_kib=4096)
    )
    directory = shutil.copytree(chat_checkpoint(), tmp_path / "ckpt")
    checkpoint = Checkpoint.load(directory)
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    try:
        errors = {d.error for d in certify(checkpoint, ["jinja"], max_tokens=2).findings[0].differences}
    except InputError as error:
        errors = {str(error)}
    assert all(error and re.search(message, error) and "\n" not in error for error in errors), errors


def test_bad_requests_are_one_line(
    chat_checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint.load(chat_checkpoint())
    with pytest.raises(InputError, match="no runtime is called 'mlx'; expected one of transformers, jinja"):
        certify(checkpoint, ["mlx"])
    monkeypatch.setitem(runtimes.RUNTIMES, "jinja", (runtimes.by_jinja, "no_such_package"))
    with pytest.raises(UnavailableError, match="jinja is not installed: it needs no_such_package"):
        certify(checkpoint, ["jinja"])
    Checkpoint.save(
        tmp_path / "base", Model(checkpoint.model.config), checkpoint.tokenizer, None, Record("pretrain")
    )
    with pytest.raises(InputError, match="a base model has no chat format to certify"):
        certify(Checkpoint.load(tmp_path / "base"))
    with pytest.raises(CheckpointError, match="no readable GGUF"):
        certify(checkpoint, ["gguf"], gguf=checkpoint.path / "config.json", max_tokens=2)


def test_an_exported_file_is_certified_too(chat_checkpoint: Any, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(chat_checkpoint())
    written = export(checkpoint, tmp_path, "q8_0", ollama=True)
    assert [file.name for file in written.files] == ["checkpoint-q8_0.gguf", "Modelfile"]
    assert any("cannot call the calculator" in note for note in written.notes)
    assert certify(checkpoint, ["gguf"], gguf=written.files[0], max_tokens=2).holds
