"""Markdown of strangers as HTML that is safe to show.

Raw HTML in it is shown as text, and markdown-it lets no `javascript:`, `vbscript:`, `file:` or `data:` links
pass. Pages are sent with a Content-Security-Policy that allows no scripts and nothing of other hosts.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["render"]


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False, "maxNesting": 50}).enable(["table", "strikethrough"])


def _in_repo(target: str, base: str) -> str:
    """An address relative to a card leads into its repo."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or target.startswith(("/", "#")):
        return target
    return base + target.removeprefix("./")


def _adapt(tokens: list[Token], link: str, revision: str) -> None:
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and after is not None:
            words = re.sub(r"[^\w\s-]", "", after.content.lower())
            token.attrSet("id", re.sub(r"\s+", "-", words.strip()))
        elif token.type == "image":
            token.attrSet("src", _in_repo(str(token.attrGet("src")), f"{link}/resolve/{revision}/"))
        elif token.type == "link_open":
            token.attrSet("href", _in_repo(str(token.attrGet("href")), f"{link}/blob/{revision}/"))
            token.attrSet("rel", "nofollow noreferrer")
        elif token.attrGet("style") == "text-align:right":  # pages allow no inline styles
            token.attrs = {"class": "number"}
        if token.children:
            _adapt(token.children, link, revision)


@lru_cache(maxsize=200)
def render(text: str, link: str = "", revision: str = "main") -> str:
    """link: the page of the repo that the text is in."""
    parser = _parser()
    tokens = parser.parse(text)
    _adapt(tokens, link, revision)
    return str(parser.renderer.render(tokens, parser.options, {}))
