"""Uploading and downloading, against a Hub of our own on this machine's loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from picollm.checkpoint import Checkpoint, verify
from picollm.cli.main import main
from picollm.errors import CheckpointError, InputError, UnavailableError
from picollm.hub import resolve
from picollm.interop.certify import certify
from picollm.interop.push import publishable, push, without_token
from picollm.record import Record

TOKEN = "hf_" + "abcDEF123" * 4
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """As much of the Hub as creating, committing and downloading need; all files travel inside the commit."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.created: dict[str, Any] = {}
        self.seen_tokens: set[str] = set()
        self.refuses: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def _answer(self, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen_tokens.add(self.headers.get("Authorization", ""))
        if self.server.refuses:
            self._answer({"error": "no"}, self.server.refuses)
        elif self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self._answer({"url": f"{self.server.url}/org/name"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            kept = [{"path": n, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for n in names]
            self._answer({"files": kept})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(
                {
                    "success": True,
                    "commitOid": COMMIT,
                    "commitUrl": f"{self.server.url}/org/name/commit/{COMMIT}",
                }
            )
        else:
            self._answer({"error": self.path}, 404)

    def do_GET(self) -> None:
        if self.server.refuses:
            return self._answer({"error": "no"}, self.server.refuses)
        if self.path.startswith("/api/models/org/name"):
            siblings = [{"rfilename": name} for name in self.server.files]
            tree = [
                {"type": "file", "path": n, "size": len(d), "oid": "0"} for n, d in self.server.files.items()
            ]
            info = {"id": "org/name", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            return self._answer(tree if "/tree/" in self.path else info)
        name = self.path.partition(f"/resolve/{COMMIT}/")[2]
        if name not in self.server.files:
            return self._answer({"error": "nothing here"}, 404, X_Error_Code="RepoNotFound")
        data = self.server.files[name]
        return self._answer(data, ETag=f'"{hashlib.sha256(data).hexdigest()}"')

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Return a running Hub, to which huggingface_hub goes."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_pushed_checkpoint_comes_down_whole_and_holds_its_certificate(
    hub: Hub, chat_checkpoint: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    directory = chat_checkpoint()
    with caplog.at_level(logging.DEBUG):
        assert main(["push", str(directory), "org/name", "--private"]) == 0
    assert hub.created["name"] == "name" and hub.created["organization"] == "org"
    assert hub.created.get("private") is True or hub.created.get("visibility") == "private"
    assert set(hub.files) == {*(p.name for p in directory.iterdir()), "README.md"} - {"certificate.json"}
    assert f"Bearer {TOKEN}" in hub.seen_tokens
    shown = capfd.readouterr()
    assert TOKEN not in shown.out + shown.err + caplog.text

    down = resolve("org/name")
    assert verify(down).stage == "sft" and not (down / "README.md").exists()
    loaded = Checkpoint.load("org/name")
    assert certify(loaded, ["jinja", "gguf"], max_tokens=2).holds


def test_the_training_state_goes_along_when_asked_and_stays_out_of_downloads(
    hub: Hub, chat_checkpoint: Any, tmp_path: Path
) -> None:
    directory = shutil.copytree(chat_checkpoint(), tmp_path / "sft")
    with pytest.raises(CheckpointError, match=r"no training state at .*; push without --archive"):
        push(directory, "org/name", "card", archive=True)
    assert not hub.files
    (tmp_path / "sft.run/state").mkdir(parents=True)
    (tmp_path / "sft.run/state/optimizer.safetensors").write_bytes(b"state")
    push(directory, "org/name", "card", archive=True)
    assert hub.files["training_state/state/optimizer.safetensors"] == b"state"
    assert hub.files["README.md"] == b"card"
    assert not (resolve("org/name") / "training_state").exists()


@pytest.mark.parametrize("status", [401, 403, 500])
def test_what_the_hub_refuses_is_one_line_without_the_token(
    status: int, hub: Hub, chat_checkpoint: Any
) -> None:
    hub.refuses = status
    expected = "does not let this account write" if status < 500 else "uploading org/name failed"
    with pytest.raises(UnavailableError, match=expected) as caught:
        push(chat_checkpoint(), "org/name", "card")
    assert "\n" not in str(caught.value) and TOKEN not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_model_that_does_not_exist_is_one_line(hub: Hub) -> None:
    with pytest.raises((CheckpointError, UnavailableError)) as caught:
        resolve("org/missing")
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_and_a_wrong_name_are_refused_before_anything_is_sent(
    hub: Hub, chat_checkpoint: Any, tmp_path: Path
) -> None:
    directory = shutil.copytree(chat_checkpoint(), tmp_path / "sft")
    with pytest.raises(InputError, match="'name' is no Hub id; expected ORG/NAME"):
        push(directory, "name", "card")
    (directory / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json missing or altered"):
        push(directory, "org/name", "card")
    assert not hub.created and not hub.files


def test_the_published_record_has_no_directory_of_this_machine() -> None:
    record = Record(
        "sft",
        config={"sft": {"base": "/home/me/models/base", "lr": 1e-3}, "why": "a/b"},
        data=[{"source": "C:\\Users\\me\\data\\chat\\train.parquet", "rows": 3}],
        parent={"name": "~/models/base", "sha256": "ab"},
    )
    text = publishable(record).to_json()
    assert "me" not in json.loads(text)["data"][0]["source"].split("/") and "/home" not in text
    kept = Record.from_json(text)
    assert kept.data[0]["source"] == "chat/train.parquet" and kept.parent == {
        "name": "models/base",
        "sha256": "ab",
    }
    assert kept.config == {"sft": {"base": "models/base", "lr": 1e-3}, "why": "a/b"}


def test_tokens_are_blacked_out() -> None:
    assert without_token(f"x {TOKEN} y Bearer {TOKEN}") == "x hf_... y hf_..."
