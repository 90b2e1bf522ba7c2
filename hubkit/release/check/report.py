"""The result of a check: as a table, as JSON, and as the report and badge that the cards link."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from hubkit.release.cards.context import BADGE, REPORT
from hubkit.release.check.claims import Claims
from hubkit.release.text import markdown

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["BADGE", "FOLDER", "REPORT", "as_json", "badge", "files", "report", "table", "unchecked_files"]

FOLDER: Final = ".check/"
"""Of the evaluations dataset."""
_COLOURS: Final = {"same": "#2da44e", "differs": "#cf222e", "not checked": "#6e7781"}
_MARKS: Final = {"same": "✓", "differs": "✗", "not checked": "–"}


def table(claims: Claims, all_rows: bool = True) -> Table:
    """A row per claim, or per claim that was not confirmed."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "repo", "claim", "published", "recomputed"):
        found.add_column(column, overflow="fold")
    for claim in claims:
        if all_rows or claim.status != "same":
            # Text, so that nothing published is read as markup.
            cells = (claim.repo, claim.what, claim.published, claim.recomputed)
            mark = Text(_MARKS[claim.status], style=_COLOURS[claim.status])
            found.add_row(mark, *(Text(cell) for cell in cells))
    return found


def as_json(name: str, claims: Claims) -> str:
    counts = claims.counts()
    body: dict[str, Any] = {
        "release": name,
        "ok": not counts["differs"],
        "counts": counts,
        "claims": claims.as_dicts(),
    }
    return json.dumps(body, indent=2)


def badge(text: str, status: str) -> str:
    """A small SVG: "release check | 212 of 212". The text is ours: figures and fixed words."""
    label, width = "release check", 96 + 7 * len(text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" '
        f'aria-label="{label}: {text}"><title>{label}: {text}</title>'
        f'<rect width="{width}" height="20" rx="3" fill="#444c56"/>'
        f'<rect x="90" width="{width - 90}" height="20" rx="3" fill="{_COLOURS[status]}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="6" y="14">{label}</text><text x="96" y="14">{text}</text></g></svg>\n'
    )


def report(name: str, claims: Claims, when: str, made: str) -> str:
    """The report as Markdown."""
    return markdown(
        "check.md",
        {
            "name": name,
            "claims": list(claims),
            "counts": claims.counts(),
            "marks": _MARKS,
            "when": when,
            "made": made,
        },
    )


def files(name: str, claims: Claims, when: str, made: str) -> dict[str, bytes]:
    """Report, badge and JSON, by their paths in the evaluations dataset."""
    counts = claims.counts()
    looked = counts["same"] + counts["differs"]
    status = "differs" if counts["differs"] else "same"
    text = f"{counts['differs']} differ" if counts["differs"] else f"{counts['same']} of {looked} claims"
    return {
        REPORT: report(name, claims, when, made).encode(),
        BADGE: badge(text, status).encode(),
        f"{FOLDER}report.json": (as_json(name, claims) + "\n").encode(),
    }


def unchecked_files(name: str) -> dict[str, bytes]:
    """Returns the placeholders until a check is pushed."""
    return {
        REPORT: markdown("check.md", {"name": name, "claims": [], "counts": {}, "when": ""}).encode(),
        BADGE: badge("not run yet", "not checked").encode(),
    }
