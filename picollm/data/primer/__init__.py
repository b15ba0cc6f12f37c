"""An offline generator of text: sentences from templates, facts from tables, everything a function of a seed.

It stands in for every data set of the project where nothing can be downloaded, and it is built to show what
supervised fine-tuning does: see ``facts`` for the three groups of facts.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from picollm.data.primer.documents import document, documents
from picollm.data.primer.facts import Fact, facts
from picollm.data.primer.rows import rows

__all__ = ["Fact", "digest", "document", "documents", "facts", "rows"]


@cache
def digest() -> str:
    """Return a sha256 over the primer's own files: equal digests, equal text."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.iterdir()):
        if path.suffix in (".py", ".toml", ".txt"):
            digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
