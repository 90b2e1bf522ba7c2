"""What verifiers share: a verdict, a task for a worker process, and their base class.

    class Shout(Verifier):
        name = "shout"

        def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
            same = text.strip() == problem["answer"].upper()
            return verdict("correct" if same else "wrong", text, "compared in capitals")

and an instance of it in `table.py` are a verifier: recipes can then name it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, NamedTuple, NoReturn, Protocol, Self

from hubkit.errors import InputError

__all__ = ["Asked", "RowCell", "RowSettings", "Status", "Task", "Verdict", "Verifier", "list_of", "verdict"]

Status = Literal["correct", "wrong", "unparseable", "timeout", "unjudged"]
SHOWN: Final = 200
"""Characters of an extracted answer that a verdict keeps."""


class Verdict(NamedTuple):
    """A verifier's judgement: the extracted answer, and the reason."""

    status: Status
    answer: str
    """As in the text, SHOWN characters at most; "" if none was found."""
    reason: str

    @property
    def correct(self) -> bool:
        return self.status == "correct"


class Task(NamedTuple):
    """What a worker process judges: only the relevant text, so that little data is sent."""

    verifier: str
    answer: str
    text: str
    source: str = ""
    metadata: str = ""


class RowSettings(Protocol):
    """The keys of a problem source about its verifier (problems.rows.RowSource)."""

    @property
    def options(self) -> str: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def tests(self) -> str: ...


class RowCell(Protocol):
    """One value of a row (problems.cells.Cell), which errors name by row and column."""

    @property
    def value(self) -> Any: ...
    @property
    def only(self) -> Any: ...
    def answer(self) -> str: ...
    def holding(self, value: Any) -> Self: ...
    def refuse(self, what: str, remedy: str) -> NoReturn: ...


class Asked(NamedTuple):
    """A problem as the model sees it: its text, its answer key, and values that replace the row's in `metadata`."""

    problem: str
    answer: str
    prepared: dict[str, Any]


class Verifier:
    """One way to compare answers. Its module's docstring says how it decides doubtful cases."""

    name: ClassVar[str]
    of_rows: ClassVar[bool] = True
    """Whether a source of rows may name it; reasoning-gym's problems always have reasoning-gym's verifier."""
    reads_boxes: ClassVar[bool] = True
    """Whether an answer is what stands in \\boxed{…}."""

    def columns(self, source: RowSettings) -> list[str]:
        """Columns that a row must have for it, besides problem and answer."""
        return []

    def more_columns(self, source: RowSettings) -> list[str]:
        """Further columns, which it reads if a row has them."""
        return []

    def asked(
        self, source: RowSettings, problem: str, answer: RowCell, cells: Mapping[str, RowCell]
    ) -> Asked:
        """Returns the problem of a row; `cells` are those of `columns`. Raises InputError if the row cannot be used."""
        return Asked(problem, answer.answer(), {})

    def as_written(self, problem: str, metadata: str) -> str:
        """Returns the row's problem, without the text that `asked` put after it."""
        return problem

    def check_machine(self) -> None:
        """Raise StepError, with a remedy, if it cannot work on this machine. Called before a run starts."""

    def metadata(self, source: RowSettings, row: Mapping[str, Any], where: str) -> str:
        """Returns what it needs from a row besides the answer, checked, as JSON; "" if nothing.

        `where` names the row in errors. Raises InputError if the row cannot be used.
        """
        return ""

    def checked(self, metadata: Mapping[str, Any], where: str) -> str:
        """Returns the same for metadata that was given directly: `hubkit.verify(…, metadata={"tests": […]})`."""
        return json.dumps(dict(metadata), ensure_ascii=False) if metadata else ""

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        """Judge in this process if that is quick and safe, else return a task for `verify_in_worker`.

        Raises InputError if no text can be judged for this problem.
        """
        raise NotImplementedError(self.name)

    def verify_in_worker(self, task: Task) -> Verdict:
        """Judge a task of `verify_inline`. Called on the main thread of a process that may be killed."""
        raise NotImplementedError(self.name)


def verdict(status: Status, answer: str, reason: str) -> Verdict:
    return Verdict(status, answer.strip()[:SHOWN], reason)


def list_of(value: Any, kind: str, where: str) -> list[Any]:
    """Returns the list in a column, which may be JSON text: Parquet often stores lists of mixed types so.

    Raises InputError for any other value.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InputError(f"{where}: {kind} are not JSON: {error}", "see docs/verifiers.md") from error
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: {kind} are not a list", "see docs/verifiers.md")
    return value
