"""Whether a specification that was derived from a template renders what the template renders."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from picollm.chat.conversation import Conversation, Message
from picollm.chat.format_template import Probe, Refused, render_foreign

if TYPE_CHECKING:
    from picollm.chat.format import ChatFormat

_WORDS = (
    "the", "Zebra", "runs", "42", "3.14", "na\u00efve", "don't", "I'm", "\u00fcber", "\u65e5\u672c",
    "\U0001f600", "e\u0301", "ok?", "(yes)", "x_1", "C++", "<b>", "</b>", "&amp;", "#", "##", "--",
)  # fmt: skip
_GAPS = (" ", " ", " ", "  ", "\n", "\n\n", "\t", " \n ")
_ODD = (
    "{{ 7 * 7 }} {% if x %}", '{"a": [1, null]}', "it's \"quoted\" \\n", "```python\nprint('x')\n```",
    "\u00a0x\u2003", "0", "False", "None", "[]", "system", "user\nassistant", "User: hi\n\nAssistant: hello",
    "### Response:", "<tool_call>\n{}\n</tool_call>", "<tool_response>x</tool_response>", "/no_think",
    "[INST] x [/INST]", "<<SYS>>\nx\n<</SYS>>\n\n", "UPPER lower", "a\r\nb", "z" * 3000,
)  # fmt: skip
_REASONING = ("<think>\nBecause.\n</think>\n\nYes.", "<think></think>No.", "Hm.</think>Yes.", "<think>Hm.")

NUM_RANDOM = 120
"""How many random conversations must come out alike."""


def verify(format: ChatFormat, template: str, special: Mapping[str, str]) -> None:
    """Raise Refused, naming the property, unless ``format`` renders what ``template`` renders."""
    cases = [(property, talk) for property, talks in _cases(format).items() for talk in talks]
    probes = [Probe(talk.messages) for _, talk in cases]
    probes += [Probe(talk.messages[:-1], prompt=True) for _, talk in cases]
    added = format.tokenizer.added_tokens
    for (property, talk), probe, found in zip(
        cases * 2, probes, render_foreign(template, probes, special), strict=True
    ):
        if found.text is None:
            raise Refused(property, f"{found.error} for {_shown(talk)}")
        text = format.render_text(probe.messages, prompt=probe.prompt)
        if text != found.text:
            raise Refused(property, f"{_difference(found.text, text)} for {_shown(talk)}")
        if any(token in part.text for message in talk.messages for part in message.parts for token in added):
            continue  # a template cannot tell such text from the token; the renderer does
        if probe.prompt:
            ids = format.render_for_completion(Conversation(probe.messages))
        else:
            ids = format.render_conversation(talk).ids
        if ids != format.tokenizer.encode_template(found.text):
            raise Refused(
                "give the same tokens, which depends on the tokenizer", f"they differ for {_shown(talk)}"
            )


def _cases(format: ChatFormat) -> dict[str, list[Conversation]]:
    """Return, for each property, the conversations that would show its lack."""
    rng = random.Random(0)
    systems = [False, True] if format.specification.system else [False]
    odd = [_talk(rng, lambda: rng.choice(_ODD), rng.choice(systems)) for _ in range(NUM_RANDOM // 2)]
    return {
        "render every conversation": [
            _talk(rng, lambda: _words(rng), rng.choice(systems)) for _ in range(NUM_RANDOM)
        ],
        "keep earlier reasoning": [
            Conversation([Message("user", "a"), Message("assistant", thought), Message("user", "b"),
                          Message("assistant", "c"), Message("user", "d"), Message("assistant", thought)])
            for thought in _REASONING
        ],
        "keep every text as it is": odd,
    }  # fmt: skip


def _talk(rng: random.Random, text: Callable[[], str], system: bool) -> Conversation:
    messages = [Message("system", text())] if system else []
    for _ in range(rng.randint(1, 4)):
        messages += [Message("user", text()), Message("assistant", text())]
    return Conversation(messages)


def _words(rng: random.Random) -> str:
    text = "".join(rng.choice(_WORDS) + rng.choice(_GAPS) for _ in range(rng.randint(1, 12)))
    return rng.choice((text, text.strip(), rng.choice(_GAPS) + text))


def _shown(talk: Conversation) -> str:
    return repr([message.text[:40] for message in talk.messages[:4]])


def _difference(found: str, wanted: str) -> str:
    pairs: Sequence[tuple[str, str]] = list(zip(found, wanted, strict=False))
    start = next((index for index, (one, other) in enumerate(pairs) if one != other), len(pairs))
    start = max(0, start - 20)
    return f"it writes {found[start : start + 80]!r}, not {wanted[start : start + 80]!r},"
