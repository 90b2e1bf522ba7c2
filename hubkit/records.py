"""What steps hand to each other: rows of Parquet, one schema per kind, with a version.

A `problems` step writes Problem rows, `traces` writes Trace rows (one per problem and sample), and the
variants (`raw`, `compressed`, `truncated`) write rows of one shared schema, so that they join on
(`id`, `sample`) and load with `datasets.load_dataset` unchanged:

    {"id": "chain_sum-3f2a…", "problem": "State the final answer … 47 + 38 =", "answer": "85",
     "messages": [{"role": "user", …}, {"role": "assistant", "content": "<think>\\n…\\n</think>\\n\\n…"}],
     "reasoning": "…", "solution": "The answer is \\\\boxed{85}.", "sample": 0, "correct": true, …}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from hubkit.errors import InputError

__all__ = [
    "EVALUATION_SCHEMA",
    "PROBLEM_SCHEMA",
    "REJECTED_SCHEMA",
    "SAMPLED_SCHEMA",
    "SCHEMA_VERSION",
    "TRACE_SCHEMA",
    "VARIANT_COLUMNS",
    "VERDICT_SCHEMA",
    "Problem",
    "RowWriter",
    "Trace",
    "messages_of",
    "read_rows",
    "write_rows",
]

SCHEMA_VERSION: Final = 1


class Problem(TypedDict):
    """A prompt with a known answer and the name of the verifier that judges it."""

    id: str
    source: str
    problem: str
    answer: str
    verifier: str
    metadata: str
    """JSON that the verifier needs besides the answer (reasoning-gym's entry), or ""."""


class Trace(TypedDict):
    """One teacher response, split into the thinking span and what follows it."""

    id: str
    sample: int
    teacher: str
    reasoning: str
    solution: str
    thinking: str
    """How the span was found: closed | unclosed | none | field."""
    finish_reason: str
    """stop | length | error, or what else a server gave."""
    prompt_tokens: int
    completion_tokens: int
    error: str


PROBLEM_SCHEMA: Final = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "problem", "answer", "verifier", "metadata")]
)

TRACE_SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("teacher", pa.string()),
        ("reasoning", pa.string()),
        ("solution", pa.string()),
        ("thinking", pa.string()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("error", pa.string()),
    ]
)

VERDICT_SCHEMA: Final = pa.schema(
    [("id", pa.string()), ("sample", pa.int32()), ("status", pa.string()), ("reason", pa.string())]
)
"""A judge's verdicts: one row per trace that it was asked about, in the traces' order."""

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

VARIANT_COLUMNS: Final = (
    ("id", pa.string()),
    ("source", pa.string()),
    ("problem", pa.string()),
    ("answer", pa.string()),
    ("messages", _MESSAGES),
    ("reasoning", pa.string()),
    ("solution", pa.string()),
    ("teacher", pa.string()),
    ("sample", pa.int32()),
    ("correct", pa.bool_()),
    ("verifier", pa.string()),
    ("finish_reason", pa.string()),
    ("reasoning_chars", pa.int32()),
    ("reasoning_tokens", pa.int32()),
    ("raw_reasoning_chars", pa.int32()),
    ("raw_reasoning_tokens", pa.int32()),
    ("ratio", pa.float64()),
)
"""Columns of every variant; `traces.variants` has those of one kind. Lengths are of `reasoning` alone, tokens by
the recipe's tokenizer; `ratio` is reasoning_tokens / raw_reasoning_tokens."""

REJECTED_SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("teacher", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("text", pa.string()),
    ]
)
"""What a step did not keep: `reason` is the counted category, `detail` one line for people."""

EVALUATION_SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("problem", pa.string()),
        ("answer", pa.string()),
        ("output", pa.string()),
        ("correct", pa.bool_()),
        ("output_tokens", pa.int32()),
        ("finish_reason", pa.string()),
    ]
)
"""One row per test problem of one evaluation; rows of all students stand in the same order of `id`."""

SAMPLED_SCHEMA: Final = EVALUATION_SCHEMA.append(pa.field("sample", pa.int32())).append(
    pa.field("extracted", pa.string())
)
"""Of an evaluation with several answers per problem: those of a problem follow each other. `extracted` is the answer
as it was read from the output, null where there is none, and in all rows where the benchmark's scorer tells none."""


def messages_of(problem: str, reasoning: str, solution: str) -> list[dict[str, str]]:
    """The chat that a student is trained on: what `messages` holds.

    The span is written inline rather than in a separate key: chat templates disagree on that key's
    name, and inline text reaches the student through every template that does not rewrite content.
    """
    return [
        {"role": "user", "content": problem},
        {"role": "assistant", "content": f"<think>\n{reasoning}\n</think>\n\n{solution}"},
    ]


class RowWriter:
    """Writes rows as Parquet the way the Hub stores it best, in batches, so that memory stays flat.

    zstd with content-defined chunks: an edited dataset then uploads only what changed.
    """

    def __init__(self, path: Path, schema: pa.Schema, batch: int = 1024) -> None:
        self._schema = schema.with_metadata({"hubkit_schema_version": str(SCHEMA_VERSION)})
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = pq.ParquetWriter(
            path, self._schema, compression="zstd", use_content_defined_chunking=True
        )
        self._batch = batch
        self._chunk: list[Any] = []
        self.rows = 0

    def add(self, row: Any) -> None:
        self._chunk.append(row)
        self.rows += 1
        if len(self._chunk) == self._batch:
            self._flush()

    def _flush(self) -> None:
        self._file.write_table(pa.Table.from_pylist(self._chunk, schema=self._schema))
        self._chunk = []

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is None and (self._chunk or self.rows == 0):
                self._flush()


def write_rows(path: Path, rows: Iterable[Any], schema: pa.Schema, batch: int = 1024) -> int:
    """Write rows as Parquet (see RowWriter); returns their number."""
    with RowWriter(path, schema, batch) as writer:
        for row in rows:
            writer.add(row)
    return writer.rows


def read_rows(path: Path, batch: int = 1024, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Stream the rows of a Parquet file, with all or some columns.

    Raises InputError for a file that is not ours to read.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path}: {error}", "delete the step's folder and run again") from error
    with file:
        version = (file.schema_arrow.metadata or {}).get(b"hubkit_schema_version", b"").decode()
        if version not in ("", str(SCHEMA_VERSION)):
            raise InputError(
                f"{path} has schema version {version}, this hubkit reads {SCHEMA_VERSION}",
                "use the hubkit that wrote it, or rerun the step",
            )
        for group in file.iter_batches(batch_size=batch, columns=columns):
            yield from group.to_pylist()
