"""The lecture's notebooks: they run from top to bottom, anywhere, and what they store is real and small."""

from __future__ import annotations

import ast
import subprocess
import sys
import warnings
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*/*.ipynb"))
SECTIONS = {
    "chat_format_and_sft": [
        "A conversation becomes one causal token stream",
        "Base model versus SFT model",
        "The architecture stayed the same and the training distribution changed",
    ],
    "sft_flow": [
        "1. Load a base checkpoint",
        "2. Load conversation data under one schema",
        "3. Format each conversation into a causal sequence",
        "4. Fine-tune for a controlled number of steps",
        "5. Compare",
    ],
    "train_serve_mismatch": ["The toy: six prompts for one question", "The real object: one checkpoint"],
}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)


def _read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def _code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in _read(path).cells if cell.cell_type == "code"]


@each_notebook
def test_it_has_the_lectures_sections_in_order(path: Path) -> None:
    titles = [
        line.removeprefix("## ")
        for cell in _read(path).cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    wanted = SECTIONS[path.parent.name]
    assert [title[: len(name)] for title, name in zip(titles, wanted, strict=True)] == wanted


@each_notebook
def test_cells_are_short_and_define_nothing_again(path: Path) -> None:
    for cell in _code(path):
        assert len(cell.source.splitlines()) <= 15
        defined = [
            node
            for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        ]
        assert not defined


@each_notebook
def test_stored_outputs_are_real_and_small(path: Path) -> None:
    cells = _code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < 300_000
    stored = path.read_text(encoding="utf-8")
    assert str(ROOT) not in stored and "/tmp" not in stored


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebook-runs")


@pytest.mark.timeout(900)  # half a minute of work each, also where many others share the machine
@each_notebook
def test_it_runs_from_top_to_bottom_in_any_directory(
    path: Path, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's own libraries; the notebook's process has its own
        from nbclient import NotebookClient

        monkeypatch.setenv("PICOLLM_HOME", str(runs))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        where = {"metadata": {"path": str(tmp_path)}}
        client = NotebookClient(_read(path), timeout=600, startup_timeout=300, resources=where)
        client.execute()


@each_notebook
def test_the_first_cell_says_what_to_do_where_it_cannot_run(path: Path, tmp_path: Path) -> None:
    first = _code(path)[0].source
    for name in ("torch", "picollm", "matplotlib", "pandas"):  # found, and too old
        (tmp_path / f"{name}.py").write_text('__version__ = "2.8.1+cpu"')
    old = f"import sys; sys.version_info, sys.version = (3, 9, 1), '3.9.1 (old)'\n{first}"
    bare = [sys.executable, "-S", "-c"]  # without site-packages
    for place, command, said in (
        (ROOT, [*bare, old], "Python 3.11 or newer; this kernel has 3.9.1"),
        (ROOT, [*bare, first], "lacks torch"),
        (tmp_path, [*bare, first], "torch 2.9 or newer; this kernel has 2.8.1+cpu"),
    ):
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert said in done.stderr and "scripts/install notebooks" in done.stderr
        assert "Traceback" not in done.stderr
