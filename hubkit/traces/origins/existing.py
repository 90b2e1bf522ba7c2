"""Existing traces, from publications of others or one's own logs, read with their problems and verified again.

recipe: traces: [{name: r1, source: hub, dataset: open-r1/OpenR1-Math-220k, model: deepseek-ai/DeepSeek-R1}]
    row {"problem": "1 + 1?", "answer": "2", "generations": ["<think>…</think>2"], "correctness": [true], …}
    -> problems.parquet {"id": "r1-2f6c…", "problem": "1 + 1?", "answer": "2", "verifier": "math", …}
       traces.parquet {"id": "r1-2f6c…", "sample": 0, "reasoning": "…", "solution": "2", "claimed": true, …}

`raw` then verifies each answer as it does a teacher's, and counts disagreements with the source. Traces without a
known answer are left out, unless the recipe says `unverified: true`; then all are kept, and every card says so.
"""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple

import pyarrow as pa
from pydantic import Field

from hubkit.errors import InputError
from hubkit.problems.base import Description, Pin, problem_id
from hubkit.problems.cells import look_up
from hubkit.problems.file import FileSource, read_file
from hubkit.problems.hub import HubSource, split_held, stream_dataset
from hubkit.problems.rows import Row, VerifierName
from hubkit.records import PROBLEM_SCHEMA, TRACE_SCHEMA, RowWriter
from hubkit.store import StepContext
from hubkit.traces.origins.base import Origin
from hubkit.traces.origins.shapes import HISTORY, ROLES, Found, are_claims, find, recognise

__all__ = [
    "PLACES",
    "VERSION",
    "Existing",
    "FileTraces",
    "HubTraces",
    "Layout",
    "layout_of",
    "read",
    "run",
    "unusable",
]

VERSION: Final = 3
SCHEMA: Final = pa.schema([*TRACE_SCHEMA, ("claimed", pa.bool_())])
_RESPONSES: Final = ("chat", "text", "reasoning", "solution")
FIRST: Final = 32
"""Rows that show whether all have one system message, and whether a column of verdicts holds verdicts."""
LONGEST: Final = 32_768
"""Tokens of a trace in estimates, since sources do not say how long theirs are."""


class Existing(Origin):
    """An entry of a recipe's `traces`."""

    step = "hubkit.traces.origins.existing:run"
    brings_problems = True
    LATER: ClassVar[frozenset[str]] = frozenset({
        "columns", "model", "license", "origin", "where", "sample", "limit", "characters", "unverified",
        "config", "revision",
    })  # fmt: skip

    source: str
    columns: dict[str, str] = Field(default={})
    """Names of columns that are not recognised, as role: column. Roles are problem, answer, chat, text (the whole
    response), reasoning and solution, finish_reason, correct; and what belongs to the problem: instruction, context,
    options, system. "" for none. A dot leads into a struct: reward_model.ground_truth."""
    verifier: VerifierName = "math"
    """How answers are compared: docs/verifiers.md."""
    model: str = ""
    """The model that wrote them, for the cards: a Hub id if there is one. The model is not loaded or published."""
    license: str = ""
    """The licence of the source."""
    origin: str = ""
    """Where they come from, such as an address."""
    where: dict[str, Any] = Field(default={})
    """Only rows with these values: column -> value, or list of allowed values."""
    sample: int | None = Field(default=None, gt=0)
    """Number of rows drawn at random with the recipe's seed, in the order of the source; unset: all."""
    limit: int | None = Field(default=None, gt=0)
    """Maximum number of rows read, from the beginning."""
    characters: tuple[int, int] | None = None
    """Minimum and maximum characters of reasoning; other traces are left out and counted."""
    unverified: bool = False
    """Keep traces without verifying their answers, and say so on every card."""

    @abstractmethod
    def rows(self, pin: Pin, columns: list[str] | None) -> Iterator[Row]:
        """Yield the source's rows in order, with these columns; None: all."""

    @abstractmethod
    def place(self) -> str:
        """Returns the source as cards name it."""

    def came_from(self) -> Description:
        return Description(self.place(), self.hub_id() or None, self.origin, self.license)

    @property
    def is_verified(self) -> bool:
        return not self.unverified

    def judged_by(self) -> str:
        return self.verifier

    def count(self, problems: int) -> int:
        return min(n for n in (self.sample, self.limit, problems) if n is not None)

    def longest(self) -> int:
        return LONGEST

    def describe(self) -> str:
        by = f", written by {self.model}" if self.model else ""
        parts = [f"{self.name}: existing traces from {self.place()}{by}"]
        parts += [f"licence {self.license}"] if self.license else []
        parts += [f"from {self.origin}"] if self.origin else []
        parts += [f"{self.sample} of them drawn at random"] if self.sample else []
        parts += ["their answers were NOT verified"] if self.unverified else []
        return ", ".join(parts)


