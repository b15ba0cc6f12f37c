"""The Modelfile's template prints what the renderer tokenizes, for every format and golden conversation.

No Go is needed: the few constructs that the template uses are interpreted here, as text/template defines
them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from picollm.chat.conversation import Conversation
from picollm.chat.format import ChatFormat
from picollm.chat.format_specification import SPECIFICATIONS
from picollm.errors import InputError
from picollm.interop.cases import cases
from picollm.interop.ollama import go_template, modelfile
from picollm.tokenizer import Tokenizer

FORMATS = [name for name, spec in SPECIFICATIONS.items() if not spec.strip]


class Go:
    """An interpreter for actions: assignments, range, if with eq, and pipelines of one operand."""

    def __init__(self, template: str) -> None:
        pieces = re.split(r"{{ (.*?) }}", template)
        self._steps = [(index % 2, piece) for index, piece in enumerate(pieces)]
        self._at = 0
        self._tree = self._block()

    def _block(self) -> list[Any]:
        nodes: list[Any] = []
        while self._at < len(self._steps):
            is_action, text = self._steps[self._at]
            self._at += 1
            if not is_action:
                nodes.append(("text", text))
            elif text.startswith(("range ", "if ")):
                nodes.append(self._branch(text))
            elif text == "end" or text.startswith("else"):
                self._at -= 1
                return nodes
            else:
                nodes.append(("action", text))
        return nodes

    def _branch(self, head: str) -> Any:
        arms = [(head, self._block())]
        while (text := self._steps[self._at][1]) != "end":
            self._at += 1
            arms.append((text.removeprefix("else").strip(), self._block()))
        self._at += 1
        return ("range" if head.startswith("range ") else "if", arms)

    def run(self, data: dict[str, Any]) -> str:
        self._variables: dict[str, str] = {}
        return "".join(self._print(self._tree, data))

    def _print(self, nodes: list[Any], dot: dict[str, Any]) -> Iterator[str]:
        for kind, value in nodes:
            if kind == "text":
                yield value
            elif kind == "range":
                for item in dot[value[0][0].removeprefix("range .")]:
                    yield from self._print(value[0][1], item)
            elif kind == "if":
                chosen = next((body for head, body in value if self._holds(head, dot)), [])
                yield from self._print(chosen, dot)
            elif match := re.fullmatch(r"(\$\w+) :?= (.*)", value):
                self._variables[match[1]] = self._operand(match[2], dot)
            else:
                yield self._operand(value, dot)

    def _holds(self, head: str, dot: dict[str, Any]) -> bool:
        if not head:
            return True
        match = re.fullmatch(r'if eq (\S+) (".*")', head)
        assert match is not None, head
        return self._operand(match[1], dot) == self._operand(match[2], dot)

    def _operand(self, text: str, dot: dict[str, Any]) -> str:
        if text.startswith("$"):
            return self._variables[text]
        return dot[text.removeprefix(".")] if text.startswith(".") else json.loads(text)


def spoken(conversation: Conversation) -> dict[str, Any]:
    return {"Messages": [{"Role": m.role, "Content": m.text} for m in conversation.messages]}


@pytest.mark.parametrize("name", FORMATS)
def test_the_template_prints_what_the_renderer_tokenizes(name: str, plain_tokenizer: Tokenizer) -> None:
    tokenizer = plain_tokenizer.with_special_tokens(ChatFormat.required_tokens(name))
    chat_format = ChatFormat.named(name, tokenizer)
    template = Go(go_template(chat_format.specification))
    compared = 0
    for case in cases(chat_format):
        if case.spells_control or any(p.type != "text" for m in case.conversation.messages for p in m.parts):
            continue
        compared += 1
        prompt = chat_format.render_for_completion(case.asked)
        whole = chat_format.render_conversation(case.conversation).ids
        assert tokenizer.encode_template(template.run(spoken(case.asked))) == prompt, case.name
        assert tokenizer.encode_template(template.run(spoken(case.conversation))) == whole, case.name
    assert compared >= 9


def test_a_modelfile_names_the_file_the_ends_and_the_context(plain_tokenizer: Tokenizer) -> None:
    tokenizer = plain_tokenizer.with_special_tokens(ChatFormat.required_tokens("chatml"))
    chat_format = ChatFormat.named("chatml", tokenizer)
    text = modelfile(chat_format, "model-f16.gguf", 512)
    template = go_template(chat_format.specification)
    assert text.startswith(f'FROM ./model-f16.gguf\nTEMPLATE """{template}"""\n')
    assert text.endswith(
        'PARAMETER stop "<|endoftext|>"\nPARAMETER stop "<|im_end|>"\nPARAMETER num_ctx 512\n'
    )


def test_text_that_go_would_run_is_quoted() -> None:
    from dataclasses import replace

    spec = SPECIFICATIONS["chatml"]
    odd = replace(spec, user=replace(spec.user, opens='<|im_start|>{{boom}} """'))
    text = go_template(odd)
    assert '"""' not in text
    assert (
        Go(text).run({"Messages": [{"Role": "user", "Content": "x"}]}).startswith('<|im_start|>{{boom}} """x')
    )
    with pytest.raises(InputError, match="no function for that"):
        go_template(replace(spec, strip=("user",)))
