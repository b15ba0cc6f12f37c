"""An Ollama ``Modelfile``: the chat format once more, as a template of the language Go.

Ollama hands a template ``.Messages``, each with ``.Role`` and ``.Content``. What stands between two messages
depends on the roles of both, so the template remembers in ``$before`` who spoke last.
"""

from __future__ import annotations

import json

from picollm.chat.format import ChatFormat
from picollm.chat.format_borders import END, PROMPT, START, SYSTEM, TEXT, USER, spelled_border
from picollm.chat.format_specification import Specification
from picollm.errors import InputError


def modelfile(chat_format: ChatFormat, gguf_name: str, context_length: int) -> str:
    """Return the text of a ``Modelfile`` for the GGUF file ``gguf_name`` beside it.

    Raises:
        InputError: Ollama's templates cannot express the format.
    """
    texts = {token_id: token for token, token_id in chat_format.tokenizer.special_tokens.items()}
    ends = sorted(texts[token_id] for token_id in chat_format.stop_ids)
    lines = [
        f"FROM ./{gguf_name}",
        f'TEMPLATE """{go_template(chat_format.specification)}"""',
        *(f"PARAMETER stop {json.dumps(end, ensure_ascii=False)}" for end in ends),
        f"PARAMETER num_ctx {context_length}",
    ]
    return "\n".join(lines) + "\n"


def go_template(spec: Specification) -> str:
    """Return ``spec`` as a Go template over ``.Messages``; calls of the calculator have no place there.

    Raises:
        InputError: the format strips messages, which Ollama's templates cannot.
    """
    if spec.strip:
        raise InputError("the chat format strips messages; a template of Ollama has no function for that.")

    def between(before: int, behind: int) -> str:
        closing, opening = spelled_border(spec, before, behind)
        return _literal("".join(text for text, _ in (*closing, *opening)))

    after_system, system = "", ""
    if spec.system is not None:
        system = _when("system", between(START, SYSTEM))
        after_system = f'{{{{ else if eq $before "system" }}}}{between(SYSTEM, USER)}'
    user = (
        f'{{{{ if eq $before "start" }}}}{between(START, USER)}'
        f"{after_system}{{{{ else }}}}{between(TEXT, USER)}{{{{ end }}}}"
    )
    branches = [system, _when("user", user), _when("assistant", between(USER, TEXT))]
    chosen = "{{ else ".join(branch.removeprefix("{{ ") for branch in branches if branch)
    return (
        '{{ $before := "start" }}{{ range .Messages }}{{ '
        f"{chosen}{{{{ end }}}}{{{{ end }}}}"
        f'{{{{ if eq $before "assistant" }}}}{between(TEXT, END)}'
        f"{{{{ else }}}}{between(USER, PROMPT)}{{{{ end }}}}"
    )


def _when(role: str, opening: str) -> str:
    """Return the branch for messages of ``role``: what opens one, its text, and that it was the last."""
    return f'{{{{ if eq .Role "{role}" }}}}{opening}{{{{ .Content }}}}{{{{ $before = "{role}" }}}}'


def _literal(text: str) -> str:
    """Return ``text`` as it must stand in a template inside a Modelfile's triple quotes."""
    if "{{" in text or "}}" in text or '"""' in text:
        return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"
    return text
