"""Problems from files beside the recipe: JSON lines, a JSON list, CSV, TSV, Parquet or Arrow.

    problems.jsonl.gz, line 3: {"question": "1 + 1?", "answer": 2, "audio": "…"}
is a row that errors call "problems.jsonl.gz:3: row 2", rows from 0. Text is UTF-8, with or without a byte order mark,
or UTF-16; other encodings cannot be recognised and are refused. A folder's files, and those of a pattern such as
data/train-*.parquet, are read one after the other in the order of their names. So are the Arrow files of a folder that
`save_to_disk` of datasets wrote; its other files describe them and are no rows.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from hubkit.errors import InputError, RecipeError
from hubkit.problems.base import Description, Pin, beside
from hubkit.problems.columnar import arrow_rows, count_arrow, parquet_rows
from hubkit.problems.rows import Row, RowSource
from hubkit.records import Problem
from hubkit.store import digest, digest_file

__all__ = ["FileSource", "files_of", "is_saved", "read_file"]

_COMPRESSED: Final = (".gz", ".bz2", ".zst", ".lz4")
_MAGIC: Final = {
    b"\x1f\x8b": ".gz",
    b"BZh9": ".bz2",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"\x04\x22\x4d\x18": ".lz4",
}
_PATTERN: Final = re.compile(r"[*?\[]")
_FORMATS: Final = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
"""Endings of the files that are read in a folder; other files, such as README.md, are not read."""


class FileSource(RowSource):
    source: Literal["file"]
    path: str
    """JSON lines, a JSON list, CSV, TSV (all these also compressed: .gz, .bz2, .zst, .lz4), Parquet or Arrow beside the
    recipe: a file, a folder of such files or one of save_to_disk, or a pattern such as data/train-*.parquet."""

    def rows(self, pin: Pin) -> Iterator[Problem]:
        assert pin.path is not None
        return self.problems_of(
            read_file(pin.path, [*self.columns(), *self.more_columns()]), _stem(Path(self.path))
        )

    def describe(self) -> Description:
        alone = not _PATTERN.search(self.path) and any(_format(Path(self.path)) == f for f in _FORMATS)
        return self.described("a file beside the recipe" if alone else "files beside the recipe")

    def pin(self, folder: Path, key: str, commit: Callable[[str, str], str]) -> Pin:
        path = (folder / self.path).absolute()
        if not _PATTERN.search(self.path) and not path.is_dir():
            path = beside(folder, self.path, f"{key}.path", "file")
            return Pin(self.path, "", digest_file(path), path)
        try:
            found = files_of(path)
            named = [(file.name, digest_file(file)) for file in found]
        except OSError as error:
            raise RecipeError(
                f"{key}.path: cannot read {self.path!r}: {error.strerror}", "see the folder"
            ) from None
        except InputError as error:
            raise RecipeError(f"{key}.path: {error.message}", error.remedy) from None
        if not found:
            formats = ", ".join(_FORMATS)
            raise RecipeError(
                f"{key}.path: no file is called {self.path!r}, or lies there", f"files end in {formats}"
            )
        return Pin(self.path, "", digest(named), path)

    def count(self, pin: Pin) -> int | None:
        assert pin.path is not None
        return min(sum(map(_count, files_of(pin.path))), self.limit or sys.maxsize)

    def size(self, pin: Pin) -> int | None:
        """Returns the bytes of all texts at most, cheaply. Returns None for compressed files, where it is unknown."""
        assert pin.path is not None
        sizes = [_size(path) for path in files_of(pin.path)]
        return sum(size for size in sizes if size is not None) if None not in sizes else None


def files_of(path: Path) -> list[Path]:
    """Returns the file itself, the files of a folder, or those that match a pattern, in the order of their names.

    Raises InputError for a folder in which `datasets` saved several splits.
    """
    if path.is_file():
        return [path]
    if (path / "dataset_dict.json").is_file():
        splits = sorted(p.name for p in path.iterdir() if (p / "state.json").is_file())
        raise InputError(
            f"{path.name} holds a dataset's splits {', '.join(splits) or '(none)'}",
            f"name the folder of one of them, such as {path.name}/{next(iter(splits), 'train')}",
        )
    if path.is_dir() and (path / "state.json").is_file():  # of datasets' save_to_disk
        return sorted(path.glob("*.arrow"))
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.is_file() and _format(p) in _FORMATS)
    parts = path.parts
    first = next((place for place, part in enumerate(parts) if _PATTERN.search(part)), len(parts))
    found = Path(*parts[:first]).glob(str(Path(*parts[first:]))) if first < len(parts) else iter(())
    return sorted(p for p in found if p.is_file())


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of datasets."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _stem(path: Path) -> str:
    """Name without compression and format; other dots stay."""
    name = path.name.removesuffix(path.suffix) if path.suffix in _COMPRESSED else path.name
    return Path(name).stem


def _format(path: Path) -> str:
    return (path.with_suffix("") if path.suffix in _COMPRESSED else path).suffix.lower()


def _is_parquet(path: Path) -> bool:
    if _format(path) == ".parquet":
        return True
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _count(path: Path) -> int:
    """Returns the rows of Parquet, by its footer; else the non-empty lines, or the most objects of a JSON list."""
    try:
        if _is_parquet(path):
            with pq.ParquetFile(path) as file:
                return int(file.metadata.num_rows)
        if _format(path) == ".arrow":
            return count_arrow(path)
        with _text(path) as lines:
            first = next((line for line in lines if line.strip()), "")
            if first.lstrip().startswith("["):
                return len(json.loads(first + lines.read()))
            number = sum(1 for line in lines if line.strip()) + bool(first)
            return max(0, number - (_format(path) in (".csv", ".tsv")))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _size(path: Path) -> int | None:
    try:
        if not _is_parquet(path):
            return None if path.suffix in _COMPRESSED else path.stat().st_size
        with pq.ParquetFile(path) as file:
            groups = range(file.metadata.num_row_groups)
            return sum(int(file.metadata.row_group(number).total_byte_size) for number in groups)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> InputError:
    reason = getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(f"{path.name}: cannot be read: {reason}", "check the file")


def _bytes(path: Path) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, pa.input_stream(str(path), compression="detect")))


def read_file(path: Path, columns: list[str] | None) -> Iterator[Row]:
    """Yield the rows of a file, or of all those of `files_of`, in order, with these columns at least; None: all, and
    texts of a JSON list as rows with one column `text`. Raises InputError that names the line or row."""
    for file in files_of(path) or [path]:
        yield from _rows_of(file, columns)


def _rows_of(path: Path, columns: list[str] | None) -> Iterator[Row]:
    try:
        if _is_parquet(path):
            yield from parquet_rows(path, columns)
            return
        if _format(path) == ".arrow":
            yield from arrow_rows(path, columns)
            return
        with _text(path) as text:
            if _format(path) in (".csv", ".tsv"):
                yield from _separated(path, text)
            else:
                yield from _json(path, text, texts=columns is None)
    except (OSError, EOFError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _text(path: Path) -> io.TextIOWrapper:
    with _bytes(path) as file:
        start = file.read(4)
    if ending := next((ending for magic, ending in _MAGIC.items() if start.startswith(magic)), None):
        raise InputError(
            f"{path.name}: compressed, which its name does not say", f"call it {path.name}{ending}"
        )
    # Without a byte order mark, zero bytes show UTF-16 and UTF-32, since JSON starts with ASCII.
    encoding = json.detect_encoding(start)
    if encoding.startswith("utf-8"):
        # A byte that is not UTF-8 becomes half a character, which is found in its line below.
        return io.TextIOWrapper(_bytes(path), encoding="utf-8-sig", errors="surrogateescape", newline="")
    return io.TextIOWrapper(_bytes(path), encoding=encoding, newline="")


def _lines(path: Path, text: Iterable[str], header: int = 0) -> Iterator[tuple[int, str]]:
    """Lines from 1, all of them Unicode. The first `header` of them are no rows."""
    number = 0
    try:
        for number, line in enumerate(text, 1):
            bad = next((c for c in line if "\udc80" <= c <= "\udcff"), None) if not line.isascii() else None
            if bad:
                row = max(0, number - 1 - header)
                raise InputError(
                    f"{path.name}:{number}: row {row}: not UTF-8 (byte 0x{ord(bad) - 0xDC00:02x})",
                    "convert the file: iconv -f latin1 -t utf-8, if that is its encoding",
                )
            yield number, line
    except UnicodeError as error:
        raise InputError(
            f"{path.name}:{number + 1}: row {max(0, number - header)}: not {getattr(error, 'encoding', 'Unicode')}",
            "convert the file to UTF-8",
        ) from error


def _json(path: Path, text: io.TextIOWrapper, texts: bool) -> Iterator[Row]:
    rows = 0
    lines = _lines(path, text)
    for number, line in lines:
        if not line.strip():
            continue
        if not rows and line.lstrip().startswith("["):
            yield from _json_list(path, line + "".join(more for _, more in lines), texts)
            return
        where = f"{path.name}:{number}: row {rows}"
        row = _object(where, line, first=not rows)
        yield Row(where, row)
        rows += 1


def _json_list(path: Path, text: str, texts: bool) -> Iterator[Row]:
    try:
        values = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path.name}:{getattr(error, 'lineno', 1)}: not JSON: {error}", "fix the file"
        ) from error
    for number, value in enumerate(values):
        where = f"{path.name}: row {number}"
        if texts and isinstance(value, str):
            yield Row(where, {"text": value})
            continue
        if not isinstance(value, _Pairs):
            raise InputError(f"{where}: not an object", "a JSON list holds one object for each row")
        yield Row(where, value.as_dict(where))


def _object(where: str, line: str, first: bool) -> dict[str, Any]:
    try:
        value = json.loads(line, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        remedy = "one JSON object a line, or a list of them" if first else "fix the line"
        raise InputError(f"{where}: not JSON: {error}", remedy) from error
    if not isinstance(value, _Pairs):
        raise InputError(f"{where}: not an object", "one JSON object a line")
    return value.as_dict(where)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object before it is a dict, which would silently keep the last of two values for one key."""

    def as_dict(self, where: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in self:
            if name in result:
                raise InputError(f"{where}: column {name!r} appears twice", "keep one of them")
            result[name] = _plain(value, where)
        return result


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, _Pairs):
        return value.as_dict(where)
    return [_plain(item, where) for item in value] if isinstance(value, list) else value


def _separated(path: Path, text: io.TextIOWrapper) -> Iterator[Row]:
    # A cell may hold a whole chat; the module's own limit is 128 KiB.
    csv.field_size_limit(2**27)
    reader = csv.reader(
        (line for _, line in _lines(path, text, header=1)),
        delimiter="\t" if _format(path) == ".tsv" else ",",
        strict=True,
    )
    rows, header = 0, None
    try:
        for cells in reader:
            where = f"{path.name}:{reader.line_num}: row {rows}"
            if not cells:
                continue
            if header is None:
                header = cells
                if twice := sorted({name for name in header if header.count(name) > 1}):
                    raise InputError(f"{path.name}: column {twice[0]!r} appears twice", "rename one of them")
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{where}: {len(cells)} values for {len(header)} columns",
                    "quote values that hold separators",
                )
            yield Row(where, dict(zip(header, cells, strict=True)))
            rows += 1
    except csv.Error as error:
        raise InputError(f"{path.name}:{reader.line_num}: row {rows}: {error}", "fix the line") from error
