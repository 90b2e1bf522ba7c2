"""What a compressor made of its traces, written as its step's output.

(raw {"id": "x", "reasoning": "I need to work out 47 + 38. …", …}, Shortened("47 + 38 = 85."))
-> data.parquet {"id": "x", "reasoning": "47 + 38 = 85.", "reasoning_tokens": 27, "ratio": 0.13, …}
(raw {"id": "y", …}, Shortened("…", "wrong", "6 is not 7"))  ->  rejected.parquet {"id": "y", "reason": "wrong", …}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from hubkit.records import REJECTED_SCHEMA, RowWriter, messages_of, read_rows
from hubkit.store import StepContext
from hubkit.traces.lengths import count_tokens
from hubkit.traces.variants import VARIANTS

__all__ = ["BATCH", "Row", "Shortened", "raw_rows", "shard_size", "write_shortened"]

BATCH: Final = 256
"""Traces that are read, and their tokens counted, together."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Shortened:
    """What became of one trace: a shorter text, or the reason why there is none."""

    text: str
    reason: str = ""
    """Counted category; empty if the text is kept."""
    detail: str = ""


def raw_rows(config: dict[str, Any], raw: Path) -> Iterator[Row]:
    """A shard's raw rows: every n-th from the i-th on."""
    index, shards = config["shard"]
    return islice(read_rows(raw / "data.parquet", batch=BATCH), index, None, shards)


def shard_size(context: StepContext) -> int:
    index, shards = context.config["shard"]
    return len(range(index, pq.read_metadata(context.inputs["raw"] / "data.parquet").num_rows, shards))


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
