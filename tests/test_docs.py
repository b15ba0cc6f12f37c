"""The documents are true: their examples run, the commands they name exist, their links lead somewhere."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

from picollm.cli.main import COMMANDS, main
from picollm.recipes.config import Recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"^<!-- not run: [^\n]* -->\n```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks of ``page`` in one of ``languages``, without their indentation."""
    text = NOT_RUN.sub("", page.read_text(encoding="utf-8"))
    for indent, language, body in FENCE.findall(text):
        if language in languages:
            yield re.sub(f"^{indent}", "", body, flags=re.MULTILINE)


@each_page
def test_python_examples_run_in_the_order_of_the_page(
    page: Path, story: tuple[Path, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share their names, as cells of a notebook do, and find a finished ``runs/``.

    A block under ``<!-- not run: REASON -->`` needs something from outside, such as the Hub.
    """
    (tmp_path / "runs").symlink_to(story[0])
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with redirect_stdout(io.StringIO()):
        for number, source in enumerate(blocks(page, "python", "{exec}")):
            exec(compile(source, f"{page.name}, example {number}", "exec"), names)


def command_lines(page: Path) -> Iterator[list[str]]:
    """Yield the words behind ``picollm`` of every command that ``page`` shows, in blocks and in sentences."""
    text = page.read_text(encoding="utf-8")
    lines = "\n".join(blocks(page, "bash", "sh", "console")).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`((?:\.venv/bin/)?picollm [a-z][^`]*)`", FENCE.sub("", text))
    for line in lines:
        for part in re.split(r"\||&&|;", line.split(" #")[0]):
            words = shlex.split(part.removeprefix("$ "), posix=False)
            words = words[words.index("-m") + 1 :] if "-m" in words else words
            if words and words[0].removeprefix(".venv/bin/") == "picollm" and len(words) > 1:
                yield words[1:]


@cache
def help_of(*command: str) -> str:
    """Return what ``--help`` of a command says."""
    shown = io.StringIO()
    with redirect_stdout(shown):
        assert main([*command, "--help"]) == 0
    return shown.getvalue()


@each_page
def test_every_command_and_every_flag_exists(page: Path) -> None:
    for words in command_lines(page):
        name = words[0].rstrip(",.")
        if name.startswith("-") or name.isupper() or name == "...":
            continue
        assert name in COMMANDS, f"picollm {name}"
        nested = COMMANDS[name][1] == "ACTIONS" and len(words) > 1 and words[1].isalpha()
        shown = help_of(name, words[1]) if nested else help_of(name)
        for flag in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(words[1:])):
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", shown), f"picollm {' '.join(words)}: no {flag}"


@each_page
def test_links_lead_to_files_that_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    local = [link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]
    assert not [link for link in local if not (page.parent / link).exists()]


def test_the_tables_of_the_readme_are_those_of_the_results() -> None:
    marked = re.findall(r"<!-- results: \w+ -->\n((?:\|[^\n]*\n)+)", PAGES[0].read_text(encoding="utf-8"))
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert len(marked) == 2 and all(table in results for table in marked)


@each_page
def test_scripts_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"(?:bash |`)((?:scripts/\w+|speedrun\.sh))", page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    side_by_side = (tmp_path / "site" / "side-by-side.html").read_text(encoding="utf-8")
    assert "def render_for_completion" in re.sub("<[^>]+>", "", side_by_side)
    assert "identical" in side_by_side
