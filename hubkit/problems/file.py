"""Problems from a file beside the recipe: JSON lines or Parquet."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from hubkit.errors import InputError
from hubkit.problems.base import Description, Pin, beside
from hubkit.problems.rows import RowSource
from hubkit.records import Problem, read_rows
from hubkit.store import digest_file

__all__ = ["FileSource"]


class FileSource(RowSource):
    source: Literal["file"]
    path: str
    """JSON lines or Parquet beside the recipe."""

    def rows(self, pin: Pin) -> Iterator[Problem]:
        assert pin.path is not None
        return self.problems_of(_read(pin.path), Path(self.path).stem)

    def describe(self) -> Description:
        return Description("a file beside the recipe")

    def pin(self, folder: Path, key: str, commit: Callable[[str, str], str]) -> Pin:
        path = beside(folder, self.path, f"{key}.path")
        return Pin(self.path, "", digest_file(path), path)

    def count(self, pin: Pin) -> int | None:
        assert pin.path is not None
        return min(_count(pin.path), self.limit or sys.maxsize)


def _count(path: Path) -> int:
    """Rows of Parquet, by its footer, or lines."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    with path.open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        yield from read_rows(path)
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{path.name}:{number}: not JSON: {error}", "mend the line") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path.name}:{number}: not an object", "one JSON object a line")
                yield row
