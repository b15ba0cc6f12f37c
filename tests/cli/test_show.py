"""``picollm show``: every layout, one JSON document, one page, and one line for whatever is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from picollm.chat.format import ChatFormat
from picollm.cli.main import main
from picollm.tokenizer import Tokenizer

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
LAYOUTS = {
    "messages": {"messages": TALK},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
    "conversations": {"conversations": TALK},
    "alpaca": {"instruction": "Hi", "input": "", "output": "Hello."},
    "dolly": {"instruction": "Hi", "context": "", "response": "Hello."},
    "prompt-completion": {"prompt": "Hi", "completion": "Hello."},
    "prompt-response": {"prompt": "Hi", "response": "Hello."},
}
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("checkpoint")
    Tokenizer.train(["Hi. Hello."] * 9, 300, ChatFormat.required_tokens("picollm")).save(directory)
    return str(directory)


def shown(file: Path, checkpoint: str, capsys: Captured, *options: str) -> tuple[dict[str, Any], str]:
    assert main(["show", str(file), "--checkpoint", checkpoint, "--json", *options]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_shows_the_same_tokens(
    name: str, tmp_path: Path, checkpoint: str, capsys: Captured
) -> None:
    file = tmp_path / "talk.jsonl"
    file.write_text(json.dumps(LAYOUTS[name]) + "\n")
    document, err = shown(file, checkpoint, capsys)
    assert len(document["ids"]) == len(document["loss_mask"]) == len(document["tokens"])
    fmt = ChatFormat.named("picollm", Tokenizer.load(checkpoint))
    assert fmt.parse(document["ids"]).to_dict()["messages"] == TALK
    assert document["fingerprint"] == fmt.fingerprint and f"read as {name}" in " ".join(err.split())
    assert shown(file, checkpoint, capsys, "--layout", name)[0] == document


def test_every_kind_of_file(tmp_path: Path, checkpoint: str, capsys: Captured) -> None:
    rows = [{"messages": TALK}, {"messages": [{"role": "user", "content": "Bye"}, TALK[1]]}]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(row["messages"]) for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    (tmp_path / "e.json").write_text(json.dumps([row["messages"] for row in rows]))
    documents = [shown(file, checkpoint, capsys, "--index", "1")[0] for file in sorted(tmp_path.iterdir())]
    assert len(documents) == 5 and all(document == documents[0] for document in documents)
    (tmp_path / "one.json").write_text(json.dumps(rows[1], indent=2))
    (tmp_path / "bare.json").write_text(json.dumps(rows[1]["messages"]))
    assert shown(tmp_path / "one.json", checkpoint, capsys)[0] == documents[0]
    assert shown(tmp_path / "bare.json", checkpoint, capsys)[0] == documents[0]


def test_a_page_and_colors(tmp_path: Path, checkpoint: str, capsys: Captured) -> None:
    file, page = tmp_path / "talk.json", tmp_path / "page.html"
    talk = [{"role": "user", "content": "<script>alert(1)</script>"}, TALK[1]]
    file.write_text(json.dumps(talk))
    arguments = ["show", str(file), "--checkpoint", checkpoint]
    assert main([*arguments, "--html", str(page)]) == 0
    html = page.read_text()
    assert "alert(1)" not in html.replace("&lt;", "<") and 'data-bit="1"' in html and "http" not in html
    capsys.readouterr()
    assert main([*arguments, "--ids"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "supervised" in err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("talk.jsonl", b'{"messages": "Hi"}\n', "row 0: messages is a string; expected a list"),
        (
            "talk.jsonl",
            b'{"text": "Hi"}\n',
            "row 0: not a conversation: fields text; expected one of: messages",
        ),
        ("talk.jsonl", b'{"messages": [{"role": "user", "content": "\xff"}]}\n', "talk.jsonl, row 0"),
        (
            "talk.jsonl",
            b'{"messages": [{"role": "cat", "content": "x"}]}\n',
            "row 0: message 0: unknown role 'cat'",
        ),
        ("talk.jsonl", b'{"messages": [{"role": "user", "content": "\\ud800"}]}\n', "lone surrogate U+D800"),
        ("talk.json", b"[1, 2]", "row 0: expected a JSON object, not int"),
        ("talk.jsonl", b"", "is empty"),
        ("talk.doc", b"x", "of no known kind"),
    ],
)
def test_what_is_wrong_is_one_line(
    name: str, content: bytes, said: str, tmp_path: Path, checkpoint: str, capsys: Captured
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["show", str(tmp_path / name), "--checkpoint", checkpoint]) not in (0, 1)
    err = " ".join(capsys.readouterr().err.split())
    assert said in err and "Traceback" not in err
