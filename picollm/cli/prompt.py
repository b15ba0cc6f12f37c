"""Where a person types: history, several lines, and completion of commands and files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from picollm import paths

_WITH_FILE = ("/save ", "/load ")


class _Commands(Completer):
    def __init__(self, names: Collection[str]) -> None:
        self._names = sorted(names)
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if text.startswith(_WITH_FILE):
            typed = text.split(" ", 1)[1].lstrip()
            yield from self._files.get_completions(Document(typed), complete_event)
        elif text.startswith("/"):
            yield from (Completion(name, -len(text)) for name in self._names if name.startswith(text))


class Prompt:
    """A line editor that remembers what was typed; ``status`` is shown below."""

    def __init__(self, commands: Collection[str], status: Callable[[], str]) -> None:
        home = paths.home()
        with paths.disk_errors(home):
            home.mkdir(parents=True, exist_ok=True)
        keys = KeyBindings()

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        self._session: PromptSession[str] = PromptSession(
            history=FileHistory(str(home / "chat_history")),
            completer=_Commands(commands),
            complete_while_typing=False,
            key_bindings=keys,
            bottom_toolbar=status,
            prompt_continuation="  ",
        )

    def read(self) -> str:
        """Return one message; a line that ends in a backslash goes on in the next."""
        line = self._session.prompt("> ")
        while line.endswith("\\"):
            line = line[:-1] + "\n" + self._session.prompt("  ")
        return line
