"""A chat format written as a Jinja template, for everything that renders with transformers' templates."""

from __future__ import annotations

from picollm.chat.format_specification import Specification

# Servers hand over plain text as a list of parts too.
_WORDS = (
    "{%- macro words(content) -%}",
    "{%- if content is string -%}{{- content -}}",
    "{%- else -%}{%- for part in content -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}",
    "{%- endmacro -%}",
)


def jinja_template(spec: Specification, generation: bool) -> str:
    """Return ``spec`` as a template; ``generation``: with ``{% generation %}`` around what is learned.

    For conversations in the canonical schema the template prints what the renderer tokenizes. It cannot
    protect them: whoever tokenizes its output takes a control token that a text spells for a real one.
    """
    user, assistant = spec.user, spec.assistant
    merged = "(system if loop.first else '') + " if spec.merge_system and spec.system else ""
    after = _print(_quote(assistant.after)) if assistant.after else ""
    if spec.finish is not None:
        finish = _print(_quote(spec.finish)) if spec.finish else ""
        after = f"{{%- if loop.last -%}}{finish}{{%- else -%}}{after}{{%- endif -%}}"
    silent = _reply(spec, False)
    spoken = _reply(spec, True)
    if generation:
        unlearned = "message['weight'] is defined and message['weight'] == 0"
        reply = [f"{{%- if {unlearned} -%}}", *silent, "{%- else -%}", *spoken, "{%- endif -%}"]
    else:
        reply = silent
    lines = [
        *_WORDS,
        _print(_quote(spec.begin)) if spec.begin else "",
        *_system(spec),
        "{%- for message in turns -%}",
        "{%- if message['role'] == 'user' -%}",
        _print(
            f"{_quote(user.opens)} + {merged}{_content(spec, 'user')} + {_quote(user.closes + user.after)}"
        ),
        "{%- elif message['role'] == 'assistant' -%}",
        _print(_quote(assistant.opens)) if assistant.opens else "",
        *reply,
        after,
        "{%- else -%}",
        _print(
            "raise_exception('Expected roles: system (first), user, assistant; found ' + message['role'])"
        ),
        "{%- endif -%}",
        "{%- endfor -%}",
    ]
    if assistant.opens:
        lines += ["{%- if add_generation_prompt -%}", _print(_quote(assistant.opens)), "{%- endif -%}"]
    return "\n".join(line for line in lines if line) + "\n"


def _system(spec: Specification) -> list[str]:
    """Return the lines that take a system message off the front and frame it."""
    frame = spec.system
    if frame is None:
        refusal = _print("raise_exception('This format has no place for a system message')")
        return [
            f"{{%- if messages[0]['role'] == 'system' -%}}{refusal}{{%- endif -%}}",
            "{%- set turns = messages -%}",
        ]
    before, after = frame.opens, frame.closes + frame.after
    default = "" if spec.default_system is None else before + spec.default_system + after
    content = _content(spec, "system", "messages[0]")
    return [
        "{%- if messages[0]['role'] == 'system' -%}",
        f"{{%- set system = {_quote(before)} + {content} + {_quote(after)} -%}}",
        "{%- set turns = messages[1:] -%}",
        "{%- else -%}",
        f"{{%- set system = {_quote(default)} -%}}",
        "{%- set turns = messages -%}",
        "{%- endif -%}",
        "" if spec.merge_system else _print("system"),
    ]


def _reply(spec: Specification, learned: bool) -> list[str]:
    """Return the lines that print what the assistant says itself, and what the calculator answers it."""
    frame = spec.assistant
    plain = _say(f"{_quote(frame.says)} + {_content(spec, 'assistant')} + {_quote(frame.closes)}", learned)
    if spec.python is None or spec.python_output is None:
        return [plain]
    call, answer = spec.python, spec.python_output
    return [
        "{%- if message['content'] is string -%}",
        plain,
        "{%- else -%}",
        _say(_quote(frame.says), learned) if frame.says else "",
        "{%- for part in message['content'] -%}",
        "{%- if part['type'] == 'python_output' -%}",
        _print(f"{_quote(answer.opens)} + part['text'] + {_quote(answer.closes)}"),
        "{%- elif part['type'] == 'python' -%}",
        _say(f"{_quote(call.opens)} + part['text'] + {_quote(call.closes)}", learned),
        "{%- else -%}",
        _say("part['text']", learned),
        "{%- endif -%}",
        "{%- endfor -%}",
        _say(_quote(frame.closes), learned),
        "{%- endif -%}",
    ]


def _content(spec: Specification, role: str, message: str = "message") -> str:
    words = f"words({message}['content'])"
    return f"({words} | trim)" if role in spec.strip else words


def _say(expression: str, learned: bool) -> str:
    return (
        f"{{%- generation -%}}{_print(expression)}{{%- endgeneration -%}}" if learned else _print(expression)
    )


def _print(expression: str) -> str:
    return f"{{{{- {expression.replace(_quote('') + ' + ', '').removesuffix(' + ' + _quote(''))} -}}}}"


def _quote(text: str) -> str:
    escaped = (
        text.replace("\\", "\\\\")
        .replace("'", "\\'")
        .replace("\n", "\\n")
        .replace("\r", "\\r")
        .replace("\t", "\\t")
    )
    return f"'{escaped}'"
