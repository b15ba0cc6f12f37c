"""A stranger's template cannot hang, fill memory, or reach what it was not given."""

from __future__ import annotations

import pytest

from picollm.chat import format_template
from picollm.chat.conversation import Message
from picollm.chat.format_template import Probe, Refused, render_foreign, special_names
from picollm.errors import InputError
from picollm.tokenizer import Tokenizer
from picollm.tools.sandbox import Limits

TALK = [Probe([Message("user", "Hi")])]
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ 'a' * 10**10 }}", "MemoryError"),
        ("{{ '%10000000000d' % 1 }}", "MemoryError"),
        (
            "{% for a in range(99999) %}{% for b in range(999) %}aaaaaaaaaa{% endfor %}{% endfor %}",
            "longer than 1,000",
        ),
        ("{{ range(10**9)|list }}", "OverflowError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "SecurityError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% import 'os' as os %}", "no loader"),
        ("{{ raise_exception('not today') }}", "not today"),
    ],
)
def test_what_a_template_may_not_do_is_an_error_of_its_own(template: str, said: str) -> None:
    [rendering] = render_foreign(template, TALK, {})
    assert rendering.text is None and said in str(rendering.error)


def test_a_template_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_template, "_LIMITS", Limits(seconds=1))
    with pytest.raises(Refused, match="does not keep within its limits: 1 seconds did not suffice"):
        render_foreign(LOOP, TALK, {})


@pytest.mark.parametrize(
    "template", ["{% for %}", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% generation %}"]
)
def test_what_is_no_template_is_refused(template: str) -> None:
    with pytest.raises(InputError, match="not a Jinja template"):
        render_foreign(template, TALK, {})


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(InputError, match="a chat template is a string, not NoneType"):
        render_foreign(None, TALK, {})  # type: ignore[arg-type]


def test_the_names_of_special_tokens(base: Tokenizer) -> None:
    tokenizer = base.with_special_tokens(["<s>", "</s>", "<|im_end|>"])
    assert special_names(tokenizer, {}) == {"bos_token": "<s>"}  # two could be the end
    assert special_names(tokenizer, {"eos_token": "</s>"})["eos_token"] == "</s>"
    with pytest.raises(InputError, match="eos_token is to be '<eos>', which the tokenizer lacks"):
        special_names(tokenizer, {"eos_token": "<eos>"})
    with pytest.raises(InputError, match=r"uses eos_token, .* pass special_tokens"):
        render_foreign("{{ eos_token }}", TALK, {})
