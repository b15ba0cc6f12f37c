"""The JavaScript clients of examples, unmodified; ``scripts/install test`` gets their packages."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "javascript"
NODE = shutil.which("node")


def is_old(node: str) -> bool:
    found = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    return int(found.strip().removeprefix("v").partition(".")[0] or 0) < 20


@pytest.mark.skipif(NODE is None or is_old(NODE), reason="no node 20 or newer on this machine")
@pytest.mark.skipif(
    not (EXAMPLES / "node_modules/.package-lock.json").is_file(),
    reason="the packages of examples/javascript are not installed: npm ci",
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


def test_the_pinned_packages_come_from_whatever_registry_npm_knows() -> None:
    assert '"resolved"' not in (EXAMPLES / "package-lock.json").read_text(encoding="utf-8")
