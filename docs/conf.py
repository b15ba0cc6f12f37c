"""The documentation site: `bash scripts/docs` builds docs/*.md and the docstrings into site/."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from picollm import __version__  # noqa: E402

project = "picoLLM"
author = "Montek Singh Kundan"
copyright = f"2026, {author}"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"picoLLM {release}"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
# Highlighting guesses nothing: what is no Python (a grammar, a picture of arrays) stays plain text.
highlight_language = "none"
# Plain fences such as ```toml with a fragment in them are not errors of ours.
suppress_warnings = ["misc.highlighting_failure"]


class Exec(Directive):
    """``{exec}``: run the block while the site is built and show it with what it printed.

    The blocks of one page share their names, like cells of a notebook.
    """

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the code and its output as two literal blocks."""
        source, output = "\n".join(self.content), io.StringIO()
        names = self.state.document.settings.env.temp_data.setdefault("exec_names", {})
        with contextlib.redirect_stdout(output):
            exec(compile(source, self.state.document["source"], "exec"), names)
        shown = [nodes.literal_block(source, source, language="python")]
        if printed := output.getvalue().rstrip():
            shown.append(nodes.literal_block(printed, printed, language="none", classes=["output"]))
        return list(shown)


def setup(app: object) -> None:
    """Register the directive."""
    app.add_directive("exec", Exec)  # type: ignore[attr-defined]
