"""What commands print for people: tables and lines that fit a terminal, and are whole in a pipe."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["columns", "grid", "show"]

_ENDLESS: Final = 1_000_000
"""Columns if output is not a terminal: logs and programs read whole lines, in which no name may be split."""


def columns() -> int:
    """Columns to print in."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _ENDLESS


def grid(heads: Sequence[str], rows: Iterable[Sequence[str | Text]], first: int = 0) -> Table:
    """A table whose column number `first` is as wide as its longest cell, where two thirds of the terminal are enough.

    Cells that do not fit go on in the next line; nothing is cut.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    widest = max((cell_len(row[first].plain) for row in cells), default=0)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, head in enumerate(heads):
        least = min(widest, columns() * 2 // 3) if number == first else 0
        table.add_column(head, overflow="fold", min_width=least)
    for row in cells:
        table.add_row(*row)
    return table


def show(renderable: Any) -> None:
    """Print a table or a Text. Strings are text, too: square brackets in them are no markup."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(width=columns(), markup=False, highlight=False).print(renderable)
        return
    drawn = io.StringIO()
    Console(file=drawn, width=columns(), markup=False, highlight=False).print(renderable)
    print("\n".join(line.rstrip() for line in drawn.getvalue().splitlines()))
