"""Joins the shards of a variant, made by several steps, to one table.

verify/<teacher>/0 with rows (x, 0), (x, 1) and /1 with (y, 0)  ->  data.parquet (x, 0), (x, 1), (y, 0)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from hubkit.records import RowWriter, read_batches
from hubkit.store import Record, StepContext

__all__ = ["join_shards", "keys_of", "shard_names", "sum_records"]


def shard_names(context: StepContext) -> list[str]:
    """Names of a step's inputs that are shards, in order."""
    return sorted((name for name in context.inputs if name.startswith("shard-")), key=lambda n: int(n[6:]))


def join_shards(context: StepContext, tables: dict[str, pa.Schema]) -> int:
    """Write each table with the rows of all shards, one after the other, and add up the shards' counts.

    Returns the rows of the first table. Rows are copied as Arrow data, a batch at a time.
    """
    shards, rows = shard_names(context), []
    for table, schema in tables.items():
        with RowWriter(context.out / table, schema) as writer:
            for number, name in enumerate(shards):
                for batch in read_batches(context.inputs[name] / table):
                    writer.add_batch(batch)
                context.progress(number + 1, len(shards))
        rows.append(writer.rows)
    sum_records(context, [context.record(name) for name in shards])
    return rows[0]


def sum_records(context: StepContext, records: Sequence[Record]) -> None:
    """Add up the shards' counts, and their tokens of solutions, shortened and raw."""
    for record in records:
        for reason, number in record.counts.items():
            context.count(reason, number)
    for name in ("solution_tokens", "raw_solution_tokens"):
        if any(name in record.metrics for record in records):  # a shard without rows has none
            context.metrics[name] = sum(record.metrics.get(name, 0) for record in records)


def keys_of(path: Path, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, int]]:
    """(id, sample) of a table's rows."""
    for batch in read_batches(path, ["id", "sample"], 65_536, start, stop):
        yield from zip(batch["id"].to_pylist(), batch["sample"].to_pylist(), strict=True)
