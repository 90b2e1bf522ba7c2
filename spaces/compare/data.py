"""What a release published: results, outputs of students, traces.

outputs  {"student": "s-raw-full", "id": "p7", "problem": "47 + 38 = ?", "output": "<think>…</think>85", …}
raw      {"id": "p7", "sample": 0, "reasoning": "I add the tens: …", "reasoning_tokens": 212, …}
    -> matrices of problems x students for what is searched and sorted; texts stay in their Parquet files
"""

from __future__ import annotations

import functools
import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Row = dict[str, Any]

GREY = "#7d8590"
"""Of bases, and of what release.json does not say."""


def settings() -> Row:
    """release.json, as publishing wrote it; HUBKIT_EVALS alone is enough to read evaluations."""
    path = Path(os.environ.get("HUBKIT_RELEASE") or Path(__file__).with_name("release.json"))
    found: Row = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    name = os.environ.get("HUBKIT_EVALS")
    if name and name != found.get("evals"):
        found = {"evals": name}
    if not found.get("evals"):
        raise SystemExit(
            "no evaluations to show: set HUBKIT_EVALS=org/name-evals, or put release.json beside app.py"
        )
    return found


def variant_table(release: Row, results: Iterable[Row]) -> dict[str, Row]:
    """Variant name -> its kind, colour and label, as release.json says; bases stand under "base".

    A Space that is given the evaluations alone takes kinds from their rows, and shows them without their colours.
    """
    table: dict[str, Row] = {row["name"]: dict(row) for row in release.get("variants", [])}
    for row in results:
        name = row["variant"] or "base"
        kind = row.get("kind") or name
        label = row["variant"] or "untrained"
        own = {"name": name, "kind": kind, "compressor": row.get("compressor"), "label": label}
        table.setdefault(name, own | {"colour": GREY})
    kinds = [row["kind"] for row in table.values()]
    for row in table.values():
        if kinds.count(row["kind"]) == 1 and row["kind"] != "base":
            row["label"] = row["kind"]
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", str(row.get("colour"))):
            row["colour"] = GREY
        row.setdefault("compressed", row["kind"] == "compressed")
    return table


def called(row: Row) -> str:
    """Whose output it is: a student of a mixture is asked at each of its levels of effort."""
    return f"{row['student']} at {row['level']}" if row.get("level") else str(row["student"])


