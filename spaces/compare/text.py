"""From texts that anybody may have written to HTML: everything that the page shows goes through `esc`."""

from __future__ import annotations

import html
import re
from typing import Any

from align import FORMULA

LONGEST_TEXT = 60_000
"""Characters of one text that are shown at most; the export has the whole."""
ROOM = 160_000
"""Characters of HTML for all outputs of a problem, or all forms of a trace, together."""

# KaTeX comes with gr.Markdown, which looks for it only where a delimiter stands unescaped: this one.
MATHS = "<!--$$ $$-->"
DELIMITERS = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]
_FORMULA = re.compile(FORMULA)


def esc(value: Any) -> str:
    """Text for HTML, in one line. gr.HTML reads ${…} and {{…}} as templates, gr.Markdown %%%…%%% and blank lines."""
    text = html.escape(str(value))
    return "".join(f"&#{ord(c)};" if c in "${}`\\%\n\r" else c for c in text)


def maths(text: str) -> str:
    """Formulas in the delimiters that KaTeX looks for: \\boxed{5} -> \\(\\boxed{5}\\), $x$ -> \\(x\\)."""

    def delimited(found: re.Match[str]) -> str:
        formula = found[0]
        if formula.startswith("\\boxed"):
            return f"\\({formula}\\)"
        return f"\\({formula[1:-1]}\\)" if formula[0] == "$" and formula[1] != "$" else formula

    return _FORMULA.sub(delimited, text)


def shown(text: str, limit: int = LONGEST_TEXT) -> str:
    """An output's or trace's text in HTML of about `limit` characters at most; says how much it leaves out."""
    cut = text[:limit]
    found = esc(maths(cut))
    while len(found) > limit and len(cut) > 100:  # what is escaped is longer
        cut = cut[: len(cut) * limit // len(found) - 1]
        found = esc(maths(cut))
    left = len(text) - len(cut)
    return f'{found}<span class="note"> … {left:,} more characters</span>' if left else found


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def split(output: str) -> tuple[str, str]:
    """Thinking text and solution of an output. A span that never closed has no solution."""
    head, closed, tail = output.partition("</think>")
    if closed:
        return head.replace("<think>", "", 1).strip(), tail.strip()
    if "<think>" in output:
        return output.partition("<think>")[2].strip(), ""
    return "", output.strip()


def note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def badge(text: str, style: str = "") -> str:
    return f'<span class="badge {style}">{text}</span>' if style else f'<span class="badge">{text}</span>'


def verdict(right: bool) -> str:
    return badge("right", "yes") if right else badge("wrong", "no")


def box(label: str, content: str, style: str = "text") -> str:
    """A text that may be long: it scrolls, also by keyboard."""
    return f'<div class="{style}" tabindex="0" role="region" aria-label="{esc(label)}">{content}</div>'


def bar(tokens: int, longest: int) -> str:
    return f'<div class="bar" style="width:{100 * tokens / max(longest, 1):.1f}%"></div>'