class FileTraces(Existing):
    source: Literal["file"]
    path: str
    """JSON lines, a JSON list, CSV, TSV (these also compressed: .gz, .bz2, .zst, .lz4), Parquet or Arrow beside the
    recipe: a file, a folder of such files or one of save_to_disk, or a pattern such as data/train-*.parquet."""

    def pin(self, folder: Path, key: str, commit: Callable[[str, str], str]) -> Pin:
        return FileSource(source="file", path=self.path).pin(folder, key, commit)

    def held(self, pin: Pin) -> int | None:
        return FileSource(source="file", path=self.path).count(pin)

    def held_bytes(self, pin: Pin) -> int | None:
        return FileSource(source="file", path=self.path).size(pin)

    def rows(self, pin: Pin, columns: list[str] | None) -> Iterator[Row]:
        assert pin.path is not None
        return read_file(pin.path, columns)

    def place(self) -> str:
        return f"the file {Path(self.path).name}"


class HubTraces(Existing):
    source: Literal["hub"]
    dataset: str
    """Hub id: org/name."""
    config: str | None = None
    """Config of the dataset. Unset: its default."""
    split: str = "train"
    revision: str = ""
    """Branch, tag or commit, which is resolved to a commit once. Empty: the default branch."""

    def pin(self, folder: Path, key: str, commit: Callable[[str, str], str]) -> Pin:
        return HubSource(source="hub", dataset=self.dataset, revision=self.revision).pin(folder, key, commit)

    def held(self, pin: Pin) -> int | None:
        return split_held(self.dataset, pin.revision, self.config, self.split).rows

    def held_bytes(self, pin: Pin) -> int | None:
        return split_held(self.dataset, pin.revision, self.config, self.split).bytes

    def rows(self, pin: Pin, columns: list[str] | None) -> Iterator[Row]:
        return stream_dataset(self.dataset, self.config, self.split, pin.revision, columns)

    def place(self) -> str:
        return f"{self.dataset}, split {self.split}"

    def hub_id(self) -> str:
        return self.dataset


PLACES: Final[dict[str, type[Existing]]] = {"file": FileTraces, "hub": HubTraces}
"""Name after `source:` -> class."""


def read(
    origin: Existing, pin: Pin, seed: int, drop: Callable[[str, str], None], layout: Layout | None = None
) -> Iterator[tuple[str, list[Found]]]:
    """Yield (where, traces) of each row that passes the recipe's filters; `drop(reason, detail)` is called for others.

    A row of no known shape is dropped as "unreadable"; a file that cannot be read raises InputError.
    """
    wrong = set(origin.columns) - set(ROLES)
    if wrong:
        raise InputError(f"columns: there is nothing called {min(wrong)!r}", f"known are {', '.join(ROLES)}")
    chosen = _sampled(origin, pin, seed)
    columns, needed, system = layout or layout_of(origin, pin)
    stop = origin.limit if chosen is None else max(chosen, default=-1) + 1
    for number, row in enumerate(islice(origin.rows(pin, needed), stop)):
        if chosen is not None and number not in chosen:
            continue
        if not _passes(row, origin.where):
            drop("filtered", row.where)
            continue
        try:
            found = find(row.values, row.where, columns)
            yield row.where, [_with_system(trace, system) for trace in found]
        except InputError as error:
            drop("unreadable", error.message)


