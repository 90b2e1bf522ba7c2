"""Escaping: whatever a text holds, it stays text."""

from __future__ import annotations

import html

import pytest
from markdown_it import MarkdownIt

from hubkit.release.text import code, fence, link, md, number, percent

RENDER = MarkdownIt("commonmark", {"html": True}).enable("table")

HOSTILE = [
    "<script>alert(1)</script>",
    "**bold** _it_ `code` [x](javascript:alert(1)) ![y](z)",
    "a | b | c",
    "line\n\n# heading\n---\n- item",
    "```\nfence",
    "&lt;b&gt; &amp; \\* \\",
    "https://evil.example/",
    "<!-- comment",
    "- item",
    "1. item",
    "---",
    "=== x",
    "0.5 and -3",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_md_renders_as_the_text_itself(text: str) -> None:
    for before in ("", "start "):
        page = RENDER.render(before + md(text))
        inside = page.removeprefix("<p>").removesuffix("</p>\n")
        assert "<" not in inside, page
        assert html.unescape(inside) == before + " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_md_stays_in_its_table_cell(text: str) -> None:
    page = RENDER.render(f"| a | b |\n|---|---|\n| {md(text)} | {code(text)} |\n")
    assert page.count("<td>") == 2 and page.count("<tr>") == 2, page


@pytest.mark.parametrize("text", [*HOSTILE, "````\n```\n`````", "~~~"])
def test_fence_holds_everything(text: str) -> None:
    page = RENDER.render(f"{fence(text, 'text')}\n\nafter")
    assert page.endswith("</code></pre>\n<p>after</p>\n"), page
    assert "<script" not in page


def test_numbers() -> None:
    assert number(1234567) == "1,234,567" and number(1.25, 1) == "1.2" and number(None) == "–"
    assert percent(0.1234) == "12.3 %" and percent(None) == "–"


@pytest.mark.parametrize(
    "text", [*HOSTILE[:6], "https://a.example/>x", "https://a.example/|x", "javascript:alert(1)"]
)
def test_only_an_address_becomes_a_link_and_nothing_else_becomes_markup(text: str) -> None:
    assert link(text) == text, "left to the escaping of all values"
    assert link("https://a.example/x?y=1&z#p") == "<https://a.example/x?y=1&z#p>"
