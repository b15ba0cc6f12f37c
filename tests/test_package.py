"""The package as others get it: sdist, wheel from it, and that wheel in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INPUTS = ("picollm", "configs", "pyproject.toml", "README.md", "LICENSE")
MINIATURE = """
name = "miniature"

[sft]
batch_tokens = 1024
max_tokens = 256
num_validation_rows = 2

[sft.train]
num_steps = 2
precision = "fp32"

[[mixture]]
task = "identity"
limit = 40
why = "Who the model is."
"""


def _run(command: list[str | Path], cwd: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    mine = ("PICOLLM", "PYTHONPATH")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    environment |= changed
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


BUILD = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])(sys.argv[2])"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what an sdist unpacks to, as ``python -m build`` makes it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("sdist")
    for name in INPUTS:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    _run([sys.executable, "-c", BUILD, "build_sdist", out], cwd=source)
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        archive.extractall(unpacked, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return next(unpacked.iterdir())


@pytest.fixture(scope="module")
def dist(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the wheel built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-c", BUILD, "build_wheel", out], cwd=unpacked)
    return out


@pytest.fixture(scope="module")
def site(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where pip put the wheel: an environment that has only it and, from here, what it needs."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "--quiet"]
    _run([*pip, "--no-deps", "--no-index", next(dist.glob("*.whl"))], cwd=place)
    site = next(place.glob("lib/python*/site-packages"))
    # The .pth files of a directory that is named here, such as an editable install's, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return site


def test_the_wheel_has_every_file_of_the_package(site: Path) -> None:
    tracked = _run(["git", "ls-files", "picollm", "configs"], cwd=ROOT).stdout.split()
    wanted = {f"picollm/{name}" if name.startswith("configs/") else name for name in tracked}
    packed = {str(path.relative_to(site)) for path in site.rglob("*")}
    missing = sorted(name for name in wanted if name not in packed and (ROOT / name).exists())
    assert not missing


def test_without_a_compiler_there_is_a_wheel_without_kernels(
    unpacked: Path, dist: Path, tmp_path: Path
) -> None:
    def libraries(directory: Path) -> list[str]:
        with zipfile.ZipFile(next(directory.glob("*.whl"))) as wheel:
            return [name for name in wheel.namelist() if name.endswith(".so")]

    if shutil.which("cc"):
        assert [name.startswith("picollm/model/_native.") for name in libraries(dist)] == [True]
    copy = shutil.copytree(unpacked, tmp_path / "copy", ignore=shutil.ignore_patterns("build"))
    _run([sys.executable, "-c", BUILD, "build_wheel", tmp_path], cwd=copy, CC="false")
    assert libraries(tmp_path) == []


@pytest.mark.timeout(900)
def test_an_installed_wheel_shows_trains_and_talks_anywhere(site: Path, tmp_path: Path) -> None:
    programs = site.parents[2] / "bin"
    picollm = programs / "picollm"
    nothing = {"PATH": str(programs)}  # no git and no compiler
    found = _run([programs / "python", "-c", "import picollm; print(picollm.__file__)"], tmp_path).stdout
    assert found.startswith(str(site))
    assert "sft" in _run([picollm, "--help"], tmp_path).stdout

    (tmp_path / "one.json").write_text('{"messages": [{"role": "user", "content": "Hi"}]}', encoding="utf-8")
    shown = json.loads(_run([picollm, "show", "one.json", "--json"], tmp_path, **nothing).stdout)
    assert len(shown["ids"]) == len(shown["loss_mask"])

    (tmp_path / "miniature.toml").write_text(MINIATURE, encoding="utf-8")
    trained = _run([picollm, "sft", "--config", "miniature.toml", "--json"], tmp_path, **nothing)
    assert json.loads(trained.stdout)["stage"] == "sft"
    _run([picollm, "chat", "--prompt", "Hi", "--max-tokens", "4"], tmp_path, **nothing)


def test_the_shipped_recipes_are_found_by_name_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from picollm.recipes.config import load_recipe

    monkeypatch.chdir(tmp_path)
    for path in sorted((ROOT / "configs").glob("*.toml")):
        assert load_recipe(Path(path.stem)) == load_recipe(path) == load_recipe(Path("configs", path.name))
