"""What a compressor made of its traces, written as its step's output.

(raw {"id": "x", "reasoning": "I need to work out 47 + 38. …", …}, Shortened("47 + 38 = 85."))
-> data.parquet {"id": "x", "reasoning": "47 + 38 = 85.", "reasoning_tokens": 27, "ratio": 0.13, …}
(raw {"id": "y", …}, Shortened("…", "wrong", "6 is not 7"))  ->  rejected.parquet {"id": "y", "reason": "wrong", …}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from hubkit.records import (
    REJECTED_SCHEMA,
    VARIANT_COLUMNS,
    RowWriter,
    count_rows,
    group_bounds,
    messages_of,
    read_rows,
    shard_rows,
)
from hubkit.store import StepContext
from hubkit.traces.lengths import count_tokens
from hubkit.traces.variants import VARIANTS

__all__ = ["ASKED_COLUMNS", "BATCH", "Row", "Shortened", "raw_rows", "shard_size", "write_shortened"]

BATCH: Final = 256
"""Traces that are read, and their tokens counted, together."""
_COLUMNS: Final = [name for name, _ in VARIANT_COLUMNS if name != "messages"]
"""`messages` repeats what the others say, and is half of what would have to be read."""
ASKED_COLUMNS: Final = ["id", "sample", "problem", "reasoning"]
"""Those of which requests are made."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Shortened:
    """What became of one trace: a shorter text, or the reason why there is none."""

    text: str
    reason: str = ""
    """Counted category; empty if the text is kept."""
    detail: str = ""


def raw_rows(
    config: dict[str, Any], raw: Path, columns: list[str] = _COLUMNS, most: int | None = None
) -> Iterator[Row]:
    """A shard's raw rows, without `messages`: those that lie behind each other, or every n-th of few shards. With
    `most` no more than about that many, from the beginnings of its row groups."""
    path, (index, shards) = raw / "data.parquet", config["shard"]
    if shards > 1 and not config.get("contiguous"):
        return islice(read_rows(path, BATCH, columns), index, most and index + most * shards, shards)
    start, stop = shard_rows(path, index, shards)
    if most is None:
        return read_rows(path, BATCH, columns, start, stop)
    begins = [start, *(bound for bound in group_bounds(path) if start < bound < stop)]
    each = max(1, most // len(begins))
    return chain.from_iterable(
        read_rows(path, each, columns, begin, min(begin + each, stop)) for begin in begins
    )


def shard_size(context: StepContext) -> int:
    path, (index, shards) = context.inputs["raw"] / "data.parquet", context.config["shard"]
    if shards > 1 and not context.config.get("contiguous"):
        return len(range(index, count_rows(path), shards))
    start, stop = shard_rows(path, index, shards)
    return stop - start


def write_shortened(context: StepContext, results: Iterable[tuple[Row, Shortened]]) -> None:
    """Write data.parquet and rejected.parquet in the order of `results`, and count what became of each."""
    config, source = context.config, iter(results)
    with (
        RowWriter(context.out / "data.parquet", VARIANTS["compressed"].schema) as data,
        RowWriter(context.out / "rejected.parquet", REJECTED_SCHEMA) as rejected,
    ):
        while batch := list(islice(source, BATCH)):
            texts = [short.text for _, short in batch if not short.reason]
            tokens = iter(count_tokens(context.model("tokenizer"), texts))
            for row, short in batch:
                length = 0 if short.reason else next(tokens)
                reason, detail = short.reason, short.detail
                if not reason and not short.text:
                    reason, detail = "empty", "nothing was left"
                elif not reason and length >= row["raw_reasoning_tokens"]:
                    reason, detail = "not_shorter", f"{length} tokens of {row['raw_reasoning_tokens']}"
                context.count(f"dropped_{reason}" if reason else "kept")
                if reason:
                    rejected.add(row | {"reason": reason, "detail": detail, "text": short.text})
                    continue
                data.add(
                    row
                    | {
                        "reasoning": short.text,
                        "messages": messages_of(row["problem"], short.text, row["solution"]),
                        "reasoning_chars": len(short.text),
                        "reasoning_tokens": length,
                        "ratio": length / row["raw_reasoning_tokens"],
                        "compressor": config["compressor"],
                        "prompt_sha": config.get("prompt_sha"),
                    }
                )
