"""The page in a real browser, without a window."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from picollm.serve.page import load_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect
browser_only = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, server):
    context = browser.new_context(viewport={"width": 1100, "height": 800}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    page.on("request", lambda r: None if r.url.startswith((server.url, "data:", "blob:")) else
            page.problems.append(r.url))  # fmt: skip
    page.goto(server.url)
    expect(page.locator("#title")).to_have_text("sft")
    page.evaluate("document.getElementById('max_tokens').value = 12")
    yield page
    assert page.problems == []
    context.close()


def say(page, text: str) -> None:
    page.fill("#input", text)
    page.press("#input", "Enter")


def wait_for_reply(page, count: int = 1) -> None:
    expect(page.locator(".turn.assistant")).to_have_count(count)
    expect(page.locator(".actions")).to_have_count(1)


def reply(page) -> str:
    return page.locator(".turn.assistant .bubble").last.inner_text()


def test_the_page_asks_nobody_else_for_anything() -> None:
    found = load_page()
    text = found.html.decode()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text) and "@import" not in text
    assert "innerHTML" not in text and "unsafe" not in found.headers["Content-Security-Policy"]


@browser_only
def test_send_stream_regenerate_and_reload(page, server, prompts_seen) -> None:
    say(page, "the cat")
    wait_for_reply(page)
    assert prompts_seen[-1].finish_reason and prompts_seen[-1].params.temperature == 0
    first = reply(page)
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".actions")).to_have_count(1)
    assert prompts_seen[-1].prompt_ids == prompts_seen[0].prompt_ids and len(prompts_seen) == 2
    assert prompts_seen[-1].params.temperature > 0
    page.reload()
    expect(page.locator(".turn.user .bubble")).to_have_text("the cat")
    assert page.locator(".turn.assistant").count() == 1 and first is not None


@browser_only
def test_stop_keeps_what_was_written(page, server, never_ends) -> None:
    never_ends(server.service.model("sft"))
    page.evaluate("document.getElementById('max_tokens').value = 240")
    say(page, "the cat")
    expect(page.locator(".turn.assistant .bubble p")).to_have_count(1)  # the first words are there
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped.")
    assert "(stopped)" in reply(page)
    expect(page.locator("#send")).to_be_visible()


@browser_only
def test_tokens_and_side_by_side(page) -> None:
    page.click("#settings-button")
    page.fill("#system", "be a cat")
    page.check("#compare")
    say(page, "the cat")
    wait_for_reply(page)
    assert page.locator(".pair .model").all_inner_texts() == ["BASE", "SFT"]
    page.check("#show-tokens")
    expect(page.locator(".turn.system .tokens")).to_have_count(1)
    expect(page.locator(".turn.user .tokens .sp")).to_have_count(2)
    assert page.locator(".turn.user .tokens .on").count() == 0
    assert page.locator(".turn.assistant .tokens .on.sp").count() >= 1


ATTACKS = [
    "<img src=x onerror=window.hit=1>",
    "<script>window.hit=1</script>",
    "[go](javascript:window.hit=1)",
    "[go](data:text/html,<script>hit=1</script>)",
    "`<svg onload=window.hit=1>`",
    "```html\n<iframe srcdoc='<script>top.hit=1</script>'></iframe>\n```",
    "# <b onclick=window.hit=1>x</b>",
    "> <a href='javascript:window.hit=1'>x</a>",
    '**"><img src=x onerror=window.hit=1>**',
]


@browser_only
def test_what_a_model_writes_cannot_become_markup(page, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    messages = [{"role": ("user", "assistant")[i % 2], "content": ATTACKS[i // 2]} for i in range(18)]
    title = "<img src=x onerror=window.hit=1>"
    file.write_text(json.dumps({"conversations": [{"title": title, "messages": messages}]}))
    page.set_input_files("#file", file)
    expect(page.locator(".turn")).to_have_count(18)
    page.check("#show-tokens")
    expect(page.locator(".turn.user .tokens")).to_have_count(9)
    assert page.locator("#log :is(img, script, iframe, svg, b)").count() == 0
    assert page.locator("#log a").count() == 0
    for link in page.locator("#log p").all():
        link.click()
    assert page.evaluate("window.hit") is None


@browser_only
def test_markdown_becomes_elements(page) -> None:
    blocks = ["## Title", "a **b** *c* `d` [e](https://x.org)"]
    blocks += ["- one\n- two", "1. x", "> q", "```py\nif x:\n  y\n```"]
    page.evaluate(
        "text => $('log').replaceChildren(el('div', {class: 'bubble'}, markdown(text)))",
        "\n\n".join(blocks),
    )
    for selector in ("h4", "strong", "em", "p code", "a[rel~=noopener]", "ul li", "ol li", "blockquote p"):
        assert page.locator(f"#log {selector}").count() >= 1, selector
    assert page.locator("#log pre code").inner_text() == "if x:\n  y"


@browser_only
def test_a_call_stands_in_its_sentence(page) -> None:
    call = [{"type": "python", "text": "2+3"}, {"type": "python_output", "text": "5"}]
    parts = [{"type": "text", "text": "it is "}, *call, {"type": "text", "text": "5. *so*\n#### 5 \ue000"}]
    page.evaluate("parts => $('log').replaceChildren(bubble({parts}))", parts)
    assert page.locator("#log p").inner_text() == "it is 2+3 = 55. so"
    assert page.locator("#log p .call").inner_text() == "2+3 = 5"
    assert page.locator("#log h6").inner_text() == "5 \ufffd" and page.locator("#log ol").count() == 0


@browser_only
def test_export_and_import_are_inverse(page, tmp_path: Path) -> None:
    say(page, "the cat")
    wait_for_reply(page)
    with page.expect_download() as download:
        page.click("#export")
    file = tmp_path / "export.json"
    download.value.save_as(file)
    page.get_by_role("button", name="Delete the cat").click()
    expect(page.locator(".turn")).to_have_count(0)
    page.set_input_files("#file", file)
    expect(page.locator(".turn.user .bubble")).to_have_text("the cat")
    page.set_input_files("#file", {"name": "x.json", "mimeType": "application/json", "buffer": b"nonsense"})
    expect(page.locator("#status")).to_have_text("This file holds no conversations.")


@browser_only
def test_a_server_that_is_gone_is_said_and_nothing_is_lost(page) -> None:
    page.context.set_offline(True)
    say(page, "the cat")
    expect(page.locator("#status")).to_contain_text("does not answer")
    expect(page.locator(".turn.user .bubble")).to_have_text("the cat")
    page.context.set_offline(False)
    page.get_by_role("button", name="Retry").click()
    wait_for_reply(page)


@browser_only
def test_on_a_phone_nothing_sticks_out(page) -> None:
    page.set_viewport_size({"width": 375, "height": 667})
    say(page, "the cat " + "x" * 200)
    wait_for_reply(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    expect(page.locator("#side")).to_be_hidden()
    page.click("#menu")
    expect(page.locator("#side")).to_be_visible()
    page.locator("#log").click(position={"x": 370, "y": 300})
    expect(page.locator("#side")).to_be_hidden()


@browser_only
def test_it_can_be_used_by_keyboard_and_says_what_things_are(page) -> None:
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input:not([hidden]), textarea')].filter(e => e.offsetParent)"
        ".filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"
    )
    assert unnamed == 0
    page.click("#input")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    wait_for_reply(page)
    assert page.locator(".turn.user .bubble").inner_text() == "one\ntwo"
