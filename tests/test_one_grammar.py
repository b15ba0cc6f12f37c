"""One grammar: no file of the library but the chat format's spells a control token."""

from __future__ import annotations

from pathlib import Path

from picollm.chat.format import ChatFormat
from picollm.chat.format_specification import SPECIFICATIONS

PACKAGE = Path(__file__).resolve().parents[1] / "picollm"


def test_no_other_file_spells_a_control_token() -> None:
    tokens = {token for name in SPECIFICATIONS for token in ChatFormat.required_tokens(name)}
    tokens -= {"<s>", "</s>"}  # HTML spells these too
    found = [
        f"{path.relative_to(PACKAGE)}: {token}"
        for path in PACKAGE.rglob("*")
        if path.suffix in (".py", ".toml", ".html", ".jinja")
        and not (path.parent.name == "chat" and path.name.startswith("format"))
        and "pico-base" not in path.parts
        for token in tokens
        if token in path.read_text(encoding="utf-8")
    ]
    assert not found
