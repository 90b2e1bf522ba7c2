"""Rows of a dataset's configs and data files, for people to look at.

card    configs: [{config_name: raw, data_files: [{split: train, path: data/raw/*.parquet}], default: true}]
gives   {"raw": {"train": ["data/raw/train-00000.parquet", …]}}, default "raw"
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pathspec

__all__ = ["ENDINGS", "PAGE", "Configs", "Rows", "configs_of", "read_rows"]

ENDINGS: Final = (".parquet", ".jsonl", ".csv")
PAGE: Final = 20
"""Rows on one page."""
_MOST_COLUMNS: Final = 40
_MOST_CONFIGS: Final = 100
_LONGEST_CELL: Final = 4000
"""Characters of a cell that are shown when it is opened."""
_LONGEST_LINE: Final = 1 << 20
_LARGEST_GROUP: Final = 256 << 20
"""Bytes a Parquet row group may unpack to: reading starts with one."""
_MOST_LINES: Final = 100_000
"""Lines of text files that are skipped for a later page."""

Configs = dict[str, dict[str, list[str]]]
"""Config to split to the paths of its files."""


@dataclass
class Rows:
    columns: list[tuple[str, str]] = field(default_factory=list)
    """Name and type."""
    rows: list[list[str]] = field(default_factory=list)
    total: int | None = None
    """Rows of all files; None if that is only known after reading them all."""
    more: bool = False
    """Whether rows follow."""
    why: str = ""
    """Why there are no rows to show."""


# Configs


def configs_of(card: dict[str, Any], paths: list[str]) -> tuple[Configs, str]:
    """A dataset's configs and the name of the default one. Without any in its card, all data files are one."""
    data = sorted(path for path in paths if path.endswith(ENDINGS))
    configs: Configs = {}
    default = ""
    listed = card.get("configs")
    for config in (listed if isinstance(listed, list) else [])[:_MOST_CONFIGS]:
        if not isinstance(config, dict) or not isinstance(config.get("config_name"), str):
            continue
        name = config["config_name"]
        folder = config.get("data_dir")
        inside = f"{folder.strip('/')}/" if isinstance(folder, str) and folder.strip("./") else ""
        splits = {
            split: [path for path in _matching(patterns, inside, data) if path.startswith(inside)]
            for split, patterns in _patterns(config.get("data_files")).items()
        }
        configs[name] = {split: found for split, found in splits.items() if found}
        if config.get("default") is True or (name == "default" and not default):
            default = name
    if not configs:
        return ({"default": {"train": data}} if data else {}), "default"
    return configs, default or next(iter(configs))


def _patterns(files: Any) -> dict[str, list[str]]:
    """Split to patterns, from the ways in which cards write them."""
    if files is None:
        return {"train": ["**"]}
    if isinstance(files, dict):
        return {str(split): _texts(paths) for split, paths in files.items()}
    splits: dict[str, list[str]] = {}
    for item in files if isinstance(files, list) else [files]:
        if isinstance(item, dict):
            splits.setdefault(str(item.get("split") or "train"), []).extend(_texts(item.get("path")))
        else:
            splits.setdefault("train", []).extend(_texts(item))
    return splits


def _texts(value: Any) -> list[str]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _matching(patterns: list[str], inside: str, paths: list[str]) -> list[str]:
    # Anchored by the slash; a pattern is one line, whatever is in it.
    lines = [
        "/" + inside + " ".join(pattern.split("\n")).removeprefix("./").lstrip("/") for pattern in patterns
    ]
    try:
        spec = pathspec.PathSpec.from_lines("gitignore", lines)
    except ValueError:  # a malformed pattern matches nothing
        return []
    return list(spec.match_files(paths))


# Rows


def read_rows(files: list[Path], endings: list[str], first: int = 0) -> Rows:
    """One page of rows, from number `first` on. The files may be anything: `why` says what cannot be read."""
    try:
        if endings and all(ending == ".parquet" for ending in endings):
            return _parquet(files, first)
        return _lines(files, endings, first)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        return Rows(why=f"This file cannot be read: {str(error)[:200]}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_CELL else text[:_LONGEST_CELL] + "…"


def _parquet(files: list[Path], first: int) -> Rows:
    """Only the row groups that the page lies in are unpacked."""
    import pyarrow.parquet as pq

    found = Rows(total=0)
    skip = first
    for path in files:
        with pq.ParquetFile(path) as file:
            if not found.columns:
                schema = file.schema_arrow
                names = schema.names[:_MOST_COLUMNS]
                found.columns = [(str(name), str(schema.field(name).type)[:60]) for name in names]
            assert found.total is not None
            found.total += file.metadata.num_rows
            here = [name for name, _ in found.columns if name in file.schema_arrow.names]
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                if skip >= group.num_rows or len(found.rows) == PAGE:
                    skip = max(0, skip - group.num_rows)
                    continue
                if group.total_byte_size > _LARGEST_GROUP:
                    return Rows(found.columns, why="Its row groups are too large to look into.")
                for batch in file.iter_batches(256, row_groups=[number], columns=here):
                    part = batch.slice(min(skip, len(batch)), PAGE - len(found.rows))
                    skip = max(0, skip - len(batch))
                    found.rows += [
                        [_cell(row.get(name)) for name, _ in found.columns] for row in part.to_pylist()
                    ]
                    if len(found.rows) == PAGE:
                        break
    found.more = first + len(found.rows) < (found.total or 0)
    return found


def _lines(files: list[Path], endings: list[str], first: int) -> Rows:
    """JSON Lines and CSV: earlier rows are read over."""
    if first > _MOST_LINES:
        return Rows(why=f"Only the first {_MOST_LINES:,} rows of text files are shown.")
    columns: list[str] = []
    rows = islice(_records(files, endings, columns), first, first + PAGE + 1)
    read = list(rows)
    names = (columns or list(dict.fromkeys(name for row in read for name in row)))[:_MOST_COLUMNS]
    shown = [[_cell(row.get(name)) for name in names] for row in read[:PAGE]]
    return Rows([(name, "") for name in names], shown, more=len(read) > PAGE)


def _records(files: list[Path], endings: list[str], columns: list[str]) -> Iterator[dict[str, Any]]:
    for path, ending in zip(files, endings, strict=True):
        with path.open(encoding="utf-8", newline="") as file:
            lines = iter(lambda file=file: file.readline(_LONGEST_LINE), "")  # type: ignore[misc]
            if ending == ".csv":
                cells = csv.reader(lines)
                header = next(cells, [])[:_MOST_COLUMNS]
                columns[:] = columns or header
                yield from (dict(zip(header, row, strict=False)) for row in cells)
                continue
            for line in lines:
                if not line.strip():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("its lines are not JSON objects")
                yield record