class Layout(NamedTuple):
    """What the columns of a source are."""

    columns: dict[str, str]
    """Role -> column: the recipe's, before those that the first row lets recognise."""
    needed: list[str] | None
    """Columns to read; None for a list of texts, which has none."""
    system: str
    """The system message that all of the first rows have, which is left out of problems; "" if there is none."""


def layout_of(origin: Existing, pin: Pin) -> Layout:
    """Returns what the columns of a source are, by its first rows."""
    first = next(iter(_beginning(origin, pin, None, 1)), None)
    if first is None:
        return Layout(dict(origin.columns), None, "")
    columns = recognise(first.values)
    if {"chat", "text", "reasoning"} & origin.columns.keys():
        # The recipe says where the response is, so nothing about that is guessed.
        columns = {role: name for role, name in columns.items() if role not in _RESPONSES}
    columns |= origin.columns
    bare = first.values.keys() == {"text"}
    asked = {HISTORY} & first.values.keys()
    needed = None if bare else sorted({*filter(None, columns.values()), *origin.where, *asked})
    system = _system(first, columns) or ""
    if system or "correct" in columns:
        for row in _beginning(origin, pin, needed, FIRST):
            if _system(row, columns) not in (system, None):
                system = ""  # of several, each is part of its problem
            if "correct" not in origin.columns and not _is_claim(row, columns.get("correct", "")):
                columns.pop("correct", None)
    return Layout(columns, needed, system)


def _beginning(origin: Existing, pin: Pin, columns: list[str] | None, number: int) -> list[Row]:
    rows = origin.rows(pin, columns)
    first = list(islice(rows, min(number, origin.limit or number)))
    if isinstance(rows, Generator):
        rows.close()  # a stream of datasets that is left half read can hang at exit
    return first


def _system(row: Row, columns: Mapping[str, str]) -> str | None:
    try:
        return find(row.values, row.where, columns)[0].system
    except InputError:
        return None


def _is_claim(row: Row, column: str) -> bool:
    try:
        return not column or are_claims(look_up(row.values, column))
    except KeyError:
        return True


def _with_system(trace: Found, common: str) -> Found:
    """A system message that only some rows have is part of the problem."""
    if trace.system in ("", common) or not trace.problem:
        return trace
    return replace(trace, problem=f"{trace.system}\n\n{trace.problem}")


def _sampled(origin: Existing, pin: Pin, seed: int) -> set[int] | None:
    """Numbers of the rows that are drawn; None for all. The filters count: only rows that pass can be drawn."""
    if origin.sample is None:
        return None
    columns = list(origin.where) or None
    rows = origin.rows(pin, columns)
    passing = [n for n, row in enumerate(islice(rows, origin.limit)) if _passes(row, origin.where)]
    if isinstance(rows, Generator):
        rows.close()
    generator = random.Random(f"{seed}/{origin.name}")  # noqa: S311 (a seeded draw, no secret)
    return set(generator.sample(passing, min(origin.sample, len(passing))))


