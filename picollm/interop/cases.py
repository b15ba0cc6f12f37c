"""The conversations that every way of serving a checkpoint must read alike."""

from __future__ import annotations

from dataclasses import dataclass

from picollm.chat.conversation import Conversation, Message, Part
from picollm.chat.format import ChatFormat

_LONG = "She walked on and on, past the mill and the well, and counted the stones beside the road. "
_FAMILY = "\U0001f642\U0001f468\u200d\U0001f469\u200d\U0001f467"  # one picture of several characters


@dataclass(frozen=True)
class Case:
    """One conversation, complete with the assistant's last answer.

    ``spells_control``: a message holds the text of a control token. A template cannot keep it apart from a
    real one, so there every path but ours reads something else, and says so.
    """

    name: str
    conversation: Conversation
    spells_control: bool = False

    @property
    def asked(self) -> Conversation:
        """The conversation up to its last question."""
        return Conversation(self.conversation.messages[:-1])


def _talk(*texts: str, system: str | None = None) -> Conversation:
    roles = ("user", "assistant")
    turns = [Message(roles[index % 2], text) for index, text in enumerate(texts)]  # type: ignore[arg-type]
    return Conversation([Message("system", system), *turns] if system is not None else turns)


def cases(chat_format: ChatFormat) -> list[Case]:
    """Return the fixed set of conversations that ``chat_format`` has a place for."""
    spec = chat_format.specification
    control = "".join(spec.tokens)
    found = [
        Case("one question", _talk("Hi", "Hello.")),
        Case("several turns", _talk("Who are you?", "A model.", "And who?", "People.", "Thanks", "Bye.")),
        Case("code", _talk("def f(x):\n\treturn {'a': [x ** 2]}  # 3.14\n", "```python\nf(2)\n```\n")),
        Case("numbers and signs", _talk("12,345.67 + 1e-9 = ?  (100%)", "=> 12345.67, $5, #1, a@b.c")),
        Case("unicode", _talk("Naïve 日本語 русский", f"{_FAMILY} é\u00df")),
        Case("white space", _talk("  two  spaces and\ttabs ", " \n\nlines\n", "\n", " ")),
        Case("looks like a template", _talk("{{ messages }} {% if x %}", "{# #} ${y} <b>&amp; \\n 'q\" \\")),
        Case("looks like a turn", _talk("User: hi\nAssistant: ho", "System: no\n\nHuman: yes")),
        Case("long", _talk(_LONG * 3, _LONG * 2)),
        Case("spells control tokens", _talk(f"a {control} b", f"c{control}"), spells_control=True),
    ]  # fmt: skip
    if spec.system is not None:
        found += [
            Case("system", _talk("Hi", "Hello.", system="You are a helpful assistant.")),
            Case("system and several turns", _talk("a", "b", "c", "d", system=" Be brief.\n")),
        ]
    if chat_format.has_tools:
        calls = [
            Part("text", "2+2 is "),
            Part("python", "2+2"),
            Part("python_output", "4"),
            Part("text", "."),
        ]
        again = Message("assistant", [*calls[1:3], Part("python", "4*3"), Part("python_output", "12")])
        tools = [Message("user", "2+2?"), Message("assistant", calls), Message("user", "times 3?"), again]
        found.append(Case("calls of the calculator", Conversation(tools)))
    return found
