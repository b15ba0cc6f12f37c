"""A manifest names every difference, and a download replaces nothing before it is verified."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from picollm.data import manifest as manifests
from picollm.data.manifest import Manifest
from picollm.errors import DataError, InputError, UnavailableError

ROWS = b'{"a": 1}\n{"a": 2}\n{"a": 3}\n'


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    return path


@pytest.fixture
def pinned(rows: Path) -> Manifest:
    return Manifest.of(rows, schema="{}", builder="a test")


def test_of_a_file(pinned: Manifest) -> None:
    assert (pinned.file, pinned.rows, pinned.bytes) == ("rows.jsonl", 3, 27)
    assert pinned.sha256 == hashlib.sha256(ROWS).hexdigest()
    assert pinned.mirror_url is None


def test_save_and_load(pinned: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "rows.manifest.json"
    pinned.save(path)
    assert Manifest.load(path) == pinned
    assert json.loads(path.read_text()) == asdict(pinned)


def test_verify_passes_the_same_bytes(rows: Path, pinned: Manifest) -> None:
    assert manifests.verify(rows, pinned) == ROWS


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (ROWS + b'{"a": 4}\n', "36 bytes, expected 27; 4 rows, expected 3"),
        (ROWS.replace(b"2", b"5"), "sha256"),
        (ROWS[:-1], "cut off"),
        (ROWS[:-4], "cut off"),
        (ROWS.replace(b"\n", b"\r\n"), "CR LF"),
        (b"\xef\xbb\xbf" + ROWS, "byte order mark"),
        (b"<!DOCTYPE html><html></html>\n", "HTML page"),
        (b"", "0 rows"),
    ],
)
def test_verify_names_the_difference(rows: Path, pinned: Manifest, content: bytes, named: str) -> None:
    rows.write_bytes(content)
    with pytest.raises(DataError, match=named) as error:
        manifests.verify(rows, pinned)
    assert "\n" not in str(error.value)


def test_missing_files(tmp_path: Path, pinned: Manifest) -> None:
    with pytest.raises(UnavailableError, match="does not exist"):
        manifests.verify(tmp_path / "nothing.jsonl", pinned)
    with pytest.raises(UnavailableError, match="does not exist"):
        Manifest.load(tmp_path / "nothing.json")
    with pytest.raises(UnavailableError, match="cannot read"):
        manifests.verify(tmp_path, pinned)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("[]", "holds list"),
        ("{}", "'file' is None"),
        ('{"file": "a", "rows": "3", "bytes": 1, "sha256": ""}', "'rows' is '3'; expected int"),
        ('{"file": "a", "rows": true, "bytes": 1, "sha256": ""}', "'rows' is True"),
        ('{"file": "a", "rows": 3, "bytes": 1, "sha256": "", "md5": ""}', "unknown field 'md5'"),
    ],
)
def test_bad_manifests(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DataError, match=named):
        Manifest.load(path)


def test_download_is_verified_and_replaces(rows: Path, pinned: Manifest, tmp_path: Path) -> None:
    target = tmp_path / "copy.jsonl"
    target.write_text("old")
    made = manifests.download(rows.as_uri(), target, pinned)
    assert target.read_bytes() == ROWS
    assert made.mirror_url == rows.as_uri()


@pytest.mark.parametrize("content", [ROWS[:-3], b"<html>busy</html>", ROWS * 5000])
def test_a_bad_download_replaces_nothing(
    rows: Path, pinned: Manifest, tmp_path: Path, content: bytes
) -> None:
    target = tmp_path / "copy.jsonl"
    target.write_text("old")
    rows.write_bytes(content)
    with pytest.raises((DataError, UnavailableError)):
        manifests.download(rows.as_uri(), target, pinned)
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.jsonl", "rows.jsonl"]


def test_unreachable_addresses(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot reach"):
        manifests.fetch((tmp_path / "nothing").as_uri())
    with pytest.raises(InputError, match="https://"):
        manifests.fetch("ftp://example.org/rows.jsonl")
    with pytest.raises(InputError, match="https://"):
        manifests.fetch("rows.jsonl")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs an endless file")
def test_an_endless_or_slow_download_ends() -> None:
    with pytest.raises(UnavailableError, match="more than 1000000 bytes"):
        manifests.fetch("file:///dev/zero", max_bytes=1_000_000)
    with pytest.raises(UnavailableError, match="took longer than 0 s"):
        manifests.fetch("file:///dev/zero", timeout_s=0.0)
