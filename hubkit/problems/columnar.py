"""Reads Parquet and Arrow files in batches, with some of their columns.

data-00000-of-00001.arrow, as `save_to_disk` of datasets writes it, row 0: {"problem": "1 + 1?", "level": 2}
-> Row("data-00000-of-00001.arrow: row 0", {"problem": "1 + 1?", "level": "hard"}), if `level` is a class
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from hubkit.errors import InputError
from hubkit.problems.rows import Row

__all__ = ["arrow_rows", "count_arrow", "parquet_rows"]


def parquet_rows(path: Path, columns: list[str] | None) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        needed = _needed(path, schema.names, columns)
        yield from _rows(path, schema, file.iter_batches(batch_size=1024, columns=needed))


def arrow_rows(path: Path, columns: list[str] | None) -> Iterator[Row]:
    with _arrow_batches(path) as (schema, batches):
        needed = _needed(path, schema.names, columns)
        small = (batch.slice(start, 1024) for batch in batches for start in range(0, batch.num_rows, 1024))
        yield from _rows(path, schema, (batch.select(needed) for batch in small))


def count_arrow(path: Path) -> int:
    """Returns the number of rows of an Arrow file."""
    with _arrow_batches(path) as (_, batches):
        return sum(batch.num_rows for batch in batches)


@contextmanager
def _arrow_batches(path: Path) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The batches of an Arrow file in either of its two forms; mapped into memory, and not read as a whole."""
    with pa.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            file = pa.ipc.open_file(source)
            yield file.schema, (file.get_batch(number) for number in range(file.num_record_batches))
            return
        source.seek(0)
        with pa.ipc.open_stream(source) as stream:
            yield stream.schema, iter(stream)


def _classes(schema: pa.Schema) -> dict[str, list[str]]:
    """Returns column -> names of its classes, which `datasets` stores as numbers, -1 for none."""
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = (told.get("info") or {}).get("features") or {}
    return {
        name: feature["names"]
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def _needed(path: Path, names: list[str], columns: list[str] | None) -> list[str]:
    """Returns the file's columns that are read."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path.name}: column {twice[0]!r} appears twice", "rename one of them")
    # `columns` of the reader takes dots for parts of structs, so whole columns are chosen by what they begin with.
    asked = names if columns is None else columns
    needed = [name for name in names if any(c == name or c.startswith(f"{name}.") for c in asked)]
    if not needed:
        raise InputError(
            f"{path.name}: row 0 has no column {asked[0]!r}", f"its columns are {', '.join(names)}"
        )
    return needed


def _rows(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    classes, number = _classes(schema), 0
    for batch in batches:
        for row in _dicts(batch, path, number):
            where = f"{path.name}: row {number}"
            for name in classes.keys() & row.keys():
                row[name] = _class_name(where, name, row[name], classes[name])
            yield Row(where, row)
            number += 1


def _class_name(where: str, column: str, value: Any, names: list[str]) -> str | None:
    if value in (None, -1):
        return None
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise InputError(
            f"{where}: column {column!r}: {value!r} is none of {len(names)} classes", "fix the value"
        )
    return names[value]


def _dicts(batch: pa.RecordBatch, path: Path, first: int) -> Iterator[dict[str, Any]]:
    try:
        yield from batch.to_pylist()
    except (
        ValueError,
        OverflowError,
    ):  # text that is not UTF-8, times beyond the calendar: one by one, to name the row
        for index in range(batch.num_rows):
            try:
                (row,) = batch.slice(index, 1).to_pylist()
            except (ValueError, OverflowError) as error:
                raise InputError(
                    f"{path.name}: row {first + index}: {error}", "fix the value, or leave the row out"
                ) from error
            yield row