def file_of(repo: str, revision: str | None, name: str) -> bytes | None:
    """A small file of a dataset; None where it is not there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision)).read_bytes()
    except EntryNotFoundError:
        return None


def configs_of(repo: str, revision: str | None, order: tuple[str, ...]) -> list[str]:
    """Names of the configs of a dataset that hubkit published, in this order as far as it goes."""
    from huggingface_hub import HfApi

    names = HfApi().list_repo_files(repo, repo_type="dataset", revision=revision)
    found = {n.split("/")[1] for n in names if n.startswith("data/") and n.count("/") == 2}
    return sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))


SMALL = 4 << 20
"""Bytes of a row group that is kept for a while: who looks at one problem goes to the next, whose rows are beside it.
Answers are published in such; a group of traces may have 64 MiB."""


def row_group(path: Path, number: int, columns: tuple[str, ...] | None) -> Any:
    with pq.ParquetFile(path) as file:
        return file.read_row_group(number, columns=columns)


small_row_group = functools.lru_cache(maxsize=64)(row_group)


class Table:
    """One config of a dataset, in the Parquet files it was published in: columns as a whole, rows when asked for.

    A row is read with its row group: milliseconds, and no memory while nobody looks.
    """

    def __init__(self, repo: str, config: str, revision: str | None) -> None:
        from huggingface_hub import snapshot_download

        pattern = f"data/{config}/*.parquet"
        folder = snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=[pattern])
        self.paths = sorted(Path(folder).glob(pattern))
        if not self.paths:
            raise FileNotFoundError(f"{repo} has no data/{config}: is it a dataset that hubkit published?")
        self.about = [pq.read_metadata(path) for path in self.paths]
        self.groups = [(f, g) for f, about in enumerate(self.about) for g in range(about.num_row_groups)]
        ends = np.cumsum([self.about[f].row_group(g).num_rows for f, g in self.groups], dtype=np.int64)
        self.starts = [0, *(int(end) for end in ends)]

    def __len__(self) -> int:
        return self.starts[-1]

    def column(self, name: str) -> Any:
        """An Arrow array of all rows."""
        parts = [pq.read_table(path, columns=[name], partitioning=None)[name] for path in self.paths]
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks]).combine_chunks()

    def rows(self, numbers: Iterable[int], columns: list[str] | None = None) -> list[Row]:
        """Rows by their numbers, in that order."""
        wanted: dict[int, list[int]] = {}
        numbers = [int(number) for number in numbers]
        for number in numbers:
            wanted.setdefault(bisect_right(self.starts, number) - 1, []).append(number)
        found: dict[int, Row] = {}
        for group, inside in wanted.items():
            file, at = self.groups[group]
            small = self.about[file].row_group(at).total_byte_size <= SMALL
            read = small_row_group if small else row_group
            table = read(self.paths[file], at, columns and tuple(columns))
            offsets = [number - self.starts[group] for number in inside]
            found |= dict(zip(inside, table.take(offsets).to_pylist(), strict=True))
        return [found[number] for number in numbers]


@dataclass
class Answers:
    """An answer of each student to each problem: matrices of problems x students."""

    there: Any
    correct: Any
    """False where there is none."""
    tokens: Any


class Evaluations:
    """What every student answered: small columns as matrices of problems x students, texts on disk."""

    def __init__(self, release: Row) -> None:
        evals, revision = release["evals"], release.get("revision")
        self.table = Table(evals, "outputs", revision)
        results = Table(evals, "results", revision)
        self.results: list[Row] = results.rows(range(len(results)))
        self.report: Row = json.loads(file_of(evals, revision, "results.json") or "{}")
        self.figures = {
            name: found
            for name in ("light", "dark", "light-narrow", "dark-narrow")
            if (found := file_of(evals, revision, f"tradeoff-{name}.svg"))
        }
        self.students: dict[str, Row] = {}
        for row in self.results:
            self.students.setdefault(called(row), row)
        self.names = list(self.students)
        self.variants = variant_table(release, self.students.values())

        column = self.table.column
        encoded = pc.binary_join_element_wise(column("benchmark"), column("id"), "/").dictionary_encode()
        self.keys: list[str] = encoded.dictionary.to_pylist()
        problem = encoded.indices.to_numpy()
        place = {name: number for number, name in enumerate(self.names)}
        who = column("student")
        if "level" in self.table.about[0].schema.names:  # null where there is none
            who = pc.coalesce(pc.binary_join_element_wise(who, column("level"), " at "), who)
        known = who.dictionary_encode()
        of = np.array([place.get(name, -1) for name in known.dictionary.to_pylist()])
        student = of[known.indices.to_numpy()]
        sample = np.zeros(len(problem), np.int64)
        if "sample" in self.table.about[0].schema.names:
            sample = pc.fill_null(column("sample"), 0).to_numpy()
        shape = (len(self.keys), len(self.names))
        # The answers of one student to one problem lie together, in the order they were drawn in.
        self._order = np.lexsort((sample, student, problem))
        self._order = self._order[student[self._order] >= 0]
        cell = (problem * len(self.names) + student)[self._order]
        self.many = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int32)
        """Answers of a student to a problem."""
        self._begin = (np.cumsum(self.many) - self.many.ravel()).reshape(shape)
        self._correct = pc.fill_null(column("correct"), False).to_numpy(zero_copy_only=False)[self._order]
        self._tokens = column("output_tokens").to_numpy().astype(np.int32)[self._order]
        self.right = np.bincount(cell[self._correct], minlength=shape[0] * shape[1]).reshape(shape)
        """How many of them are right."""
        self._first_answers = self._answers(0)
        # A problem's first row: outputs of one problem share its text.
        _, self.first = np.unique(problem, return_index=True)
        self.texts = pa.array(
            [row["problem"] for row in self.table.rows(self.first, ["problem"])], pa.string()
        )
        alike = os.path.commonprefix(  # noqa: RUF071 (character by character is meant)
            [" ".join(text.split()) for text in self.texts.to_pylist()]
        )
        self.prefix = len(alike.rpartition(" ")[0]) + 1 if len(alike) > 20 and len(self.texts) > 1 else 0
        self.benchmark = [key.partition("/")[0] for key in self.keys]
        self.at = {key: number for number, key in enumerate(self.keys)}

    def brief(self, text: str) -> str:
        """A problem in one line, without the words that all problems begin with."""
        cut = " ".join(text.split())
        return "… " + cut[self.prefix :] if self.prefix and len(cut) > self.prefix else cut

    def variant(self, student: int) -> Row:
        return self.variants[self.students[self.names[student]]["variant"] or "base"]

    def groups(self, students: list[int]) -> list[list[int]]:
        """Students that differ in the variant alone, together."""
        found: dict[tuple[Any, ...], list[int]] = {}
        for number in students:
            row = self.students[self.names[number]]
            key = tuple(row[name] for name in ("teacher", "base", "method", "seed"))
            found.setdefault(key, []).append(number)
        return list(found.values())

    def pairs(self, students: list[int]) -> list[tuple[int, int]]:
        """(raw, compressed) students that differ in nothing else."""
        return [
            (raw, other)
            for group in self.groups(students)
            for raw in group
            if self.variant(raw)["kind"] == "raw"
            for other in group
            if self.variant(other)["compressed"]
        ]

    def answers(self, number: int) -> Answers:
        """The answers of this number, from 0: of several to a problem one is looked at at a time."""
        return self._answers(number) if number else self._first_answers

    def _answers(self, number: int) -> Answers:
        there = self.many > number
        at = (self._begin + number)[there]
        found = Answers(there, np.zeros(there.shape, bool), np.zeros(there.shape, np.int32))
        found.correct[there], found.tokens[there] = self._correct[at], self._tokens[at]
        return found

    def outputs(self, problem: int, students: list[int], number: int | None = 0) -> list[Row]:
        """Students' answers of a number to a problem; None: all of them."""
        found = []
        for student in students:
            begin, many = int(self._begin[problem, student]), int(self.many[problem, student])
            found += range(begin, begin + many) if number is None else range(begin + number, begin + many)[:1]
        return self.table.rows(self._order[at] for at in found)

    def problem(self, problem: int) -> Row:
        return self.table.rows([self.first[problem]])[0]


class Traces:
    """The traces of one teacher, config by config, joined by (id, sample)."""

    def __init__(self, repo: str, revision: str | None, order: tuple[str, ...]) -> None:
        names = configs_of(repo, revision, order)
        self.configs = {name: Table(repo, name, revision) for name in names}
        self.at: dict[str, dict[str, int]] = {}
        self.tokens: dict[str, Any] = {}
        for name, table in self.configs.items():
            keys = zip(table.column("id").to_pylist(), table.column("sample").to_pylist(), strict=True)
            self.at[name] = {f"{of}/{sample}": number for number, (of, sample) in enumerate(keys)}
            self.tokens[name] = table.column("reasoning_tokens").to_numpy()
        self.keys = list(self.at["raw"])
        self.texts = self.configs["raw"].column("problem")

    def row(self, config: str, key: str) -> Row | None:
        number = self.at.get(config, {}).get(key)
        return None if number is None else self.configs[config].rows([number])[0]


@functools.lru_cache(maxsize=8)
def traces_of(repo: str, revision: str | None, order: tuple[str, ...]) -> Traces:
    return Traces(repo, revision, order)
