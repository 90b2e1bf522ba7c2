"""Joins traces with their problems, for all steps that judge traces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hubkit.engines.base import why_unfinished
from hubkit.errors import InputError
from hubkit.records import read_rows
from hubkit.store import StepContext

__all__ = ["ProblemReader", "reject_reason", "with_problems"]

BATCH: Final = 256
"""Rows read together."""

Row = dict[str, Any]


def with_problems(context: StepContext, shard: str) -> Iterator[tuple[Row, Row]]:
    """Yield (problem, trace) for each trace of one shard."""
    problems = ProblemReader(context.inputs["problems"] / "problems.parquet")
    for trace in read_rows(context.inputs[shard] / "traces.parquet", batch=BATCH):
        yield problems.find(trace["id"]), trace


class ProblemReader:
    """Looks up the problems of traces, which are in the file's order, once for each shard, without loading the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: Iterator[Row] = iter(())
        self._row: Row = {"id": None}

    def find(self, id: str) -> Row:
        """Returns a problem. Raises InputError if there is none with this id."""
        if self._row["id"] != id:
            row = self._search(id)
            if row is None:
                self._rows = read_rows(self._path, batch=BATCH)
                row = self._search(id)
            if row is None:
                raise InputError(
                    f"the problem {id!r} of a trace is missing",
                    "run the traces step and the steps after it again",
                )
            self._row = row
        return self._row

    def _search(self, id: str) -> Row | None:
        return next((row for row in self._rows if row["id"] == id), None)


def reject_reason(trace: Row) -> tuple[str, str] | None:
    """Returns (reason, detail) for a trace that has no answer to judge. Returns None if it has one."""
    if trace["error"]:
        return "error", trace["error"]
    if why := why_unfinished(trace["finish_reason"]):
        return ("length" if trace["finish_reason"] == "length" else "unfinished"), why
    if trace["thinking"] == "unclosed":
        return "unclosed", "the thinking span never ends"
    if trace["thinking"] == "none" or not trace["reasoning"].strip():
        return "no_thinking", "no thinking span"
    if not trace["solution"].strip():
        return "no_solution", "nothing after the thinking span"
    return None
