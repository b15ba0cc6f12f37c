"""What pins a JSON Lines file (rows, bytes, sha256), and a download that is checked before it is used."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from picollm.errors import DataError, InputError, UnavailableError
from picollm.paths import atomic_file, disk_errors

MAX_DOWNLOAD_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
Content = bytes  # inside Manifest the name ``bytes`` is a field


@dataclass(frozen=True)
class Manifest:
    """What a JSON Lines file must be, and where else it can be had."""

    file: str
    rows: int
    bytes: int
    sha256: str
    schema: str = ""
    builder: str = ""
    mirror_url: str | None = None

    @classmethod
    def of(
        cls, path: Path, *, schema: str = "", builder: str = "", mirror_url: str | None = None
    ) -> Manifest:
        """Return the manifest of the file as it lies there.

        Raises:
            UnavailableError: the file does not exist or cannot be read.
        """
        content = read_bytes(path)
        rows = sum(1 for line in content.splitlines() if line.strip())
        digest = hashlib.sha256(content).hexdigest()
        return cls(path.name, rows, len(content), digest, schema, builder, mirror_url)

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Return the manifest in the JSON file ``path``.

        Raises:
            UnavailableError: the file does not exist.
            DataError: it is not a manifest; the text names the field.
        """
        try:
            record = json.loads(read_bytes(path))
        except ValueError as error:
            raise DataError(
                f"{path} is not JSON ({error}); build the data again to get a manifest"
            ) from error
        return cls.from_dict(record, path)

    @classmethod
    def from_dict(cls, record: Any, path: Path) -> Manifest:
        """Return the manifest in ``record``, read from ``path``; raise DataError naming a wrong field."""
        if not isinstance(record, dict):
            raise DataError(f"{path} holds {type(record).__name__}; a manifest is one JSON object")
        kinds = {"file": str, "rows": int, "bytes": int, "sha256": str}
        for name, kind in kinds.items():
            if not isinstance(record.get(name), kind) or isinstance(record[name], bool):
                raise DataError(f"{path}: field {name!r} is {record.get(name)!r}; expected {kind.__name__}")
        unknown = sorted(set(record) - {field.name for field in fields(cls)})
        if unknown:
            raise DataError(
                f"{path}: unknown field {unknown[0]!r}; known: {', '.join(f.name for f in fields(cls))}"
            )
        return cls(**record)

    def save(self, path: Path) -> None:
        """Write the manifest to ``path`` as JSON, whole or not at all."""
        with atomic_file(path) as temporary:
            temporary.write_text(
                json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )

    def differences(self, content: Content) -> list[str]:
        """Return how ``content`` differs from what is pinned, one phrase each; empty when it does not."""
        digest = hashlib.sha256(content).hexdigest()
        if digest == self.sha256 and len(content) == self.bytes:
            return []
        rows = sum(1 for line in content.splitlines() if line.strip())
        found = []
        if len(content) != self.bytes:
            found.append(f"{len(content)} bytes, expected {self.bytes}")
        if rows != self.rows:
            found.append(f"{rows} rows, expected {self.rows}")
        if digest != self.sha256:
            found.append(f"sha256 {digest[:12]}..., expected {self.sha256[:12]}...")
        return found + _hints(content)


def _hints(content: bytes) -> list[str]:
    hints = []
    if looks_like_html(content):
        hints.append("it is an HTML page")
    if content.startswith(b"\xef\xbb\xbf"):
        hints.append("it starts with a byte order mark")
    if b"\r\n" in content:
        hints.append("its lines end in CR LF")
    if content and not content.endswith(b"\n"):
        hints.append("its last line is cut off or has no line end")
    return hints


def looks_like_html(content: bytes) -> bool:
    """Return whether ``content`` is a web page, as a server sends it instead of a missing file."""
    head = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    return head.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body"))


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file; raise UnavailableError when it is missing or unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UnavailableError(f"{path} does not exist; restore it, or build it again") from None
    except OSError as error:
        raise UnavailableError(
            f"cannot read {path} ({error.strerror}); check its type and permissions"
        ) from error


def verify(path: Path, manifest: Manifest) -> bytes:
    """Return the content of the file, which is byte for byte what the manifest pins.

    Raises:
        UnavailableError: the file is missing.
        DataError: it differs; the text says in what.
    """
    content = read_bytes(path)
    differences = manifest.differences(content)
    if differences:
        raise DataError(
            f"{path} is not what its manifest pins: {'; '.join(differences)}. "
            "Restore the file, or build it again together with its manifest."
        )
    return content


def fetch(url: str, *, timeout_s: float = 30.0, max_bytes: int = MAX_DOWNLOAD_BYTES) -> bytes:
    """Return what lies at ``url`` (http, https or file), at most ``max_bytes``, within ``timeout_s`` in all.

    Raises:
        InputError: the address is of another kind.
        UnavailableError: not reachable, too slow, too large, or a web page instead of data.
    """
    if urlsplit(url).scheme not in ("http", "https", "file"):
        raise InputError(f"cannot download from {url!r}; expected an address that starts with https://")
    try:
        content = b"".join(_chunks(url, timeout_s, max_bytes))
    except urllib.error.HTTPError as error:
        told = str(error.reason).splitlines()[0]  # of a circle of redirects it has three lines
        raise UnavailableError(f"{url} answered {error.code} {told}; check the address") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UnavailableError(f"cannot reach {url} ({reason}); check the address and the network") from error
    if looks_like_html(content):
        raise UnavailableError(f"{url} sent a web page, not data; the address must lead to the file itself")
    return content


def _chunks(url: str, timeout_s: float, max_bytes: int) -> Iterator[bytes]:
    deadline, total = time.monotonic() + timeout_s, 0
    with urllib.request.urlopen(url, timeout=timeout_s) as response:
        while chunk := response.read1(_CHUNK_BYTES):  # what has arrived; read() would wait for a slow server
            total += len(chunk)
            if total > max_bytes:
                raise UnavailableError(f"{url} sent more than {max_bytes} bytes; this cannot be the file")
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{url} took longer than {timeout_s:g} s; try again, or use another mirror"
                )
            yield chunk


def download(url: str, target: Path, manifest: Manifest, *, timeout_s: float = 30.0) -> Manifest:
    """Return the manifest with ``url`` as its mirror, after the file at ``url`` has replaced ``target``.

    Nothing is replaced before every byte has been checked against the manifest.

    Raises:
        UnavailableError: the download failed.
        DataError: what came differs from the manifest; ``target`` is untouched.
    """
    content = fetch(url, timeout_s=timeout_s, max_bytes=max(2 * manifest.bytes, _CHUNK_BYTES))
    check_content(content, manifest, url)
    with disk_errors(target), atomic_file(target) as temporary:
        temporary.write_bytes(content)
    return replace(manifest, mirror_url=url)


def check_content(content: bytes, manifest: Manifest, where: str) -> None:
    """Return when ``content``, from ``where``, is what the manifest pins; raise DataError otherwise."""
    differences = manifest.differences(content)
    if differences:
        raise DataError(
            f"{where} is not what the manifest pins: {'; '.join(differences)}. Nothing was replaced."
        )
