"""Training data of a student: the tokens of `tokens.py`, memory-mapped, in the order that all students share."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hubkit.errors import StepError
from hubkit.records import read_rows
from hubkit.students.gates import check_cut

__all__ = ["TokenRows", "open_shard"]


def open_shard(shard: Path) -> pa.Table:
    """Rows of one file of tokens, without reading it into memory."""
    return pa.ipc.open_stream(pa.memory_map(str(shard))).read_all()


class TokenRows:
    """The rows that a student trains on, in the order of rows.parquet, memory-mapped and read on access.

    `others` are folders with tokens of the same rows in other forms, for a mixture: all forms of a row are then
    consecutive, and everything below is about row 0 in its first form, row 0 in its second, ….
    `dataset` is a `datasets.Dataset` of {"input_ids", "labels"}, cut at max_length; labels are -100 where no loss
    counts. `lengths` and `trained` are, per row, the tokens and the trained tokens after the cut.
    """

    def __init__(
        self,
        tokens: Path,
        rows: Path,
        max_length: int | None,
        max_cut_share: float,
        others: Sequence[Path] = (),
    ) -> None:
        import datasets
        import numpy as np

        self.forms = 1 + len(others)
        shards = [shard for folder in (tokens, *others) for shard in sorted(folder.glob("tokens-*.arrow"))]
        table = pa.concat_tables([open_shard(shard) for shard in shards])
        wanted = [(row["id"], row["sample"]) for row in read_rows(rows / "rows.parquet")]
        order = _order(table, wanted, [_count(folder) for folder in (tokens, *others)])
        whole = np.concatenate([chunk.value_lengths() for chunk in table["input_ids"].chunks])
        spans = [found for chunk in table["trained"].chunks for found in chunk.to_pylist()]
        limit = int(whole.max()) if max_length is None else max_length
        self.cut_share = check_cut(
            [int(whole[i]) for i in order], [spans[i][0] for i in order], limit, max_cut_share
        )
        self.lengths = [min(int(whole[i]), limit) for i in order]
        self.trained = [
            sum(
                max(0, min(end, limit) - start)
                for start, end in zip(spans[i][::2], spans[i][1::2], strict=True)
            )
            for i in order
        ]
        mapped = datasets.concatenate_datasets([datasets.Dataset.from_file(str(shard)) for shard in shards])
        columns = mapped.select_columns(["input_ids", "trained"]).select(order)
        self.dataset = columns.with_transform(functools.partial(_labelled, limit))

    def __len__(self) -> int:
        """Number of rows, each counted once whatever its forms."""
        return len(self.lengths) // self.forms


def _count(folder: Path) -> int:
    return sum(open_shard(shard).num_rows for shard in folder.glob("tokens-*.arrow"))


def _order(table: pa.Table, wanted: Sequence[tuple[str, int]], counts: Sequence[int]) -> list[int]:
    """Returns the index of each required row in a table of several forms of `counts` rows each: all forms of a row,
    then the next row."""
    ids, samples, start = table["id"].to_pylist(), table["sample"].to_pylist(), 0
    forms = []
    for count in counts:
        own = range(start, start + count)
        places = {(ids[place], samples[place]): place for place in own}
        missing = sum(key not in places for key in wanted)
        if missing:
            raise StepError(f"{missing} rows have no tokens", "rerun the variant and its tokens")
        forms.append([places[key] for key in wanted])
        start += count
    return [place for row in zip(*forms, strict=True) for place in row]


def _labelled(limit: int, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Yield rows in the trainer's form."""
    made: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    for ids, spans in zip(batch["input_ids"], batch["trained"], strict=True):
        labels = [-100] * len(ids)
        for start, end in zip(spans[::2], spans[1::2], strict=True):
            labels[start:end] = ids[start:end]
        made["input_ids"].append(ids[:limit])
        made["labels"].append(labels[:limit])
    return made
