"""The floor plan as a test: every folder imports only lower ranks."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "picollm"
RANK = {
    "errors": -1,  # everybody may report an error
    "paths": 0,
    "progress": 0,
    "fast_bpe": 0,
    "files": 0,
    "hub": 1,
    "record": 1,
    "tokenizer": 1,
    "model": 1,
    "tools": 1,
    "weights": 2,
    "adapter": 3,
    "chat": 2,
}
RANK |= {
    "data": 3,
    "checkpoint": 3,
    "tasks": 4,
    "train": 4,
    "infer": 4,
    "eval": 5,
    "interop": 5,
    "recipes": 6,
    "serve": 6,
    "cli": 7,
}

ONE_ROOM = {"adapter", "checkpoint"}  # an adapter's directory is a checkpoint in two places


def imported_rooms(path: Path) -> set[str]:
    """Return the top-level rooms of picollm that the module at ``path`` imports, lazily or not."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("picollm.")}
    return rooms & set(RANK)


def test_every_room_imports_only_lower_ranks() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    wrong = []
    for path in modules:
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__main__":
            continue
        for other in imported_rooms(path) - {room}:
            if RANK[other] >= RANK[room] and {room, other} != ONE_ROOM:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {other}")
    assert modules and not wrong, wrong


def test_only_paths_reads_the_environment() -> None:
    readers = [
        p.name for p in PACKAGE.rglob("*.py") if "os.environ" in p.read_text() or "getenv" in p.read_text()
    ]
    assert readers == ["paths.py"]


def test_only_train_knows_torch_distributed() -> None:
    users = {
        p.relative_to(PACKAGE).parts[0] for p in PACKAGE.rglob("*.py") if "torch.distributed" in p.read_text()
    }
    assert users <= {"train"}
