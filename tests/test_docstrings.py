"""Every public name of the library says what it is; what is missing is named."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import picollm

PACKAGE = Path(picollm.__file__).parent


def undocumented(tree: ast.AST, path: str) -> Iterator[str]:
    """Yield the public names without a docstring: the module, its classes and functions, their methods."""
    if ast.get_docstring(tree) is None:  # type: ignore[arg-type]
        yield path
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            overloaded = any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)
            if ast.get_docstring(node) is None and not overloaded:
                yield f"{path}.{node.name}"
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from undocumented(node, f"{path}.{node.name}")


def test_every_public_name_has_a_docstring() -> None:
    missing = []
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        missing += undocumented(ast.parse(file.read_text(encoding="utf-8")), name)
    assert not missing


@pytest.mark.parametrize("name", picollm.__all__)
def test_the_first_names_say_what_they_raise_and_take(name: str) -> None:
    docstring = getattr(picollm, name).__doc__
    assert docstring and docstring.splitlines()[0].endswith((".", "::", ","))
