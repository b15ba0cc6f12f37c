"""``picollm serve``: one line and the right exit code for what cannot be served, and an orderly end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from picollm import Checkpoint
from picollm.cli.main import main
from picollm.serve.server import listen


@pytest.fixture(scope="module")
def saved(make_checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "sft"
    made = make_checkpoint()
    Checkpoint.save(place, made.model, made.tokenizer, made.format, made.record)
    return place


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere/at/all"], 3, "nowhere/at/all"),
        (["{saved}", "--host", "0.0.0.0"], 2, "PICOLLM_API_KEY"),
        (["{saved}", "--port", "{taken}"], 3, "cannot listen on 127.0.0.1"),
        (["{saved}", "--port", "99999"], 2, "port is 99999"),
        (["{saved}", "--max-tokens", "0"], 2, "max_tokens is 0"),
        (["{broken}"], 3, "broken"),
    ],
)
def test_what_cannot_be_served_is_one_line(saved, tmp_path, capsys, arguments, code, words) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in saved.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    record = json.loads((broken / "record.json").read_text())
    record["format"]["fingerprint"] = "sha256:0"
    (broken / "record.json").write_text(json.dumps(record))
    with listen("127.0.0.1", 0) as taken:
        names = {"saved": saved, "broken": broken, "taken": taken.getsockname()[1]}
        port = [] if "--port" in arguments else ["--port", "0"]
        assert main(["serve", *(argument.format(**names) for argument in arguments), *port]) == code
    said = capsys.readouterr().err.strip()
    assert words in said and said.startswith("picollm: ") and "\n" not in said


def test_it_serves_until_it_is_told_to_stop(saved: Path) -> None:
    command = [sys.executable, "-m", "picollm", "serve", str(saved), "--port", "0", "--api-key", "k"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        url = re.search(r"http://\S+", process.stderr.readline())[0]
        body = json.dumps({"messages": [{"role": "user", "content": "the cat"}], "max_tokens": 3}).encode()
        headers = {"Content-Type": "application/json", "Authorization": "Bearer k"}
        request = urllib.request.Request(f"{url}/v1/chat/completions", body, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            assert json.load(response)["model"] == "sft"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
        assert process.stderr.read() == ""
