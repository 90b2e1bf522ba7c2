"""The rows that steps pass to each other: Parquet, one schema per kind, with a version.

A `problems` step writes Problem rows, `traces` writes Trace rows (one per problem and sample), and the
variants (`raw`, `compressed`, `truncated`) write rows of one shared schema, so that they join on
(`id`, `sample`) and load with `datasets.load_dataset` unchanged:

    {"id": "chain_sum-3f2a…", "problem": "State the final answer … 47 + 38 =", "answer": "85",
     "messages": [{"role": "user", …}, {"role": "assistant", "content": "<think>\\n…\\n</think>\\n\\n…"}],
     "reasoning": "…", "solution": "The answer is \\\\boxed{85}.", "sample": 0, "correct": true, …}
"""

from __future__ import annotations

import glob
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from hubkit.errors import InputError

__all__ = [
    "CHUNKING",
    "EVALUATION_SCHEMA",
    "GROUP_BYTES",
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
    "arrow_size",
    "count_rows",
    "files_of",
    "group_bounds",
    "is_part",
    "messages_of",
    "part_of",
    "read_batches",
    "read_rows",
    "read_table",
    "shard_rows",
    "split_files",
    "write_rows",
]

SCHEMA_VERSION: Final = 1
GROUP_BYTES: Final = 64 << 20
"""Bytes of Arrow data of a row group, which a reader or a worker takes at a time."""
FIRST_BYTES: Final = 8 << 20
"""Bytes of Arrow data of a table's first row group: streaming from the Hub waits for all of it before the first row."""
FILE_BYTES: Final = 500_000_000
"""Bytes of Arrow data of a file: the shard size of `datasets`."""
CHUNKING: Final = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}
"""Sizes of content-defined chunks in bytes, as `datasets` writes them."""
_SLACK: Final = 0.05
"""Share by which a row group may be larger, so that no group is made for a few rows."""
_NEAR: Final = 0.1
"""Share of its length by which a shard's beginning may differ from an even division."""


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
    """stop | length | error, or any other reason that a server gave."""
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
"""A judge's verdicts: one row per trace that was judged, in the traces' order."""

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
"""Rows that a step dropped: `reason` is the counted category, `detail` one line for people."""

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
"""One row per test problem of one evaluation; rows of all students are in the same order of `id`."""

SAMPLED_SCHEMA: Final = EVALUATION_SCHEMA.append(pa.field("sample", pa.int32())).append(
    pa.field("extracted", pa.string())
)
"""Rows of an evaluation with several answers per problem; answers to one problem are consecutive. `extracted` is the
answer as it was read from the output: null if there is none, and in all rows if the benchmark's scorer returns none."""


def messages_of(problem: str, reasoning: str, solution: str) -> list[dict[str, str]]:
    """Returns the chat that a student is trained on, the column `messages`.

    The span is written inline rather than in a separate key: chat templates disagree on that key's
    name, and inline text reaches the student through every template that does not rewrite content.
    """
    return [
        {"role": "user", "content": problem},
        {"role": "assistant", "content": f"<think>\n{reasoning}\n</think>\n\n{solution}"},
    ]


