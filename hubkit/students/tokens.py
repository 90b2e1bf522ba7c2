"""Tokens of a variant, made once for all students with one tokenizer and template; and the rows that all variants have.

`run`, per variant:
    config {"system": "", "chat_template": "…" where the base has another, "level": {"variable": "reasoning_effort",
    "value": "low"} where a mixture asks for it}, inputs {"data": a variant},
    models {"tokenizer": a base: its tokenizer, config.json and generation_config.json}
    row {"id": "chain_sum-3f2a", "sample": 0, "messages": […]}
    -> tokens-00000.arrow, … (Arrow streams, memory-mapped when they are read):
       {"id": "chain_sum-3f2a", "sample": 0, "input_ids": [151644, …], "trained": [31, 148]}
       rejected.parquet: rows that do not pass the gates, with the reason

    With config {"shard": [1, 4]} it makes the second of four contiguous parts; `join` joins them.

`agree`, over the variants of a teacher:
    config {"max_dropped_share": 0.02}, inputs {"matched": the rows that all variants have, "<variant>": its tokens}
    -> rows.parquet (id, sample): rows whose tokens pass in every variant, in the order that all students read them

`trained` has the positions with a loss, as start, end, start, end, …; 4 bytes per token are stored, and no mask.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from hubkit.errors import GateError
from hubkit.records import REJECTED_SCHEMA, files_of, read_rows, write_rows
from hubkit.store import StepContext
from hubkit.students.gates import Encoder, Failure, gate_error, level_of
from hubkit.students.rows import open_shard
from hubkit.traces.shards import shard_names

__all__ = ["SCHEMA", "VERSION", "agree", "join", "run"]

VERSION: Final = 1
ROWS_PER_SHARD: Final = 2048
"""Rows that a worker takes at a time, 60 MB with 7,600 tokens each; a kill loses at most these."""
ROWS_PER_PROCESS: Final = 512
"""Minimum rows for each process: to start one takes three seconds, in which another tokenises some hundred rows."""
SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("sample", pa.int32()),
        ("input_ids", pa.list_(pa.int32())),
        ("trained", pa.list_(pa.int32())),
    ]
)
KEYS: Final = pa.schema([("id", pa.string()), ("sample", pa.int32())])


@dataclass(frozen=True)
class _Piece:
    """Row groups of one file, which become one shard."""

    number: int
    path: Path
    groups: tuple[int, ...]
    work: Path


def run(context: StepContext) -> None:
    """Tokenise a variant, several rows at the same time; shards that were finished before a kill are kept."""
    pieces = list(_pieces(context.inputs["data"], context.work))
    index, shards = context.config.get("shard", (0, 1))
    pieces = pieces[index * len(pieces) // shards : (index + 1) * len(pieces) // shards]
    total = sum(_rows(piece) for piece in pieces)
    processes = max(1, min(context.runtime["threads"], len(pieces), total // ROWS_PER_PROCESS))
    settings = (
        context.model("tokenizer"),
        context.config.get("chat_template", ""),
        context.config["system"],
        level_of(context.config),
        processes > 1,
    )
    todo = [piece for piece in pieces if not _done(piece).is_file()]
    done = total - sum(_rows(piece) for piece in todo)
    context.progress(done, total)
    if processes == 1:
        _begin(*settings)
        for piece in todo:
            done += _make(piece)
            context.progress(done, total)
    else:
        with multiprocessing.get_context("spawn").Pool(processes, _begin, settings) as pool:
            for made in pool.imap_unordered(_make, todo):
                done += made
                context.progress(done, total)
    rejected: list[dict[str, Any]] = []
    tokens = trained = longest = 0
    for piece in pieces:
        rejected += read_rows(_done(piece))
        _done(piece).unlink()
        shard = _shard(piece).replace(context.out / _shard(piece).name)
        for batch in open_shard(shard).to_batches():
            lengths = batch["input_ids"].value_lengths().to_pylist()
            tokens += sum(lengths)
            longest = max([longest, *lengths])
            for spans in batch["trained"].to_pylist():
                trained += sum(spans[1::2]) - sum(spans[::2])
    context.metrics.update(tokens=tokens, trained_tokens=trained, longest=longest)
    _finish(context, total - len(rejected), rejected)


def join(context: StepContext) -> None:
    """Join all parts: the same files in another folder, as hard links if possible."""
    parts = shard_names(context)
    told = [context.record(name) for name in parts]
    rejected: list[dict[str, Any]] = []
    for number, name in enumerate(parts):
        for shard in sorted(context.inputs[name].glob("tokens-*.arrow")):
            try:
                os.link(shard, context.out / shard.name)
            except OSError:  # another disk, or one without links
                shutil.copyfile(shard, context.out / shard.name)
        rejected += read_rows(context.inputs[name] / "rejected.parquet")
        context.progress(number + 1, len(parts))
    for metric in ("tokens", "trained_tokens"):
        context.metrics[metric] = sum(record.metrics[metric] for record in told)
    context.metrics["longest"] = max(record.metrics["longest"] for record in told)
    _finish(context, sum(record.counts.get("kept", 0) for record in told), rejected)


def _finish(context: StepContext, kept: int, rejected: list[dict[str, Any]]) -> None:
    write_rows(context.out / "rejected.parquet", rejected, REJECTED_SCHEMA)
    context.count("kept", kept)
    for reason, number in Counter(row["reason"] for row in rejected).items():
        context.count(reason, number)
    if not kept and "shard" not in context.config:
        raise _nothing_left(context.step, rejected)


def agree(context: StepContext) -> None:
    """Write rows.parquet. Raises GateError if more rows fail than the recipe allows to drop."""
    matched = [(row["id"], row["sample"]) for row in read_rows(context.inputs["matched"] / "matched.parquet")]
    failed: dict[tuple[str, int], dict[str, Any]] = {}
    for name, folder in sorted(context.inputs.items()):
        if name != "matched":
            for row in read_rows(folder / "rejected.parquet"):
                failed.setdefault((row["id"], row["sample"]), row | {"teacher": name})
    dropped = [failed[key] for key in matched if key in failed]
    share, allowed = len(dropped) / max(1, len(matched)), context.config["max_dropped_share"]
    if len(dropped) == len(matched):
        raise _nothing_left(context.step, dropped)
    if share > allowed:
        first = dropped[0]
        error = gate_error(Failure(first["reason"], first["detail"]))
        raise GateError(
            f"{context.step}: {len(dropped)} of {len(matched)} rows ({share:.1%}) fail the gates of training, and "
            f"students.max_dropped_share is {allowed:.1%}; the first is {first['id']} of {first['teacher']}: "
            f"{error.message}",
            error.remedy,
        )
    kept = [{"id": id_, "sample": sample} for id_, sample in matched if (id_, sample) not in failed]
    context.count("kept", write_rows(context.out / "rows.parquet", kept, KEYS))
    for reason, number in Counter(row["reason"] for row in dropped).items():
        context.count(reason, number)


def _nothing_left(step: str, rejected: Sequence[dict[str, Any]]) -> GateError:
    if not rejected:
        return GateError(f"{step}: there is nothing to train on", "look at the counts of dropped traces")
    first = rejected[0]
    error = gate_error(Failure(first["reason"], first["detail"]))
    return GateError(f"{step}: no row passes; the first: {error.message}", error.remedy)


def _pieces(folder: Path, work: Path) -> Iterator[_Piece]:
    number = 0
    for path in files_of(folder / "data.parquet"):
        with pq.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        groups: list[int] = []
        for group, size in enumerate(sizes):
            if groups and sum(sizes[g] for g in groups) + size > ROWS_PER_SHARD:
                yield _Piece(number, path, tuple(groups), work)
                number, groups = number + 1, []
            groups.append(group)
        if groups:
            yield _Piece(number, path, tuple(groups), work)
            number += 1


def _rows(piece: _Piece) -> int:
    with pq.ParquetFile(piece.path) as file:
        return sum(file.metadata.row_group(group).num_rows for group in piece.groups)


def _shard(piece: _Piece) -> Path:
    return piece.work / f"tokens-{piece.number:05}.arrow"


def _done(piece: _Piece) -> Path:
    """Path of the file that is written after the shard, and so marks it as complete."""
    return piece.work / f"rejected-{piece.number:05}.parquet"


_ENCODER: Encoder
_HEAD: list[dict[str, str]]


def _begin(folder: Path, chat_template: str, system: str, level: dict[str, str], child: bool) -> None:
    """Make a process ready for `_make`."""
    global _ENCODER, _HEAD
    if child:
        from hubkit.executors.call import prepare_process

        prepare_process()
    _ENCODER = Encoder(folder, chat_template, level)
    _HEAD = [{"role": "system", "content": system}] if system else []


def _make(piece: _Piece) -> int:
    """Write a shard and its rejected rows. Returns the number of rows."""
    rejected, number = [], 0
    temporary = _shard(piece).with_suffix(f".{os.getpid()}.tmp")
    with pq.ParquetFile(piece.path) as file, pa.ipc.new_stream(temporary, SCHEMA) as writer:
        for batch in file.iter_batches(64, row_groups=piece.groups, columns=["id", "sample", "messages"]):
            made = []
            for row in batch.to_pylist():
                number += 1
                key = {"id": row["id"], "sample": row["sample"]}
                example = _ENCODER.encode([*_HEAD, *row["messages"]])
                if isinstance(example, Failure):
                    told = {"teacher": "", "reason": example.reason, "detail": example.detail, "text": ""}
                    rejected.append(key | told)
                else:
                    made.append(key | {"input_ids": example.input_ids, "trained": example.trained})
            writer.write_batch(pa.RecordBatch.from_pylist(made, schema=SCHEMA))
    temporary.replace(_shard(piece))
    write_rows(_done(piece), rejected, REJECTED_SCHEMA)
    return number
