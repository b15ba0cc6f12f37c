"""The report: one page that asks nobody for anything, says everything, and shows text as text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from picollm.eval.comparison import Comparison
from picollm.eval.markdown import render_markdown
from picollm.eval.report import read_comparison, render_html, write_report

VOID = {"meta", "br", "hr", "img", "link", "input", "path", "rect", "circle"}


class Page(HTMLParser):
    """Collects the text and checks that every element is closed by its own end tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_and_needs_nothing_from_outside(comparison: Comparison) -> None:
    html = render_html(comparison)
    page = Page(html)
    assert {name for name, _ in page.attributes}.isdisjoint({"src", "href", "onclick", "onload"})
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img", html)
    for part in ("prefers-color-scheme: dark", "@media print", "@media (max-width", 'name="viewport"'):
        assert part in html


def test_the_page_shows_every_part_of_the_comparison(comparison: Comparison) -> None:
    html = render_html(comparison)
    text = Page(html).text
    for prompt in comparison.prompts:
        assert prompt.prompt in text and prompt.sft.text in text
    assert "Fine-tuning unlocks what is there" in text and "the knowledge was there" in text
    assert text.index("never asked in SFT") < text.index("Explain self-attention to a beginner")
    for part in ("What the loss sees", "The training curves", "What it took", "What fine-tuning does not do"):
        assert part in text
    assert html.count("<svg") == 3 and "mmlu" in text and "3 min 24 s" in text


def test_text_of_models_and_users_is_never_markup(comparison: Comparison) -> None:
    html = render_html(comparison)
    assert "<b>Zed</b>" not in html and "&lt;b&gt;Zed&lt;/b&gt;" in html and "&lt;rain&gt; &amp; snow" in html


def test_a_comparison_of_nothing_is_still_a_page(comparison: Comparison) -> None:
    bare = replace(
        comparison,
        prompts=(),
        differences=(),
        tasks=(),
        losses=(),
        bits=None,
        movement=(),
        curves={},
        stages=(),
        mask=(),
    )
    page = Page(render_html(bare))
    assert "What fine-tuning does not do" in page.text and "The training curves" not in page.text
    assert render_markdown(bare).startswith("# Base versus SFT")


def test_markdown_tables_have_one_cell_per_column_and_fences_hold_their_text(comparison: Comparison) -> None:
    nasty = replace(
        comparison.prompts[0], sft=replace(comparison.prompts[0].sft, text="a | b\n```\ncode\n```\n# no")
    )
    text = render_markdown(replace(comparison, prompts=(nasty,)))
    for header, rule in re.findall(r"^(\|.*\|)\n(\|[ :|-]+\|)$", text, re.MULTILINE):
        assert header.count("|") == rule.count("|")
    assert "````text\na | b\n```\ncode\n```\n# no\n````" in text


def test_reports_are_written_whole_and_read_back(comparison: Comparison, tmp_path: Path) -> None:
    written = write_report(comparison, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        p.name for p in written.values()
    )
    assert read_comparison(tmp_path / "out") == comparison
    write_report(replace(comparison, seed=9), tmp_path / "out")
    assert read_comparison(tmp_path / "out").seed == 9
