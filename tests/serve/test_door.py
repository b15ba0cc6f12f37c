"""One prompt builder: what reaches the engine's door is the same from every side.

A dozen conversations in the suite; PICOLLM_TEST_CONVERSATIONS=2000 takes as many real ones, where there are.
"""

from __future__ import annotations

import os
import shutil
from itertools import islice
from pathlib import Path

import pytest

from picollm import Checkpoint, Conversation, Engine, Message, SamplingParams
from picollm.chat.conversation import Part
from picollm.cli.talk import Talk
from picollm.data.rows import load_rows, rows_of
from picollm.eval.evaluate import evaluate
from picollm.infer.request import Request
from picollm.paths import PICO_BASE
from picollm.serve.service import Served, Service
from picollm.tasks.jsonl import Jsonl

NUM = int(os.environ.get("PICOLLM_TEST_CONVERSATIONS", "0"))
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = [
    [Message("user", "  spaces \n and <|assistant_end|> typed ")],
    [Message("system", "Be a cat."), Message("user", "what is 2+3?")],
    [
        Message("user", "what is 2+3?"),
        Message("assistant", [Part("python", "2+3"), Part("python_output", "5"), Part("text", "it is 5 ")]),
        Message("user", "und größer?"),
        Message("assistant", "über\n\n```py\nx\n```"),
        Message("user", "\tthe cat"),
    ],
]


@pytest.fixture(scope="module")
def conversations(request: pytest.FixtureRequest) -> list[Conversation]:
    """Return conversations that end with a user's turn."""
    found = [Conversation(messages) for messages in HOSTILE]
    if NUM:
        files = sorted((request.getfixturevalue("shared_data") / "chat").rglob("*.parquet"))
        rows = (row for file in files for row in load_rows(file))
        talks = (Conversation.from_row(row) for row in rows)
        found += islice(
            (Conversation(t.messages[:-1]) for t in talks if t.messages[-1].role == "assistant"), NUM
        )
    return found


@pytest.fixture
def checkpoint() -> Checkpoint:
    """Return the shipped base: its format and tokenizer are the real ones."""
    return Checkpoint.load(PICO_BASE)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Return what is submitted to any engine; every reply is "a", without asking a model."""
    seen: list[Request] = []
    open_ones: list[Request] = []

    def submit(engine: Engine, request: Request) -> Request:
        seen.append(request)
        open_ones.append(request)
        return request

    def step(engine: Engine) -> list[Request]:
        done = list(open_ones)
        open_ones.clear()
        for request in done:
            request.append(engine.tokenizer.encode("a")[0], None, 10**6)
            if request.finish_reason is None:
                request.append(engine.format.end_id, None, 10**6)
        return done

    monkeypatch.setattr(Engine, "submit", submit)
    monkeypatch.setattr(Engine, "step", step)
    monkeypatch.setattr(Engine, "is_busy", property(lambda engine: bool(open_ones)))
    init = Engine.__init__

    def roomy(engine: Engine, *args: object, **options: object) -> None:
        init(engine, *args, **options)
        engine.context_length = 10**6

    monkeypatch.setattr(Engine, "__init__", roomy)
    return seen


def taken(door: list[Request]) -> list[list[int]]:
    """Return the prompts that came since the last call."""
    prompts = [list(request.prompt_ids) for request in door]
    door.clear()
    return prompts


def test_terminal_evaluation_api_and_page_give_the_engine_the_same_ids(
    checkpoint, door, conversations, running, capsys, tmp_path: Path
) -> None:
    fmt = checkpoint.format
    expected = [fmt.render_for_completion(conversation) for conversation in conversations]

    # The terminal: what was said before is loaded, the last turn is typed.
    engine = Engine(checkpoint)
    for conversation in conversations:
        talk = Talk(engine, SamplingParams(max_tokens=2))
        *before, last = conversation.messages
        if before and before[0].role == "system":
            talk.system = before.pop(0).text
        talk.messages = before
        talk.say(last.text)
    assert taken(door) == expected

    # Evaluation, of a task that has the same conversations as its questions.
    rows = [{**conversation.to_dict(), "answer": "a"} for conversation in conversations]
    evaluate(engine, Jsonl("door", rows_of(rows, "made"), "test"), max_tokens=2)
    assert sorted(taken(door)) == sorted(expected)

    with running(Service([Served("sft", checkpoint)])) as server:
        create = server.client().chat.completions.create
        for stream in (False, True):
            for conversation in conversations:
                messages = conversation.to_dict()["messages"]
                list(create(model="sft", messages=messages, max_tokens=2, stream=stream))
            assert taken(door) == expected
        if CHROMIUM:
            in_the_page(server.url, conversations)
            assert taken(door) == expected


def in_the_page(url: str, conversations: list[Conversation]) -> None:
    """Ask every conversation in the browser, as somebody would who had said all of it there."""
    from playwright.sync_api import sync_playwright

    ask = """async ({messages, system}) => {
        choose(store.create());
        state.current.system = system;
        state.current.messages = messages.map(fromRow);
        await answer();
        store.conversations = [];  // 2,000 conversations are more than a browser keeps
    }"""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        page.locator("#title", has_text="sft").wait_for()
        for conversation in conversations:
            messages = conversation.to_dict()["messages"]
            system = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
            page.evaluate(ask, {"messages": messages, "system": system})
        browser.close()
