"""Escapes untrusted text for Markdown: names, descriptions, prompts and traces may contain anything.

md("**x** | <img src=y>")  ->  \\*\\*x\\*\\* \\| &lt;img src=y&gt;
fence("```\\nrm -rf", "text")  ->  a block between four backticks
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["code", "fence", "link", "markdown", "md", "number", "percent"]

_MARKUP: Final = re.compile(r"([\\`*_{}\[\]()#+!|~$^])")
_ADDRESS: Final = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9._~:/?#@!$&+,;=%-]*")
"""Nothing that could end a link, a table's cell or a tag."""
_LIST: Final = re.compile(r"^(\s*\d*)([-=.)](?=\s|[-=]|$))")
"""What at the start of a line makes a list, a rule or a heading."""


def md(value: Any) -> str:
    """A value as plain text in one line of Markdown: no markup, no HTML, no link of its own."""
    if isinstance(value, Markup):
        return str(value)
    text = re.sub(r"\s+", " ", str(value))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _MARKUP.sub(r"\\\1", text).replace("://", "&#58;//")
    return _LIST.sub(r"\1\\\2", text)


def code(value: Any) -> Markup:
    """A code span in one line, also inside a table."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    ticks = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return Markup(f"{ticks}{pad}{text}{pad}{ticks}")  # noqa: S704


def link(value: Any) -> Any:
    """A web address as a link that shows it; any other text as `md` has it."""
    return Markup(f"<{value}>") if _ADDRESS.fullmatch(str(value)) else value  # noqa: S704


def fence(value: Any, language: str = "") -> Markup:
    """A code block whose fence is longer than any run of backticks in it."""
    text = str(value).rstrip("\n")
    ticks = "`" * max(3, _longest_run(text) + 1)
    return Markup(f"{ticks}{language}\n{text}\n{ticks}")  # noqa: S704


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def number(value: float | int | None, digits: int = 1) -> str:
    """1234.56 -> 1,234.6; None -> a dash."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def markdown(template: str, values: Mapping[str, Any]) -> str:
    """Render a Markdown template of this package; every value is escaped unless `code` or `fence` made it."""
    text = _environment().get_template(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", text)


@functools.cache
def _environment() -> Environment:
    """One for all cards of a process: compiling a template takes longer than rendering it."""
    # HTML escaping would not do for Markdown: `finalize` escapes every value for it.
    environment = Environment(
        loader=PackageLoader("hubkit.release"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=md,
        autoescape=False,  # noqa: S701
    )
    environment.filters |= {"code": code, "fence": fence, "link": link, "number": number, "percent": percent}
    return environment
