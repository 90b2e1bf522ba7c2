"""Problems from rows with columns: what files and Hub datasets share.

    {"question": "1 + 1?", "answer": 2}   with `problem: question`
becomes
    {"id": "mine-2f6c81d0a1b2", "source": "mine", "problem": "1 + 1?", "answer": "2", "verifier": "math",
     "metadata": ""}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from hubkit.errors import InputError
from hubkit.problems.base import Source, problem_id
from hubkit.records import Problem

__all__ = ["RowSource"]


class RowSource(Source):
    """What sources of rows share: where the problem stands in a row, and how answers to it are judged."""

    problem: str = "problem"
    """Column of the prompt."""
    answer: str = "answer"
    """Column of the known answer; for code any text, such as a known solution; for judge any that it can
    compare with."""
    verifier: Literal["math", "exact", "choice", "numeric", "code", "judge"] = "math"
    """How answers are compared: docs/verifiers.md."""
    options: str = ""
    """choice: column with the list of the options' texts, if answers may be those."""
    tolerance: float = Field(default=1e-6, ge=0)
    """numeric: accepted difference, relative to the answer (absolute where that is 0)."""
    tests: str = "tests"
    """code: column with the list of tests."""
    limit: int | None = Field(default=None, gt=0)
    """Problems taken at most."""

    def judged_by(self) -> str:
        return self.verifier

    def most(self) -> int | None:
        return self.limit

    def columns(self) -> list[str]:
        """Returns the columns that are read; no other is decoded."""
        needed = [self.problem, self.answer]
        needed += [self.tests] if self.verifier == "code" else []
        needed += [self.options] if self.verifier == "choice" and self.options else []
        return needed

    def problems_of(self, rows: Iterator[dict[str, Any]], name: str) -> Iterator[Problem]:
        """Yield a Problem for every row; `name` is the source's, in ids and errors."""
        for number, row in enumerate(rows):
            for column in self.columns():
                if column not in row:
                    raise InputError(
                        f"{name}: row {number} has no column {column!r}", f"its columns are {', '.join(row)}"
                    )
            problem = str(row[self.problem] or "")
            yield {
                "id": problem_id(name.split("/")[-1], problem),
                "source": name,
                "problem": problem,
                "answer": str(row[self.answer] or ""),
                "verifier": self.verifier,
                "metadata": self._metadata(row, f"{name}: row {number}"),
            }

    def _metadata(self, row: dict[str, Any], where: str) -> str:
        """What the verifier needs besides the answer, as JSON; "" where that is all."""
        if self.verifier == "numeric":
            return json.dumps({"tolerance": self.tolerance})
        if self.verifier == "code":
            kind, value = "tests", row[self.tests]
        elif self.verifier == "choice" and self.options:
            kind, value = "options", row[self.options]
        else:
            return ""
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = json.loads(value)  # lists of mixed kinds are often stored so in Parquet
            except ValueError as error:
                raise InputError(f"{where}: {kind} are not JSON: {error}", "see docs/verifiers.md") from error
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not value:
            raise InputError(f"{where}: {kind} are no list", "see docs/verifiers.md")
        return json.dumps({kind: value}, ensure_ascii=False)
