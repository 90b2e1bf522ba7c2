"""Problems from rows with columns: what files and Hub datasets share.

    {"question": "1 + 1?", "answer": 2}   with `problem: question`
becomes
    {"id": "mine-2f6c81d0a1b2", "source": "mine", "problem": "1 + 1?", "answer": "2", "verifier": "math",
     "metadata": ""}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from hubkit.errors import InputError
from hubkit.problems.base import Source, problem_id
from hubkit.records import Problem
from hubkit.verifiers.table import TABLE

__all__ = ["RowSource"]


VERIFIERS: Final = [name for name, verifier in TABLE.items() if verifier.of_rows]


def _known_verifier(name: str) -> str:
    if name not in VERIFIERS:
        raise ValueError(f"no verifier is called {name!r}: use {', '.join(VERIFIERS)}")
    return name


VerifierName = Annotated[str, AfterValidator(_known_verifier), Field(json_schema_extra={"enum": VERIFIERS})]


class RowSource(Source):
    """What sources of rows share: where the problem stands in a row, and how answers to it are judged."""

    problem: str = "problem"
    """Column of the prompt."""
    answer: str = "answer"
    """Column of the known answer; for code any text, such as a known solution; for judge any that it can
    compare with."""
    verifier: VerifierName = "math"
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
        return [self.problem, self.answer, *TABLE[self.verifier].columns(self)]

    def problems_of(self, rows: Iterator[dict[str, Any]], name: str) -> Iterator[Problem]:
        """Yield a Problem for every row; `name` is the source's, in ids and errors."""
        verifier = TABLE[self.verifier]
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
                "metadata": verifier.metadata(self, row, f"{name}: row {number}"),
            }
