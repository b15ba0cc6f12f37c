"""The JavaScript clients of examples, unmodified; skipped until ``npm install`` ran there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "javascript"
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="no node on this machine")
@pytest.mark.skipif(
    not (EXAMPLES / "node_modules").is_dir(), reason="npm install was not run in examples/javascript"
)
@pytest.mark.parametrize("command", [["openai.mjs"], ["--import", "tsx", "vercel-ai-sdk.ts"]])
def test_two_turns(server, prompts_seen, command: list[str]) -> None:
    done = subprocess.run(
        [NODE, *command, server.url, "sft"], cwd=EXAMPLES, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    first, second = prompts_seen
    assert done.stdout.count("> ") >= 2 and first.reply_ids
    assert second.prompt_ids[: len(first.prompt_ids)] == first.prompt_ids
