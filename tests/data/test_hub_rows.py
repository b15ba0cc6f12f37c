"""Data sets of the Hub, through the libraries that everybody uses, from a Hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT, OTHER = "0123456789abcdef0123456789abcdef01234567", "f" * 40
CARD = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train.jsonl}
  - {split: test, path: main/test.jsonl}
---
"""
FILES = {
    "README.md": CARD.encode(),
    "main/train.jsonl": b'{"n": 1}\n{"n": 2}\n',
    "main/test.jsonl": b'{"n": 3}\n',
}
LARGE = "main/train.jsonl"  # kept as a large file, of which the Hub tells the sha256
ASK = """
import json, sys
from picollm.data.rows import load_rows, split_names
from picollm.errors import PicoError
def told(location, split):
    try:
        rows = load_rows(location, split=split)
        return [[row["n"] for row in rows], rows.name, rows.digest, rows.files, sorted(split_names(location))]
    except PicoError as error:
        return f"{type(error).__name__}: {error}"
print(json.dumps([told(*each) for each in json.loads(sys.argv[1])]))
"""


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """One data set at one commit."""

    def log_message(self, *_: Any) -> None:
        return

    def _answer(self, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        page = f"/api/datasets/org/name/revision/{COMMIT}"
        name = path.removeprefix(f"/datasets/org/name/resolve/{COMMIT}/")
        if path == page:
            self._answer({"id": "org/name", "sha": COMMIT, "siblings": [_entry(name) for name in FILES]})
        elif path.startswith(page.replace("revision", "tree")):
            self._answer([{**_entry(n), "type": "file", "path": n, "oid": _git(d)} for n, d in FILES.items()])
        elif name in FILES:
            self._answer(FILES[name], ETag=f'"{_git(FILES[name])}"')
        else:
            self._answer(
                b"nothing here", 404, X_Error_Code="EntryNotFound" if name != path else "RepoNotFound"
            )

    do_HEAD = do_GET


def _entry(name: str) -> dict[str, Any]:
    data = FILES[name]
    digest = hashlib.sha256(data).hexdigest()  # "sha256" on a page, "oid" in a tree
    large = {"size": len(data), "sha256": digest, "oid": digest, "pointerSize": 1}
    return {
        "rfilename": name,
        "size": len(data),
        "blobId": _git(data),
        "lfs": large if name == LARGE else None,
    }


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def ask(url: str, home: Path, *asked: tuple[str, str], offline: bool = False) -> list[Any]:
    """Return what another process finds there: the libraries read their settings once, when imported."""
    settings = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    found = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(asked)],
        env={**os.environ, **settings, "HF_HUB_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    answers: list[Any] = json.loads(found.stdout.splitlines()[-1])
    return answers


def test_a_pinned_set_is_fetched_with_the_hashes_of_its_files_and_never_replaced(
    hub: str, tmp_path: Path
) -> None:
    pytest.importorskip("datasets")
    pinned = f"hub:org/name/main@{COMMIT}"
    train, test, no_split, no_set = ask(
        hub, tmp_path, (pinned, "train"), (pinned, "test"), (pinned, "dev"), (f"hub:org/no@{COMMIT}", "train")
    )
    hashes = {LARGE: hashlib.sha256(FILES[LARGE]).hexdigest()}
    hashes["main/test.jsonl"] = f"git:{_git(FILES['main/test.jsonl'])}"
    assert train == [[1, 2], pinned, COMMIT, hashes, ["test", "train"]]
    assert test == [[3], pinned, COMMIT, hashes, ["test", "train"]]
    assert no_split.startswith(f"UnavailableError: cannot load {pinned} (split dev): Unknown split")
    assert no_set.startswith(f"UnavailableError: cannot load hub:org/no@{COMMIT}")
    cached, other = ask(
        hub, tmp_path, (pinned, "train"), (f"hub:org/name/main@{OTHER}", "train"), offline=True
    )
    assert cached == [[1, 2], pinned, COMMIT, {}, ["test", "train"]]
    assert "what lies in the cache is another revision" in other
