"""``picollm identity``: mirrors that lie, hang or change, and what a checkpoint says of itself."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from picollm.cli.main import main
from picollm.data import identity
from picollm.recipes.config import Recipe
from picollm.recipes.identity import Answer, IdentityScore

ROWS = identity.CONVERSATIONS.read_bytes()


class Mirror(BaseHTTPRequestHandler):
    """What may lie at an address."""

    def do_GET(self) -> None:
        name = self.path.strip("/")
        if name == "missing":
            self.send_error(404)
            return
        if name == "loops":
            self.send_response(302)
            self.send_header("Location", "/loops")
            self.end_headers()
            return
        body = {
            "good": ROWS,
            "one-byte": ROWS[:-2] + b"]\n",
            "cut": ROWS[:-500],
            "html": b"<!DOCTYPE html><html><body>Sign in</body></html>",
            "crlf": ROWS.replace(b"\n", b"\r\n"),
        }.get(name, ROWS)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if name == "hangs":
            self.server.released.wait(20)  # type: ignore[attr-defined]
        elif name == "drips":
            self._drip(body)
        elif name == "breaks":
            self.wfile.write(body[: len(body) // 2])
        else:
            self.wfile.write(body)

    def _drip(self, body: bytes) -> None:
        for place in range(4000):
            if self.server.released.wait(0.02):  # type: ignore[attr-defined]
                return
            try:
                self.wfile.write(body[place : place + 1])
            except OSError:
                return  # the reader has given up

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def mirror() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.released = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.released.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_mirror_with_the_same_bytes_is_verified_and_stored(
    mirror: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "copy.jsonl"
    target.write_text("old")
    assert main(["identity", "verify", "--url", f"{mirror}/good"]) == 0
    assert target.read_text() == "old" and "as pinned" in capsys.readouterr().err
    assert main(["identity", "verify", "--url", f"{mirror}/good", "--download-to", str(target)]) == 0
    assert target.read_bytes() == ROWS


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("one-byte", 2, "sha256"),
        ("cut", 2, "its last line is cut off"),
        ("breaks", 2, "bytes, expected"),
        ("crlf", 2, "its lines end in CR LF"),
        ("html", 3, "sent a web page, not data"),
        ("missing", 3, "answered 404"),
        ("loops", 3, "answered 302"),
        ("hangs", 3, "timed out"),
        ("drips", 3, "took longer than 0.5 s"),
    ],
)
def test_a_mirror_that_is_wrong_replaces_nothing(
    name: str, code: int, said: str, mirror: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "copy.jsonl"
    target.write_text("old")
    arguments = ["--url", f"{mirror}/{name}", "--download-to", str(target), "--timeout-s", "0.5"]
    start = time.monotonic()
    assert main(["identity", "verify", *arguments]) == code
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error and f"{mirror}/{name}" in error
    assert target.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["copy.jsonl"]
    assert time.monotonic() - start < 15  # gave up; the mirror would have gone on


def test_nobody_listens_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identity", "verify", "--url", "http://127.0.0.1:9/rows.jsonl"]) == 3
    assert "cannot reach http://127.0.0.1:9/rows.jsonl" in capsys.readouterr().err


def test_the_speedrun_verifies_the_mirror_before_it_trains() -> None:
    script = (Path(__file__).resolve().parents[2] / "speedrun.sh").read_text()
    checked = script.index('identity verify ${identity_mirror:+--url "$identity_mirror"}')
    assert "set -euo pipefail" in script[:checked] and checked < script.index("stage sft")


def test_a_score_is_a_share_with_its_interval_by_kind_and_language() -> None:
    items = identity.test_items()
    answers = [Answer(item, item.name, index % 4 != 0) for index, item in enumerate(items)]
    score = IdentityScore.of(answers)
    assert score.all.num == len(items) == sum(share.num for share in score.kinds.values())
    assert sum(share.num for share in score.languages.values()) == len(items)
    assert {"question", "pressure"} <= set(score.kinds) and {"English", "German"} <= set(score.languages)
    assert score.all.interval[0] < score.all.value < score.all.interval[1]
    assert len(score.wrong) == score.all.num - score.all.num_right


def test_a_checkpoint_is_asked_who_it_is(
    story: tuple[Path, Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "mine.toml"
    identity.init("Ada", "Grace", template)
    text = template.read_text()
    start = text.index("\n[[test]]")
    template.write_text(
        text[:start]
        + '\n[[test]]\nkind = "question"\nexpect = ["name"]\nasks = ["Say, who is it?", "Du bist wer?"]\n'
    )
    assert main(["identity", "test", str(story[0] / "sft"), "--template", str(template), "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["all"]["num"] == 2 and document["kinds"]["question"]["num"] == 2
    assert "Du bist wer?" in shown.err and "expected Ada" in shown.err


def test_a_base_model_is_not_asked(story: tuple[Path, Recipe], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identity", "test", str(story[0] / "base")]) == 2
    assert "was not taught to chat" in capsys.readouterr().err