def _passes(row: Row, where: Mapping[str, Any]) -> bool:
    for column, wanted in where.items():
        try:
            value = look_up(row.values, column)
        except KeyError:
            raise InputError(
                f"{row.where} has no column {column!r}", f"its columns are {', '.join(map(str, row.values))}"
            ) from None
        if value not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def run(context: StepContext) -> None:
    """Write problems.parquet and traces.parquet, a problem's traces together, in the source's order."""
    config = context.config
    fields = {k: v for k, v in config.items() if k not in ("teacher", "seed", "shard")}
    origin = PLACES[config["source"]].model_validate(fields | {"name": config["teacher"]})
    pin = Pin(revision=context.models.get("source", {}).get("revision", ""), path=context.paths.get("source"))

    def drop(reason: str, detail: str) -> None:
        context.count(f"dropped_{reason}")
        examples.setdefault(reason, detail)

    layout = layout_of(origin, pin)
    context.metrics["columns"] = layout.columns
    if layout.system:
        context.metrics["system_left_out"] = layout.system
    examples: dict[str, str] = {}
    """Reason -> the first row that was dropped for it."""
    groups: Counter[bytes] = Counter()
    seen: set[bytes] = set()
    before, id, sample = ("", ""), "", 0
    with (
        RowWriter(context.out / "problems.parquet", PROBLEM_SCHEMA) as problems,
        RowWriter(context.out / "traces.parquet", SCHEMA) as traces,
    ):
        for where, found in read(origin, pin, config["seed"], drop, layout):
            for trace in found:
                reason = unusable(origin, trace, seen)
                if reason:
                    drop(reason, where)
                    continue
                # Of another answer it is another problem, such as one whose picture is not here.
                if (trace.problem, trace.answer) == before:
                    sample += 1
                else:
                    # A problem that appears again later gets another row, so that traces find their problems in order.
                    mark = hashlib.blake2b(trace.problem.encode("utf-8", "replace"), digest_size=16).digest()
                    again = f"-{groups[mark]}" if groups[mark] else ""
                    groups[mark] += 1
                    before, sample = (trace.problem, trace.answer), 0
                    id = problem_id(origin.name, trace.problem) + again
                    problems.add(_problem(origin, trace, id))
                traces.add(_trace(origin, trace, id, sample))
                if trace.ran_on:
                    context.count("ran_on")
                if trace.claimed is not None:
                    context.count("claimed_correct" if trace.claimed else "claimed_wrong")
            context.progress(traces.rows, max(origin.count(traces.rows + 1), traces.rows))
    if not traces.rows:
        dropped = ", ".join(f"{reason} {number}" for reason, number in sorted(context.counts.items()))
        raise InputError(
            f"{context.step}: no trace can be used ({dropped or 'the source is empty'})",
            "`hubkit traces inspect` shows what is read; name its columns under `columns`, or say unverified: true",
        )
    context.count("traces", traces.rows)
    context.metrics["first_dropped"] = examples


def unusable(origin: Existing, trace: Found, seen: set[bytes]) -> str:
    """Returns why a trace is left out before verification, "" if it is not. Adds its digest to `seen`."""
    if not trace.problem:
        return "no_problem"
    if not trace.answer and not origin.unverified:
        return "no_answer"
    if origin.characters and not origin.characters[0] <= len(trace.thought.reasoning) <= origin.characters[1]:
        return "length_filter"
    mark = hashlib.blake2b(
        "\0".join((trace.problem, trace.thought.reasoning, trace.thought.solution)).encode(
            "utf-8", "replace"
        ),
        digest_size=16,
    ).digest()
    if mark in seen:
        return "duplicate"
    seen.add(mark)
    return ""


def _problem(origin: Existing, trace: Found, id: str) -> dict[str, Any]:
    return {
        "id": id,
        "source": origin.hub_id() or origin.name,
        "problem": trace.problem,
        "answer": trace.answer,
        "verifier": origin.verifier,
        "metadata": "",
    }


def _trace(origin: Existing, trace: Found, id: str, sample: int) -> dict[str, Any]:
    return {
        "id": id,
        "sample": sample,
        "teacher": origin.name,
        "reasoning": trace.thought.reasoning,
        "solution": trace.thought.solution,
        "thinking": trace.thought.form,
        "finish_reason": trace.finish_reason,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "error": "",
        "claimed": trace.claimed,
    }
