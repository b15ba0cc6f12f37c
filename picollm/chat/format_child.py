"""Renders a foreign chat template; the text of this file is a program for the sandbox of ``picollm.tools``.

The environment is the one in which transformers renders a template: blocks trimmed, loop controls,
``raise_exception``, ``strftime_now``, ``tojson``, and ``{% generation %}``, which prints what it holds.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

MAX_CHARACTERS = 1_000_000
"""How long one rendering may become."""


def main(request: str, libraries: list[str]) -> None:
    """Print JSON lines: the names a template expects from outside, then ``[text, error]`` for each probe."""
    sys.path.extend(libraries)
    given = json.loads(request)
    environment = make_environment()
    from jinja2 import TemplateSyntaxError, meta

    try:
        names = meta.find_undeclared_variables(environment.parse(given["template"]))
        template = environment.from_string(given["template"])
    except (TemplateSyntaxError, RecursionError) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}))
        return
    print(json.dumps({"names": sorted(names)}))
    for probe in given["probes"]:
        try:
            line = [rendered(template, probe, given["special"]), None]
        except Exception as error:  # whatever a stranger's template raises
            line = [None, f"{type(error).__name__}: {error}"[:300]]
        print(json.dumps(line))


def rendered(template: Any, probe: dict[str, Any], special: dict[str, str]) -> str:
    """Return what ``template`` makes of one conversation. Raises whatever the template raises."""
    now = datetime.fromisoformat(probe["now"])
    pieces, length = [], 0
    for piece in template.generate(
        messages=probe["messages"],
        add_generation_prompt=probe["prompt"],
        tools=None,
        documents=None,
        strftime_now=now.strftime,
        **special,
    ):
        pieces.append(piece)
        length += len(piece)
        if length > MAX_CHARACTERS:
            raise ValueError(f"the rendering is longer than {MAX_CHARACTERS:,} characters")
    return "".join(pieces)


def make_environment() -> Any:
    """Return a sandboxed Jinja environment with what transformers adds to it."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(
                parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line
            )

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = tojson
    return environment
