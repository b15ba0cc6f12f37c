"""The chat page: HTML, style and scripts in one document, which loads nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import NamedTuple

_FOLDER = Path(__file__).parent / "page"
SCRIPTS = ("markdown.js", "store.js", "api.js", "tokens.js", "view.js", "main.js")


class Page(NamedTuple):
    """The document, and the headers that keep everything else out of it."""

    html: bytes
    headers: dict[str, str]


def load_page() -> Page:
    """Return the page with its style and its scripts inside."""
    style = (_FOLDER / "page.css").read_text(encoding="utf-8")
    script = "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    html = (_FOLDER / "page.html").read_text(encoding="utf-8")
    html = html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; connect-src 'self'; "
        "img-src data:; require-trusted-types-for 'script'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return Page(
        html.encode(),
        {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        },
    )


def _hash(text: str) -> str:
    """Return how a policy names an inline script or style: by what is between its tags."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
