"""Markdown of strangers as HTML that is safe to show.

Raw HTML in it is shown as text, and markdown-it lets no `javascript:`, `vbscript:`, `file:` or `data:` links
pass. Pages are sent with a Content-Security-Policy that allows no scripts and no contents of other hosts.
"""

from __future__ import annotations

from functools import lru_cache

from markdown_it import MarkdownIt

__all__ = ["render"]


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False, "maxNesting": 50}).enable(["table", "strikethrough"])


@lru_cache(maxsize=200)
def render(text: str) -> str:
    return str(_parser().render(text))
