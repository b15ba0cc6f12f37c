"""The terminal chat, typed into as a person would, with a small model of random weights."""

from __future__ import annotations

import html
import io
import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from picollm import ChatFormat, Checkpoint, Conversation, Engine, SamplingParams, Tokenizer
from picollm.cli.chat import open_base, open_chat
from picollm.cli.console import console
from picollm.cli.main import main
from picollm.model.config import ModelConfig
from picollm.model.llama import Model
from picollm.record import Record
from scripts.picture import TYPED, picture

TEXTS = ["the cat sat on the mat and the dog ran", "what is 2+3? it is 5"] * 20


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a base checkpoint and an SFT checkpoint that came from it."""
    place = tmp_path_factory.mktemp("runs")
    tokenizer = Tokenizer.train(TEXTS, 310, ChatFormat.required_tokens("picollm"))
    chat_format = ChatFormat.named("picollm", tokenizer)
    parent = None
    for seed, name in enumerate(("base", "sft")):
        model = Model(ModelConfig(tokenizer.vocab_size, 32, 48, 2, 4, max_position_embeddings=256))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.3, generator=generator)
        record = Record("sft" if parent else "pretrain", parent=parent)
        Checkpoint.save(place / name, model, tokenizer, chat_format, record)
        parent = {"name": str(place / name), "sha256": Checkpoint.load(place / name).weights_sha256}
    return place


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what the console says, which goes to stderr otherwise."""
    stream = io.StringIO()
    monkeypatch.setattr(console, "_file", stream)  # restoring `file` would pin a stream
    monkeypatch.setattr(console, "_width", 100)
    return stream


@pytest.fixture
def type_in(
    runs: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., int]]:
    """Return a function that types lines into ``picollm chat`` and then ends it with Ctrl-D."""
    monkeypatch.setenv("PICOLLM_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):

        def type_in(*lines: str, options: tuple[str, ...] = ()) -> int:
            keys.send_text("".join(f"{line}\r" for line in lines) + "\x04")
            return main(["chat", str(runs / "sft"), "--max-tokens", "6", *options])

        yield type_in


def reply_to(runs: Path, name: str, *texts: str) -> str:
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    engine = Engine(Checkpoint.load(runs / name))
    return (
        engine.complete(
            Conversation.from_dict({"messages": messages}), SamplingParams(max_tokens=6, temperature=0.0)
        )
    ).text


def test_a_conversation_is_saved_as_it_was(type_in, runs, tmp_path, capsys) -> None:
    file = tmp_path / "talk.json"
    assert type_in("/system be a cat", "the cat\\", "sat", f"/save {file}") == 0
    system, asked, answered = json.loads(file.read_text())["messages"]
    assert system == {"role": "system", "content": "be a cat"}
    assert asked == {"role": "user", "content": "the cat\nsat"}
    assert capsys.readouterr().out == answered["content"] + "\n"


def test_alt_enter_begins_another_line(type_in, tmp_path) -> None:
    type_in("the cat\x1b\rsat", f"/save {tmp_path}/talk.json")
    assert json.loads((tmp_path / "talk.json").read_text())["messages"][0]["content"] == "the cat\nsat"


def test_the_next_turn_sees_the_last(type_in, runs, capsys) -> None:
    first = reply_to(runs, "sft", "the cat")
    type_in("the cat", "the dog")
    assert capsys.readouterr().out == f"{first}\n{reply_to(runs, 'sft', 'the cat', first, 'the dog')}\n"


def test_undo_reset_and_load(type_in, runs, capsys, tmp_path) -> None:
    first = reply_to(runs, "sft", "the cat")
    type_in("the cat", "the dog", "/undo", f"/save {tmp_path}/a.json", "/reset", f"/load {tmp_path}/a.json")
    assert [m["content"] for m in json.loads((tmp_path / "a.json").read_text())["messages"]] == [
        "the cat",
        first,
    ]


def test_regen_answers_the_same_message_again(type_in, tmp_path) -> None:
    type_in("the cat", "/regen", f"/save {tmp_path}/a.json")
    messages = json.loads((tmp_path / "a.json").read_text())["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"] and messages[0]["content"] == "the cat"


def test_tokens_shows_every_control_token(type_in, said, runs) -> None:
    type_in("the cat", "/tokens")
    fmt = open_chat(str(runs / "sft")).format
    tokens = fmt.tokenizer.special_tokens
    used = fmt.render_conversation(Conversation.from_dict({"messages": [
        {"role": "user", "content": "the cat"}, {"role": "assistant", "content": "x"}]})).ids  # fmt: skip
    assert all(token in said.getvalue() for token, token_id in tokens.items() if token_id in used)
    assert "supervised" in said.getvalue()


def test_base_answers_beside(type_in, said, runs) -> None:
    type_in("the cat", "/base")
    shown = "".join(said.getvalue().split())
    assert "".join(reply_to(runs, "base", "the cat").split())[:5] in shown and "thismodel" in shown


def test_base_is_the_parent_only_if_it_is_the_same_one(runs, tmp_path) -> None:
    sft = open_chat(str(runs / "sft"))
    assert open_base(sft, None).path == runs / "base"
    assert open_base(open_chat(str(runs / "base")), None) is None
    (runs / "base").rename(tmp_path / "base")
    assert open_base(sft, None) is None
    assert open_base(sft, str(tmp_path / "base")).path == tmp_path / "base"
    (tmp_path / "base").rename(runs / "base")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/nope", "no command /nope"),
        ("/undo", "nothing to take back"),
        ("/regen", "no reply yet"),
        ("/base", "no reply yet"),
        ("/tokens", "no conversation yet"),
        ("/save", "/save needs a file"),
        ("/load nowhere.json", "cannot load nowhere.json"),
        ("the cat " * 300, "too many"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(type_in, said, line: str, words: str) -> None:
    assert type_in(line) == 0
    assert words in said.getvalue() and "Traceback" not in said.getvalue()


def test_ctrl_c_stops_the_reply_and_not_the_program(type_in, monkeypatch, capsys, said, tmp_path) -> None:
    step, steps = Engine.step, []

    def interrupted(engine: Engine):
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return step(engine)

    monkeypatch.setattr(Engine, "step", interrupted)
    assert type_in("the cat", "and the dog", f"/save {tmp_path}/a.json") == 0
    assert len(steps) > 3 and "(cancelled)" in said.getvalue()
    assert len(json.loads((tmp_path / "a.json").read_text())["messages"]) == 4


def test_one_prompt_and_piped_text_answer_on_stdout(runs, capsys, monkeypatch) -> None:
    expected = reply_to(runs, "sft", "the cat") + "\n"
    assert main(["chat", str(runs / "sft"), "--max-tokens", "6", "-p", "the cat"]) == 0
    assert capsys.readouterr().out == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n"))
    assert main(["chat", str(runs / "sft"), "--max-tokens", "6"]) == 0
    assert capsys.readouterr().out == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["chat", str(runs / "sft")]) == 2


def test_the_picture_of_a_session_shows_what_was_said(runs, said, monkeypatch) -> None:
    for name in ("record", "soft_wrap"):
        monkeypatch.setattr(console, name, getattr(console, name))
    svg = picture(str(runs / "sft"))
    text = html.unescape(re.sub("<[^>]+>", "", svg)).replace("\xa0", " ")
    assert all(f"> {line}" in text for line in TYPED) and "<|assistant_start|>" in text
    assert reply_to(runs, "sft", TYPED[0]).split()[0] in text
    assert not re.search(
        r"""@font-face|(?:url\(|href=["'])(?!#)""", svg
    )  # it asks no other site for anything
