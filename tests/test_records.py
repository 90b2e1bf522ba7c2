"""Tables: one file or many, read back the same; sizes as `datasets` counts them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hubkit import records
from hubkit.errors import InputError
from hubkit.records import (
    RowWriter,
    arrow_size,
    count_rows,
    files_of,
    messages_of,
    read_batches,
    read_rows,
    read_table,
    shard_rows,
    split_files,
    write_rows,
)
from hubkit.traces.variants import VARIANTS

SCHEMA = VARIANTS["compressed"].schema


def rows(number: int) -> list[dict[str, Any]]:
    """Rows of uneven length, with nulls in text, numbers and truth values."""
    chance = random.Random(number)
    made = []
    for i in range(number):
        reasoning = " ".join(str(chance.randint(0, 999)) for _ in range(chance.randint(1, 400)))
        row: dict[str, Any] = dict.fromkeys(SCHEMA.names, "x")
        row |= {
            "id": f"p-{i}",
            "sample": i % 3,
            "answer": None if i % 7 == 0 else "1",
            "correct": None if i % 5 == 0 else True,
            "messages": messages_of("p", reasoning, "s"),
            "reasoning": reasoning,
            "reasoning_chars": len(reasoning),
            "reasoning_tokens": i,
            "raw_reasoning_chars": len(reasoning),
            "raw_reasoning_tokens": i + 1,
            "ratio": i / (i + 1),
        }
        made.append(row)
    return made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of 64 kB, the first of 16, and files of four of them, so that a few rows make many."""
    monkeypatch.setattr(records, "FIRST_BYTES", 16_000)
    monkeypatch.setattr(records, "GROUP_BYTES", 64_000)
    monkeypatch.setattr(records, "FILE_BYTES", 280_000)


def test_a_small_table_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    assert write_rows(path, rows(300), SCHEMA) == 300
    assert [file.name for file in tmp_path.iterdir()] == ["data.parquet"]
    assert list(read_rows(path)) == rows(300)
    assert list(split_files("data/raw/train", path)) == ["data/raw/train-00000-of-00001.parquet"]


def test_groups_are_as_small_as_one_reader_needs(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    write_rows(path, rows(300), SCHEMA, group_bytes=20_000)
    table = pq.ParquetFile(path)
    sizes = [table.read_row_group(number).nbytes for number in range(table.num_row_groups)]
    assert len(sizes) > 3 and max(sizes) <= 20_000 * 1.25
    assert list(read_rows(path)) == rows(300)


@pytest.mark.usefixtures("small")
def test_a_large_table_is_many_files_of_bounded_groups(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    write_rows(path, rows(1500), SCHEMA)
    files = files_of(path)
    assert len(files) > 5
    assert files[1].name == f"data-00001-of-{len(files):05}.parquet"
    assert sorted(tmp_path.iterdir()) == files  # nothing else is left
    # Who streams the table waits for its first group.
    assert pq.ParquetFile(files[0]).read_row_group(0).nbytes <= 16_000 * 1.25
    for file in files:
        table = pq.ParquetFile(file)
        groups = [table.read_row_group(i).nbytes for i in range(table.num_row_groups)]
        assert max(groups) <= 64_000 * 1.25
        assert sum(groups) <= 280_000 * 1.1
        assert table.metadata.row_group(0).column(0).has_offset_index  # the page index
        footer = table.metadata.metadata[b"content_defined_chunking"]
        assert json.loads(footer) == records.CHUNKING
    assert list(read_rows(path)) == rows(1500)
    assert count_rows(path) == 1500
    assert read_table(path, ["id"])["id"].to_pylist() == [row["id"] for row in rows(1500)]
    assert list(split_files("train", path).values()) == files


@pytest.mark.usefixtures("small")
def test_any_range_of_rows_is_read_alone(tmp_path: Path) -> None:
    path, whole = tmp_path / "data.parquet", rows(700)
    write_rows(path, whole, SCHEMA)
    for start, stop in [(0, 1), (0, None), (699, None), (3, 650), (120, 121), (350, 350), (10, 9999)]:
        found = list(read_rows(path, batch=17, columns=["id", "sample"], start=start, stop=stop))
        assert found == [{"id": row["id"], "sample": row["sample"]} for row in whole[start:stop]]
    shards = [shard_rows(path, index, 3) for index in range(3)]
    assert shards[0][0] == 0
    assert shards[-1][1] == 700
    assert [stop for _, stop in shards[:-1]] == [start for start, _ in shards[1:]]
    starts = {0}
    for file in files_of(path):
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            starts.add(max(starts) + metadata.row_group(group).num_rows)
    # No shard decodes rows of another's: each begins where a row group does.
    assert {start for start, _ in shards} <= starts
    assert shard_rows(path, 0, 1) == (0, 700)


def test_few_rows_are_divided_evenly(tmp_path: Path) -> None:
    write_rows(tmp_path / "data.parquet", rows(10), SCHEMA)
    bounds = [shard_rows(tmp_path / "data.parquet", index, 4) for index in range(4)]
    assert bounds == [(0, 2), (2, 5), (5, 7), (7, 10)]


@pytest.mark.usefixtures("small")
def test_arrow_data_is_copied_without_change(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", rows(500), SCHEMA)
    with RowWriter(tmp_path / "b.parquet", SCHEMA) as writer:
        for batch in read_batches(tmp_path / "a.parquet"):
            writer.add_batch(batch)
    assert writer.rows == 500
    assert list(read_rows(tmp_path / "b.parquet")) == rows(500)


@pytest.mark.usefixtures("small")
def test_a_missing_part_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    write_rows(path, rows(500), SCHEMA)
    files_of(path)[1].unlink()
    with pytest.raises(InputError, match="parts are missing"):
        list(read_rows(path))
    with pytest.raises(InputError, match="no such file"):
        count_rows(tmp_path / "other.parquet")


@pytest.mark.usefixtures("small")
def test_a_table_written_again_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    for number in (500, 10, 900):
        write_rows(path, rows(number), SCHEMA)
        assert count_rows(path) == number
    with pytest.raises(ZeroDivisionError), RowWriter(path, SCHEMA):
        raise ZeroDivisionError  # a writer that is left by an error puts nothing in place
    with pytest.raises(InputError):
        files_of(path)


def test_one_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    schema = SCHEMA.with_metadata({"hubkit_schema_version": "1"})
    with pq.ParquetWriter(
        tmp_path / "data.parquet", schema, compression="zstd", use_content_defined_chunking=True
    ) as file:
        for start in (0, 100):
            file.write_table(pa.Table.from_pylist(rows(200)[start : start + 100], schema=schema))
    assert list(read_rows(tmp_path / "data.parquet")) == rows(200)
    assert shard_rows(tmp_path / "data.parquet", 1, 2) == (100, 200)


@pytest.mark.parametrize("number", [1, 60, 1500])
@pytest.mark.usefixtures("small")
def test_sizes_are_those_of_datasets_own_builder(tmp_path: Path, number: int) -> None:
    import datasets

    path = tmp_path / "data.parquet"
    write_rows(path, rows(number), SCHEMA)
    files = [str(file) for file in files_of(path)]
    builder = datasets.load_dataset_builder(
        "parquet", data_files={"train": files}, cache_dir=str(tmp_path / "cache")
    )
    builder.download_and_prepare()
    split = builder.info.splits["train"]
    assert arrow_size(path) == (split.num_examples, split.num_bytes)
