"""The step `lengths`: the lengths of another source's traces, for controls that are cut to these lengths.

    raw {"id": "mine-2f6c…", "sample": 0, "problem": "1 + 1?", "solution": "2", …}, and in the other source a trace of
    the same problem with the same solution, of 31 tokens
    -> {"id": "mine-2f6c…", "sample": 0, "reasoning_tokens": 31, "compressor": "other", "solution": "2"}

Ids of sources differ, so traces are matched by the texts of problem and solution, which compression does not change. A
trace with a new solution is matched by the problem alone, if both sides have one trace of it.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import pyarrow as pa

from hubkit.errors import InputError
from hubkit.problems.base import normalise
from hubkit.records import read_rows, write_rows
from hubkit.store import StepContext
from hubkit.traces.join import with_problems
from hubkit.traces.lengths import count_tokens

__all__ = ["VERSION", "run"]

VERSION: Final = 2
BATCH: Final = 512
SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("reasoning_tokens", pa.int32()),
        ("compressor", pa.string()),
        ("solution", pa.string()),
    ]
)


def run(context: StepContext) -> None:
    """Write data.parquet in raw's order. Raises InputError if no trace of the other source is of the same problem."""
    alike: dict[bytes, list[int]] = defaultdict(list)
    there: dict[bytes, list[int]] = defaultdict(list)
    pairs = with_problems(context, "shard-0")
    while batch := list(islice(pairs, BATCH)):
        counts = count_tokens(context.model("tokenizer"), [trace["reasoning"] for _, trace in batch])
        for (problem, trace), tokens in zip(batch, counts, strict=True):
            alike[_digest(problem["problem"], trace["solution"])].append(tokens)
            there[_digest(problem["problem"])].append(tokens)
    columns = ["id", "sample", "problem", "solution"]
    raw = context.inputs["raw"] / "data.parquet"
    here = Counter(_digest(row["problem"]) for row in read_rows(raw, columns=columns[2:3]))

    def rows() -> Iterator[dict[str, Any]]:
        for row in read_rows(raw, columns=columns):
            of = _digest(row["problem"])
            found = alike.get(_digest(row["problem"], row["solution"]), [])
            if not found and here[of] == 1 and len(there[of]) == 1:
                found = there[of]
            if not found:
                context.count("dropped_no_counterpart")
                continue
            # The raw trace's: controls leave solutions as they are.
            about = {name: row[name] for name in ("id", "sample", "solution")}
            about |= {"compressor": context.config["compressor"]}
            yield about | {"reasoning_tokens": found.pop(0)}

    kept = write_rows(context.out / "data.parquet", rows(), SCHEMA)
    if not kept:
        raise InputError(
            f"{context.config['compressor']}: none of its traces is of a problem that is there to be cut",
            "give the compressed form of the same traces",
        )
    context.count("kept", kept)


def _digest(*texts: str) -> bytes:
    joined = "\0".join(map(normalise, texts))
    return hashlib.blake2b(joined.encode("utf-8", "replace"), digest_size=16).digest()
