"""Compressed traces: the shards of one compressor, joined in raw's order.

compress/<teacher>/<compressor>/0 with rows (x, 0), (y, 0) and /1 with (z, 0)
-> data.parquet (x, 0), (y, 0), (z, 0); rejected.parquet likewise; the counts and lengths of the whole
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from hubkit.errors import GateError, InputError
from hubkit.records import REJECTED_SCHEMA, read_rows, write_rows
from hubkit.store import StepContext
from hubkit.traces.lengths import LENGTH_COLUMNS, count_tokens, length_metrics, quartiles, response_metrics
from hubkit.traces.shards import keys_of, shard_names, sum_records
from hubkit.traces.variants import VARIANTS

__all__ = ["VERSION", "run"]

VERSION: Final = 3
BATCH: Final = 256


def run(context: StepContext) -> None:
    """Write all shards in raw's order, with the counts and lengths of the whole."""
    shards = shard_names(context)
    out = context.out / "data.parquet"
    if not write_rows(out, _in_order(context, shards, out.name), VARIANTS["compressed"].schema):
        raise GateError(
            f"{context.step}: no compressed trace was kept",
            "look at rejected.parquet of its compress steps, then at the compressor's settings",
        )
    rejected = context.out / "rejected.parquet"
    write_rows(rejected, _in_order(context, shards, rejected.name), REJECTED_SCHEMA)
    context.metrics.update(length_metrics(read_rows(out, columns=LENGTH_COLUMNS)))
    records = [context.record(name) for name in shards]
    sum_records(context, records)
    response_metrics(context.metrics)
    if ratio := records[0].config.get("ratio"):
        context.metrics["ratio_target"] = ratio
    if "tokenizer" in context.models:
        context.metrics["ratio_response_quantiles"] = _of_responses(context)


def _of_responses(context: StepContext) -> dict[str, float]:
    """Returns the quartiles of the ratios of whole responses; `ratio` applies to these if solutions are shortened."""
    tokenizer = context.model("tokenizer")
    rows = read_rows(context.inputs["raw"] / "data.parquet", BATCH, ["id", "sample", "solution"])
    shares: list[float] = []
    short = read_rows(context.out / "data.parquet", batch=BATCH)
    while batch := list(islice(short, BATCH)):
        keys = [(row["id"], row["sample"]) for row in batch]
        before = [next(raw for raw in rows if (raw["id"], raw["sample"]) == key)["solution"] for key in keys]
        old = count_tokens(tokenizer, before)
        new = count_tokens(tokenizer, [row["solution"] for row in batch])
        for row, b, a in zip(batch, old, new, strict=True):
            shares.append((row["reasoning_tokens"] + a) / max(1, row["raw_reasoning_tokens"] + b))
    return quartiles(shares)


def _in_order(context: StepContext, shards: list[str], file: str) -> Iterator[dict[str, Any]]:
    """Rows of all shards in raw's order, which is that of each shard."""
    heads: dict[tuple[str, int], tuple[dict[str, Any], Iterator[dict[str, Any]]]] = {}

    def advance(stream: Iterator[dict[str, Any]]) -> None:
        if row := next(stream, None):
            heads[row["id"], row["sample"]] = row, stream

    for name in shards:
        advance(read_rows(context.inputs[name] / file, batch=BATCH))
    for key in keys_of(context.inputs["raw"] / "data.parquet"):
        if key in heads:
            row, stream = heads.pop(key)
            yield row
            advance(stream)
    if heads:
        raise InputError(f"{context.step}: {file} of a shard is not in raw's order", "run its step again")
