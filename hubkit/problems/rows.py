"""Problems from rows with columns, shared by files and Hub datasets.

    {"question": "1 + 1?", "answer": 2}   with `problem: question`
becomes
    {"id": "mine-2f6c81d0a1b2", "source": "mine", "problem": "1 + 1?", "answer": "2", "verifier": "math",
     "metadata": ""}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, Field

from hubkit.errors import InputError
from hubkit.problems.base import Description, Source, problem_id
from hubkit.problems.cells import Cell, look_up
from hubkit.records import Problem
from hubkit.verifiers.table import TABLE

__all__ = ["Row", "RowSource"]


@dataclass(frozen=True)
class Row:
    """A row and its name in errors: "mine.jsonl:3: row 2", rows from 0."""

    where: str
    values: dict[str, Any]

    def cell(self, column: str) -> Cell:
        """Returns a column's value, or that of a part of a struct. Raises InputError if it has none."""
        try:
            return Cell(self.where, column, look_up(self.values, column))
        except KeyError:
            known = ", ".join(map(str, self.values)) or "none"
            raise InputError(f"{self.where} has no column {column!r}", f"its columns are {known}") from None


VERIFIERS: Final = [name for name, verifier in TABLE.items() if verifier.of_rows]


def _known_verifier(name: str) -> str:
    if name not in VERIFIERS:
        raise ValueError(f"no verifier is called {name!r}: use {', '.join(VERIFIERS)}")
    return name


VerifierName = Annotated[str, AfterValidator(_known_verifier), Field(json_schema_extra={"enum": VERIFIERS})]


class RowSource(Source):
    """Keys that sources of rows share: the columns of a problem, and how its answers are verified."""

    VERSION: ClassVar[int] = 2
    LATER: ClassVar[frozenset[str]] = frozenset({"origin", "license"})

    problem: str = "problem"
    """Column of the prompt: text, or a chat with one user message. A dot leads into a struct: extra_info.question."""
    answer: str = "answer"
    """Column of the known answer. For code: any text, such as a known solution; for judge: any text that the judge can
    compare with."""
    verifier: VerifierName = "math"
    """How answers are compared: docs/verifiers.md."""
    options: str = ""
    """choice: column with the options' texts: a list, or {"text": [...], "label": [...]}. They are put after problems
    that do not show them."""
    tolerance: float = Field(default=1e-6, ge=0)
    """numeric: accepted difference, relative to the answer (absolute where that is 0)."""
    tests: str = "tests"
    """code: column with the list of tests."""
    limit: int | None = Field(default=None, gt=0)
    """Maximum number of problems."""
    origin: str = ""
    """Where the problems come from, such as an address, for the cards."""
    license: str = ""
    """The licence of the problems, for the cards."""

    def described(self, text: str, dataset: str | None = None) -> Description:
        return Description(text, dataset, self.origin, self.license)

    def judged_by(self) -> str:
        return self.verifier

    def most(self) -> int | None:
        return self.limit

    def columns(self) -> list[str]:
        """Returns the columns that are read; no other is decoded."""
        return [self.problem, self.answer, *TABLE[self.verifier].columns(self)]

    def more_columns(self) -> list[str]:
        """Returns further columns, which are read if the source has them."""
        return TABLE[self.verifier].more_columns(self)

    def problems_of(self, rows: Iterable[Row], name: str) -> Iterator[Problem]:
        """Yield a Problem for every row; `name` is the source's. Raises InputError that names row and column."""
        system: str | None = None
        for row in rows:
            cells = {column: row.cell(column) for column in self.columns()}
            # One system message for all rows may be left out: the recipe decides. Several would change the problems.
            said = cells[self.problem].system()
            if system not in (None, said):
                cells[self.problem].refuse(
                    "its system message differs from that of earlier rows",
                    "a problem is the user message alone; put into it what the system message says",
                )
            system = said
            asked = TABLE[self.verifier].asked(self, cells[self.problem].problem(), cells[self.answer], cells)
            values = {column: cell.value for column, cell in cells.items()} | asked.prepared
            values |= {column: row.values.get(column) for column in self.more_columns()}
            yield {
                "id": problem_id(name.split("/")[-1], asked.problem),
                "source": name,
                "problem": asked.problem,
                "answer": asked.answer,
                "verifier": self.verifier,
                "metadata": self._metadata(values, row.where),
            }

    def _metadata(self, values: dict[str, Any], where: str) -> str:
        try:
            metadata = TABLE[self.verifier].metadata(self, values, where)
            json.loads(metadata or "null", parse_constant=_refuse_constant)
            metadata.encode()
        except (TypeError, ValueError) as error:  # bytes, halves of characters
            raise InputError(
                f"{where}: what the verifier {self.verifier!r} needs is not JSON: {error}",
                "see docs/verifiers.md",
            ) from error
        return metadata


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