class RowWriter:
    """Writes a table as `datasets` writes it and as the Hub stores it best, in constant memory.

    A table that fits into FILE_BYTES is one file, data.parquet; a larger one is several files, named when the writer
    is left: data-00000-of-00003.parquet and so on (`files_of`). Files have zstd compression, a page index, and
    content-defined chunks, so that only the changed parts of an edited dataset are uploaded.
    """

    def __init__(self, path: Path, schema: pa.Schema, batch: int = 256, group_bytes: int = 0) -> None:
        """`batch` rows are held as Python objects before they become Arrow data.

        Row groups have some `group_bytes` of Arrow data, by default GROUP_BYTES: all of that is read for one row.
        """
        self._path, self._batch, self._group_bytes = path, batch, group_bytes or GROUP_BYTES
        self._schema = schema.with_metadata({"hubkit_schema_version": str(SCHEMA_VERSION)})
        path.parent.mkdir(parents=True, exist_ok=True)
        for earlier in _parts(path):
            earlier.unlink()
        self._files: list[Path] = []
        self._file: pq.ParquetWriter | None = None
        self._written = 0
        """Bytes of Arrow data in the open file."""
        self._chunk: list[Any] = []
        self._group: list[pa.RecordBatch] = []
        self._held = 0
        """Bytes of Arrow data in `_group`."""
        self.rows = 0

    def add(self, row: Any) -> None:
        self._chunk.append(row)
        self.rows += 1
        if len(self._chunk) == self._batch:
            self._flush()

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows that are Arrow data already, without converting them to Python objects."""
        self._flush()
        self.rows += batch.num_rows
        self._hold(batch)

    def _flush(self) -> None:
        if self._chunk:
            self._hold(pa.RecordBatch.from_pylist(self._chunk, schema=self._schema))
            self._chunk = []

    def _hold(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            # A batch of long rows is divided, so that no group is much above its bound.
            bound = self._group_bytes if self._files else min(FIRST_BYTES, self._group_bytes)
            room = max(1, (bound - self._held) * batch.num_rows // max(1, batch.nbytes))
            part, batch = batch.slice(0, room), batch.slice(room)
            self._group.append(part)
            self._held += part.nbytes
            if self._held >= bound * (1 - _SLACK):
                self._write_group()

    def _write_group(self) -> None:
        table = pa.Table.from_batches(self._group, schema=self._schema)
        if self._file is not None and self._written + self._held > FILE_BYTES:
            self._file.close()
            self._file = None
        if self._file is None:
            self._files.append(self._path.with_name(f"{self._path.name}.{len(self._files)}.part"))
            self._file, self._written = _open(self._files[-1], self._schema), 0
        self._file.write_table(table, row_group_size=max(1, table.num_rows))
        self._written += self._held
        self._group, self._held = [], 0

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                if self._group or not self._files:
                    self._write_group()
        finally:
            if self._file is not None:
                self._file.close()
        if kind is None:
            for number, part in enumerate(self._files):
                part.replace(part_of(self._path, number, len(self._files)))


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    file = pq.ParquetWriter(
        path, schema, compression="zstd", use_content_defined_chunking=CHUNKING, write_page_index=True
    )
    # datasets and the Hub know by this key that an upload can leave out what did not change.
    file.add_key_value_metadata({"content_defined_chunking": json.dumps(CHUNKING)})
    return file


def write_rows(
    path: Path, rows: Iterable[Any], schema: pa.Schema, batch: int = 256, group_bytes: int = 0
) -> int:
    """Write rows as a table (see RowWriter). Returns their number."""
    with RowWriter(path, schema, batch, group_bytes) as writer:
        for row in rows:
            writer.add(row)
    return writer.rows


def part_of(path: Path, number: int, parts: int) -> Path:
    """Returns the name of a table's part: data.parquet if it is the only one, else data-00000-of-00003.parquet."""
    return path if parts == 1 else path.with_name(f"{path.stem}-{number:05}-of-{parts:05}{path.suffix}")


def is_part(name: str, table: str) -> bool:
    """Whether a file of this name is a table's, such as data-00000-of-00003.parquet of data.parquet."""
    stem, _, ending = table.rpartition(".")
    return name == table or re.fullmatch(rf"{re.escape(stem)}-\d{{5}}-of-\d{{5}}\.{ending}", name) is not None


def _parts(path: Path) -> list[Path]:
    """Returns the existing files of a table."""
    several = path.parent.glob(f"{glob.escape(path.stem)}-?????-of-?????{path.suffix}")
    return ([path] if path.is_file() else []) + sorted(several)


def files_of(path: Path) -> list[Path]:
    """Returns the files of a table, in order. Raises InputError if one is missing."""
    found = _parts(path)
    if not found or found != [part_of(path, number, len(found)) for number in range(len(found))]:
        what = f"some of its {len(found)} parts are missing" if found else "there is no such file"
        raise InputError(f"cannot read {path}: {what}", "delete the step's folder and run again")
    return found


def split_files(name: str, path: Path) -> dict[str, Path]:
    """Returns the files of a table under the names of a dataset's split: train-00000-of-00002.parquet."""
    found = files_of(path)
    return {f"{name}-{n:05}-of-{len(found):05}{path.suffix}": file for n, file in enumerate(found)}


