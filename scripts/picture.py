"""Draw the README's picture: a conversation with a checkpoint in the terminal, as it really went.

.venv/bin/python -m scripts.picture [CHECKPOINT] [--out docs/images/chat.svg]
"""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from pathlib import Path

import tyro
from rich.terminal_theme import SVG_EXPORT_THEME as theme
from rich.terminal_theme import TerminalTheme

from picollm.cli.chat import answer_line, open_base, open_chat
from picollm.cli.console import console
from picollm.cli.talk import Talk
from picollm.infer.engine import Engine
from picollm.infer.params import SamplingParams

TYPED = ("What is the capital of Cambodia?", "/base", "Who made you?", "What is 23 + 45?", "/tokens")
# The greens of the chat page, on which black can be read.
_COLORS = [tuple(theme.ansi_colors[number]) for number in range(16)]
_COLORS[0], _COLORS[2], _COLORS[10] = (12, 58, 22), (166, 220, 174), (191, 232, 196)
_THEME = TerminalTheme((30, 33, 36), (228, 229, 224), _COLORS[:8], _COLORS[8:])


class _Recorded:
    """A stdout whose text goes the way of what the console shows."""

    def write(self, text: str) -> int:
        console.print(text, end="", markup=False)
        return len(text)

    def flush(self) -> None:
        console.file.flush()


def picture(checkpoint: str | None = None, width: int = 106) -> str:
    """Return an SVG of the terminal in which ``TYPED`` is typed to ``checkpoint``."""
    loaded = open_chat(checkpoint)
    base = open_base(loaded, None)
    talk = Talk(
        Engine(loaded, num_slots=1),
        SamplingParams(max_tokens=64, temperature=0.0),
        open_base=lambda: None if base is None else Engine(base, num_slots=1),
    )
    console.record, console.soft_wrap, console.width = True, False, width
    with redirect_stdout(_Recorded()):
        for line in TYPED:
            console.print(f"> {line}", style="bold", markup=False)
            answer_line(talk, line)
            console.print()
    svg = console.export_svg(title="picollm chat", theme=_THEME)
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # fonts would be asked of another site


def main(
    checkpoint: tyro.conf.Positional[str | None] = None, out: Path = Path("docs/images/chat.svg")
) -> None:
    out.write_text(picture(checkpoint), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
