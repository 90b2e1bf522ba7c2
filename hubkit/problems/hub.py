"""Problems from a dataset on the Hub, at a commit.

    {"source": "hub", "dataset": "openai/gsm8k", "config": "main", "split": "train", "problem": "question"}
streams that split; columns that are not named are never decoded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from hubkit.errors import HubkitError, InputError
from hubkit.problems.base import Description, Pin
from hubkit.problems.rows import Row, RowSource
from hubkit.records import Problem

__all__ = ["Held", "HubSource", "dataset_card", "split_held", "stream_dataset"]

_FOOTER: Final = 1 << 16
"""Bytes at the end of a Parquet file that are fetched first; the rest of a longer footer is fetched after that."""

_FILES: Final = 256
"""Maximum number of files whose footers are fetched, with one or two requests each."""


class HubSource(RowSource):
    source: Literal["hub"]
    dataset: str
    """Hub id: org/name."""
    revision: str = ""
    """Branch, tag or commit, which is resolved to a commit once. Empty: the default branch."""
    config: str | None = None
    """Config of the dataset. Unset: its default."""
    split: str = "train"

    def rows(self, pin: Pin) -> Iterator[Problem]:
        return self.problems_of(
            stream_dataset(
                self.dataset, self.config, self.split, pin.revision, self.columns(), self.more_columns()
            ),
            self.dataset,
        )

    def describe(self) -> Description:
        return self.described(f"{self.dataset}, split {self.split}", self.dataset)

    def pin(self, folder: Path, key: str, commit: Callable[[str, str], str]) -> Pin:
        sha = commit(self.dataset, self.revision)
        return Pin(self.dataset, sha, sha)

    def count(self, pin: Pin) -> int | None:
        known = split_held(self.dataset, pin.revision, self.config, self.split).rows
        return min((n for n in (known, self.limit) if n is not None), default=None)


def stream_dataset(
    dataset: str,
    config: str | None,
    split: str,
    revision: str,
    columns: list[str] | None,
    if_there: Collection[str] = (),
) -> Iterator[Row]:
    """Yield the rows of a split in order, with these columns only: an image that cannot be decoded does not matter if
    nobody asks for it. None: all. `if_there` are read where the dataset has them.

    Raises InputError for a column that is not there and for whatever stops the reading.
    """
    import datasets

    where = dataset
    try:
        stream: Any = datasets.load_dataset(dataset, config, split=split, revision=revision, streaming=True)
        names = stream.column_names or list(next(iter(stream), {}))
        asked = names if columns is None else columns
        needed = [n for n in names if any(c == n or c.startswith(f"{n}.") for c in asked)]
        needed += [n for n in names if n in if_there and n not in needed]
        missing = [c for c in asked if c not in needed and c.partition(".")[0] not in needed]
        if missing:
            raise InputError(f"{where}: no column {missing[0]!r}", f"its columns are {', '.join(names)}")
        stream = stream.select_columns(needed)
        classes = {
            name: feature
            for name, feature in (stream.features or {}).items()
            if isinstance(feature, datasets.ClassLabel)
        }
        where = f"{dataset}: row 0"
        for number, row in enumerate(stream, 1):
            # A class is stored as a number, -1 for none; its name is what people mean.
            for name, feature in classes.items():
                value = row[name]
                row[name] = None if value in (None, -1) else feature.int2str(value)
            yield Row(where, row)
            where = f"{dataset}: row {number}"
    except HubkitError:
        raise
    # What the Hub, formats and decoders raise has no common base.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{where} cannot be read: {reason}", "check dataset, config, split and columns on its page"
        ) from error


@dataclass(frozen=True)
class Held:
    """The size of a split; None where it is unknown."""

    rows: int | None = None
    bytes: int | None = None
    """Of Arrow data, in all columns."""


def dataset_card(dataset: str, revision: str) -> dict[str, Any]:
    """Returns the YAML of a dataset's card; {} if there is none, or the Hub cannot be reached."""
    return _card(dataset, revision) or {}


@functools.cache
def _card(dataset: str, revision: str) -> dict[str, Any] | None:
    """Returns None if the Hub cannot be reached, or does not show this dataset."""
    from hubkit.errors import HubError
    from hubkit.hub import attempt, default_access

    access = default_access()
    try:
        info: Any = attempt(
            access,
            f"look up {dataset}",
            lambda: access.api().dataset_info(dataset, revision=revision),
            patient=False,
        )
    except HubError:
        return None
    return info.card_data.to_dict() if info.card_data else {}


@functools.cache
def split_held(dataset: str, revision: str, config: str | None, split: str) -> Held:
    """Returns the size of a split by the dataset's card, else by the Hub's viewer or the footers of its Parquet files.
    All is None if the Hub cannot be reached, or for other files whose rows nobody has counted."""
    card = _card(dataset, revision)
    if card is None:
        return Held()
    told = card.get("dataset_info") or []
    entries = told if isinstance(told, list) else [told]
    for entry in entries:
        if (config is None and len(entries) == 1) or entry.get("config_name", "default") == (
            config or "default"
        ):
            for one in entry.get("splits") or []:
                if one.get("name") == split and isinstance(one.get("num_examples"), int):
                    size = one.get("num_bytes")
                    return Held(one["num_examples"], int(size) if isinstance(size, int | float) else None)
    return _looked_at(dataset, revision, config, split)


def _looked_at(dataset: str, revision: str, config: str | None, split: str) -> Held:
    import datasets
    import pyarrow.parquet as pq
    from huggingface_hub import HfFileSystem

    from hubkit.hub import default_access

    access = default_access()
    files_there = HfFileSystem(endpoint=access.endpoint, token=access.token or False)

    def footer(url: str) -> tuple[int, int]:
        with files_there.open(url, "rb", block_size=_FOOTER) as file:
            metadata = pq.read_metadata(file)
        return metadata.num_rows, sum(
            metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)
        )

    # What the Hub and the formats raise has no common base; the step that reads the dataset tells what is wrong.
    try:
        builder: Any = datasets.load_dataset_builder(dataset, config, revision=revision)
        known = (builder.info.splits or {}).get(split)
        if known is not None and known.num_examples:
            return Held(known.num_examples, known.num_bytes or None)
        files = [str(file) for file in (builder.config.data_files or {}).get(split, ())]
        if not 0 < len(files) <= _FILES or not all(file.endswith(".parquet") for file in files):
            return Held()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(footer, files))
    except Exception:
        return Held()
    return Held(sum(rows for rows, _ in found), sum(size for _, size in found))
