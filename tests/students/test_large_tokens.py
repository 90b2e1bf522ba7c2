"""Tables of more than 2^31 tokens, which 32-bit offsets do not reach: what students read of them is right.

All rows but the last are zeros, which the files do not hold: 8.6 GB of tokens take a few MB of disk.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hubkit.records import write_rows
from hubkit.students.rows import TokenRows, open_shard
from hubkit.students.steps import Layout, collate, micro_batches
from hubkit.students.tokens import KEYS, SCHEMA
from hubkit.students.trainer import Rows, Steps

LONG, BATCH, SHARDS = 65_536, 64, 16
ROWS = SHARDS * 2048
LAST = 40
"""Rows with tokens in them, in a file behind the others."""


class Holes:
    """A file in which zeros are not written."""

    def __init__(self, path: Path) -> None:
        self._file, self.closed = path.open("wb"), False

    def write(self, data: Any) -> int:
        if len(data) < 1 << 20:
            self._file.write(data)
        else:
            self._file.seek(len(data), 1)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.truncate()
        self._file.close()
        self.closed = True


def last_rows() -> list[dict[str, Any]]:
    dice = random.Random(0)
    made = []
    for number in range(LAST):
        ids = [dice.randrange(1, 1 << 30) for _ in range(dice.randrange(20, 90))]
        made.append({"id": f"last-{number}", "sample": 0, "input_ids": ids, "trained": [7, len(ids) - 1]})
    return made


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("tokens")
    zeros = pa.array(np.zeros(BATCH * LONG, np.int32))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(0, BATCH * LONG + 1, LONG, dtype=np.int32)), zeros)
    spans = pa.array([[32, LONG]] * BATCH, pa.list_(pa.int32()))
    samples = pa.array([0] * BATCH, pa.int32())
    numbers = itertools.count()
    for shard in range(SHARDS):
        sink = Holes(folder / f"tokens-{shard:05}.arrow")
        with pa.ipc.new_stream(pa.PythonFile(sink, "w"), SCHEMA) as writer:
            for _ in range(ROWS // SHARDS // BATCH):
                ids = pa.array([f"p-{next(numbers)}" for _ in range(BATCH)])
                writer.write_batch(pa.record_batch([ids, samples, lists, spans], schema=SCHEMA))
        sink.close()
    with pa.ipc.new_stream(folder / f"tokens-{SHARDS:05}.arrow", SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(last_rows(), schema=SCHEMA))
    whole = sum(
        batch["input_ids"].flatten().__len__()
        for path in folder.glob("*.arrow")
        for batch in open_shard(path).to_batches()
    )
    assert whole > 1 << 31 and sum(path.stat().st_blocks for path in folder.iterdir()) * 512 < 100e6
    yield folder


def keys(tmp_path: Path, order: list[str]) -> Path:
    write_rows(tmp_path / "rows" / "rows.parquet", [{"id": id, "sample": 0} for id in order], KEYS)
    return tmp_path / "rows"


def labels(row: dict[str, Any], limit: int) -> list[int]:
    start, end = row["trained"]
    ids = row["input_ids"]
    return [*([-100] * start), *ids[start:end], *([-100] * (len(ids) - end))][:limit]


@pytest.mark.slow
@pytest.mark.parametrize("forms", [1, 2])
def test_rows_behind_the_bound_are_read_as_they_are(tokens: Path, tmp_path: Path, forms: int) -> None:
    last = last_rows()
    order = [f"p-{ROWS - 1}", *(row["id"] for row in last), "p-0", *(f"p-{n}" for n in range(1, ROWS - 1))]
    found = TokenRows(tokens, keys(tmp_path, order), None, 1.0, others=[tokens] * (forms - 1))
    assert len(found) == ROWS + LAST and len(found.lengths) == forms * (ROWS + LAST)
    assert sum(found.lengths) == forms * (ROWS * LONG + sum(len(row["input_ids"]) for row in last)) > 1 << 31
    assert sum(found.trained) == forms * (
        ROWS * (LONG - 32) + sum(end - start for start, end in (row["trained"] for row in last))
    )
    for number, row in enumerate(last):
        for form in range(forms):
            place = (1 + number) * forms + form
            wanted = {"input_ids": row["input_ids"], "labels": labels(row, LONG)}
            assert found.dataset[place] == wanted and found.lengths[place] == len(row["input_ids"])
    assert set(found.dataset[0]["input_ids"]) == {0} and len(found.dataset[-1]["input_ids"]) == LONG


@pytest.mark.slow
def test_steps_and_packing_take_rows_behind_the_bound(tokens: Path, tmp_path: Path) -> None:
    last = {row["id"]: row for row in last_rows()}
    order = [*(f"p-{n}" for n in range(ROWS)), *last]
    found = TokenRows(tokens, keys(tmp_path, order), 64, 1.0)
    layout = Layout(packed=True, tokens=200)
    steps = list(Steps(found.lengths, 4, 3, layout, shuffled=True, forms=1))
    assert sorted(i for step in steps for batch in step for i in batch) == list(range(ROWS + LAST))
    seen = 0
    for step in steps:
        if max(i for batch in step for i in batch) < ROWS:
            continue
        for batch in step:
            packed = collate(Rows(found.dataset)[batch], layout, pad=0)
            rows = [last.get(order[i], {"input_ids": [0] * LONG, "trained": [32, LONG]}) for i in batch]
            assert packed["input_ids"].tolist()[0] == [id for row in rows for id in row["input_ids"][:64]]
            assert packed["labels"].tolist()[0] == [
                label for row in rows for label in [-100, *labels(row, 64)[1:]]
            ]
            seen += sum(i >= ROWS for i in batch)
    assert seen == LAST


def test_lengths_of_steps_that_add_up_to_more_are_laid_out() -> None:
    """4,096 rows of a million tokens in one step, over eight processes: the sums are not those of 32 bits."""
    layout = Layout(packed=True, tokens=1 << 32, processes=8)
    dealt = micro_batches([1 << 20] * 4096, layout)
    assert [sum(len(batch) for batch in batches) for batches in dealt] == [512] * 8
    padded = micro_batches([1 << 20] * 4096, Layout(packed=False, tokens=1 << 32))
    assert sorted(i for batch in padded[0] for i in batch) == list(range(4096))
    assert max(len(batch) for batch in padded[0]) == 4096