def read_batches(
    path: Path, columns: list[str] | None = None, batch: int = 256, start: int = 0, stop: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Stream a table's rows from `start` up to `stop`, with all or some columns, at most `batch` together.

    Row groups without any of these rows are not read. Raises InputError for files that cannot be read.
    """
    first = 0
    """Number of the first row of a file."""
    for part in files_of(path):
        try:
            with pq.ParquetFile(part) as file:
                _check_version(part, file)
                groups: list[int] = []
                skip, before = 0, first
                for number in range(file.num_row_groups):
                    rows = file.metadata.row_group(number).num_rows
                    if before + rows > start and (stop is None or before < stop):
                        skip = skip if groups else max(0, start - before)
                        groups.append(number)
                    before += rows
                place = max(first, start) if groups else before
                for found in file.iter_batches(batch, row_groups=groups, columns=columns) if groups else ():
                    left, skip = found.slice(skip), max(0, skip - found.num_rows)
                    wanted = left if stop is None else left.slice(0, max(0, stop - place))
                    place += left.num_rows
                    if wanted.num_rows:
                        yield wanted
                first = before
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"cannot read {part}: {error}", "delete the step's folder and run again"
            ) from error
        if stop is not None and first >= stop:
            return


def _check_version(path: Path, file: pq.ParquetFile) -> None:
    version = (file.schema_arrow.metadata or {}).get(b"hubkit_schema_version", b"").decode()
    if version not in ("", str(SCHEMA_VERSION)):
        raise InputError(
            f"{path} has schema version {version}, this hubkit reads {SCHEMA_VERSION}",
            "use the hubkit that wrote it, or rerun the step",
        )


def read_rows(
    path: Path, batch: int = 256, columns: list[str] | None = None, start: int = 0, stop: int | None = None
) -> Iterator[dict[str, Any]]:
    """Stream the rows of a table (see `read_batches`)."""
    for found in read_batches(path, columns, batch, start, stop):
        yield from found.to_pylist()


def read_table(path: Path, columns: list[str]) -> pa.Table:
    """Returns some columns of a table, in memory."""
    return pa.concat_tables([pq.read_table(part, columns=columns) for part in files_of(path)])


def count_rows(path: Path) -> int:
    """Returns the number of rows of a table, from its files' footers."""
    return sum(pq.read_metadata(part).num_rows for part in files_of(path))


def arrow_size(path: Path) -> tuple[int, int]:
    """Returns the rows of a table and the bytes of its Arrow data, exactly as `datasets` counts them on loading.

    It reads them in batches as long as a file's first row group (datasets 5.2, packaged_modules/parquet).
    """
    import pyarrow.dataset as pads  # which imports pandas

    rows = size = 0
    for part in files_of(path):
        with part.open("rb") as file:
            fragment = pads.ParquetFileFormat().make_fragment(file)
            if fragment.row_groups:
                batch = max(1, fragment.row_groups[0].num_rows)
                for found in fragment.to_batches(
                    batch_size=batch, batch_readahead=0, fragment_readahead=0, use_threads=False
                ):
                    rows, size = rows + found.num_rows, size + found.nbytes
    return rows, size


def group_bounds(path: Path) -> list[int]:
    """Returns the row numbers at which the row groups of a table begin, and its number of rows."""
    groups = []
    for part in files_of(path):
        metadata = pq.read_metadata(part)
        groups += [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    return [0, *itertools.accumulate(groups)]


def shard_rows(path: Path, index: int, shards: int) -> tuple[int, int]:
    """Returns (start, stop) of the rows of one of several shards of a table.

    Shards are contiguous and about equally long. They begin at a row group if one begins nearby, so that no shard of a
    large table decodes another shard's rows.
    """
    bounds = group_bounds(path)
    total = bounds[-1]

    def place(number: int) -> int:
        even = number * total // shards
        near = min(bounds, key=lambda bound: abs(bound - even))
        return near if abs(near - even) * shards < total * _NEAR and 0 < number < shards else even

    return place(index), place(index + 1)
