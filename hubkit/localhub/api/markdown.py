"""Untrusted Markdown as HTML that is safe to show.

markdown-it renders, nh3 keeps the tags and attributes that are listed here and no others, and pages are sent with a
Content-Security-Policy that allows no scripts and nothing of other hosts. A piece of raw HTML with any other tag in
it is shown as text, so that one sees what a card tried.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["render"]

_TAGS: Final = frozenset({
    "a", "abbr", "b", "blockquote", "br", "caption", "center", "code", "dd", "del", "details", "div", "dl", "dt", "em",
    "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "ins", "kbd", "li", "mark", "ol", "p",
    "picture", "pre", "q", "s", "samp", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td",
    "tfoot", "th", "thead", "tr", "u", "ul", "var",
})  # fmt: skip
_ATTRIBUTES: Final = {
    "*": {"align", "id", "title"},
    "a": {"href"},
    "code": {"class"},
    "details": {"open"},
    "img": {"alt", "height", "src", "width"},
    "ol": {"start"},
    "td": {"class", "colspan", "rowspan"},
    "th": {"class", "colspan", "rowspan", "scope"},
}
_CLASS: Final = re.compile(r"number|language-[\w+-]{1,40}")
_TAG_NAME: Final = re.compile(r"</?\s*([A-Za-z][^\s/>]*)")
_ARXIV: Final = re.compile(r"\barxiv:\s?(\d{4}\.\d{4,5})(?:v\d+)?\b", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"https?://[^\s<>\"'`]*[^\s<>\"'`.,;:!?)\]}*_]")
_REPO: Final = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")

Finder = Callable[[str], str]


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True, "maxNesting": 50}).enable(["table", "strikethrough"])


def render(text: str, link: str = "", revision: str = "main", find: Finder = lambda name: "") -> str:
    """HTML of a Markdown text.

    link: the page of the repo that the text is in; relative addresses lead into it. find: gives the page of a repo
    by its name, or "". Such names in code, arXiv numbers and plain addresses become links.
    """
    parser = _parser()
    tokens = parser.parse(text)
    _adapt(tokens, find)
    files = {
        "src": f"{link}/resolve/{quote(revision, safe='')}/",
        "href": f"{link}/blob/{quote(revision, safe='')}/",
    }

    def attribute(tag: str, name: str, value: str) -> str | None:
        if name in files:
            return _in_repo(value, files[name])
        if name == "class":
            return value if _CLASS.fullmatch(value) else None
        return value

    html = nh3.clean(
        str(parser.renderer.render(tokens, parser.options, {})),
        tags=set(_TAGS),
        attributes={tag: set(names) for tag, names in _ATTRIBUTES.items()},
        attribute_filter=attribute,
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noreferrer",
        set_tag_attribute_values={"pre": {"tabindex": "0"}},  # it scrolls, also by keyboard
    )
    # A picture without a description is skipped by screen readers.
    return re.sub(r"<img (?![^>]*\balt=)", '<img alt="" ', html)


def _in_repo(target: str, base: str) -> str:
    """Returns the page in the repo to which an address relative to its card leads."""
    try:
        parts = urlsplit(target)
    except ValueError:  # a malformed host
        return "#"
    if parts.scheme or parts.netloc or target.startswith(("/", "#")):
        return target
    return base + target.removeprefix("./")


def _adapt(tokens: list[Token], find: Finder) -> None:
    for token, after in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and after is not None:
            words = re.sub(r"[^\w\s-]", "", after.content.lower())
            token.attrSet("id", re.sub(r"\s+", "-", words.strip()))
        elif str(token.attrGet("style") or "").startswith("text-align:"):  # pages allow no inline styles
            side = str(token.attrGet("style")).removeprefix("text-align:")
            token.attrs = {"class": "number"} if side == "right" else {"align": side}
        elif token.type == "html_block" and not _is_safe(token.content):
            token.type = "code_block"
        if token.children:
            token.children = _with_links(token.children, find)


def _is_safe(html: str) -> bool:
    """Whether all tags of a piece of HTML are among those shown. Their attributes are left to nh3."""
    return all(name.lower() in _TAGS for name in _TAG_NAME.findall(html))


def _with_links(tokens: list[Token], find: Finder) -> list[Token]:
    found: list[Token] = []
    inside = 0  # of a link
    for token in tokens:
        if token.type == "html_inline":
            inside += token.content.lower().startswith("<a") - token.content.lower().startswith("</a")
            if not _is_safe(token.content):
                token.type = "text"
        inside += (token.type == "link_open") - (token.type == "link_close")
        if inside:
            found.append(token)
        elif token.type == "code_inline" and _REPO.fullmatch(token.content) and (page := find(token.content)):
            found += _link(page, token)
        elif token.type == "text":
            found += _linked_text(token.content)
        else:
            found.append(token)
    return found


def _linked_text(text: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    for match in re.finditer(f"{_ARXIV.pattern}|{_ADDRESS.pattern}", text, re.IGNORECASE):
        found.append(_text(text[at : match.start()]))
        target = f"https://arxiv.org/abs/{match[1]}" if match[1] else match[0]
        found += _link(target, _text(match[0]))
        at = match.end()
    return [*found, _text(text[at:])]


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


def _link(target: str, inner: Token) -> list[Token]:
    return [Token("link_open", "a", 1, attrs={"href": target}), inner, Token("link_close", "a", -1)]
