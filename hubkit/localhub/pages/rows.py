"""The first rows of a data file, for people to look at."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

__all__ = ["ENDINGS", "Rows", "first_rows"]

ENDINGS: Final = (".parquet", ".jsonl", ".csv")
_MOST_ROWS: Final = 20
_MOST_COLUMNS: Final = 40
_LONGEST_CELL: Final = 400
_LONGEST_LINE: Final = 1 << 20
_LARGEST_GROUP: Final = 256 << 20
"""Bytes a Parquet row group may unpack to: reading starts with one."""


@dataclass
class Rows:
    columns: list[tuple[str, str]] = field(default_factory=list)
    """Name and type."""
    rows: list[list[str]] = field(default_factory=list)
    total: int | None = None
    why: str = ""
    """Why there are none to show."""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_CELL else text[:_LONGEST_CELL] + "…"


def first_rows(path: Path, ending: str) -> Rows:
    """ending: one of ENDINGS. The file may be anything: what cannot be read is told in `why`."""
    try:
        if ending == ".parquet":
            return _parquet(path)
        with path.open(encoding="utf-8", newline="") as file:
            lines = (line for line in iter(lambda: file.readline(_LONGEST_LINE), ""))
            return _jsonl(lines) if ending == ".jsonl" else _csv(lines)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        return Rows(why=f"This file cannot be read: {str(error)[:200]}")


def _parquet(path: Path) -> Rows:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names[:_MOST_COLUMNS]
        columns = [(str(name), str(file.schema_arrow.field(name).type)[:60]) for name in names]
        if file.num_row_groups and file.metadata.row_group(0).total_byte_size > _LARGEST_GROUP:
            return Rows(columns, why="Its row groups are too large to look into.")
        batch = next(file.iter_batches(_MOST_ROWS, columns=names), None)
        rows = [[_cell(row.get(name)) for name in names] for row in batch.to_pylist()] if batch else []
        return Rows(columns, rows, file.metadata.num_rows)


def _jsonl(lines: Iterable[str]) -> Rows:
    read = [json.loads(line) for line in islice(lines, _MOST_ROWS) if line.strip()]
    if not all(isinstance(row, dict) for row in read):
        raise ValueError("its lines are not JSON objects")
    names = list(dict.fromkeys(name for row in read for name in row))[:_MOST_COLUMNS]
    return Rows([(name, "") for name in names], [[_cell(row.get(name)) for name in names] for row in read])


def _csv(lines: Iterable[str]) -> Rows:
    read = list(islice(csv.reader(lines), _MOST_ROWS + 1))
    header = read[0][:_MOST_COLUMNS] if read else []
    return Rows(
        [(name, "") for name in header], [[_cell(cell) for cell in row[: len(header)]] for row in read[1:]]
    )
