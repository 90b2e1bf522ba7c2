"""The step `contamination`: which problems of benchmarks are also training problems.

    {"test": {"problems": 300, "in_training": 0}, "gsm8k|0": {"problems": 1319, "in_training": 0}}
is its report. Any number but 0 in `in_training` stops the run before anything is trained, unless the recipe leaves such
problems out. The record also has near-duplicates of test problems among the training problems, and near-duplicates
among training problems:

    "near_duplicates": {"similarity": 0.7, "tests": {"test": {"problems": 2, "training": 3, "examples": […]}},
                        "training": {"train": {"problems": 250, "duplicates": 4, "examples": […]}}}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
from pydantic import Field

from hubkit.errors import GateError
from hubkit.problems.base import normalise
from hubkit.problems.near import Index, Near, Sketches, without_frame
from hubkit.records import RowWriter, files_of, read_rows
from hubkit.section import Section
from hubkit.store import StepContext, write_json
from hubkit.verifiers.table import verifier_named

__all__ = ["TRAINING", "VERSION", "Decontamination", "run"]

VERSION: Final = 2
TRAINING: Final = "training/"
"""Prefix of the names of inputs with training problems: those that teachers answer, and those of existing traces."""
EXAMPLES: Final = 3
"""Number of examples of each kind, for the cards."""
_SHOWN: Final = 300
"""Characters of a problem in an example."""
DROPPED_SCHEMA: Final = pa.schema([("input", pa.string()), ("id", pa.string()), ("reason", pa.string())])


class Decontamination(Section):
    """A recipe's `decontamination`."""

    similarity: float = Field(default=0.7, ge=0.5, le=0.95)
    """Two problems are near-duplicates from this share of common five-word runs on (Jaccard similarity, by MinHash)."""
    tests: Literal["stop", "drop"] = "stop"
    """stop: stop if a test problem is in the training set, and count near-duplicates. drop: leave out the training
    problems that are test problems or near-duplicates of them."""
    duplicates: Literal["keep", "drop"] = "keep"
    """drop: leave out training problems that are near-duplicates of earlier ones."""

    @property
    def drops(self) -> bool:
        """Whether training problems are left out."""
        return "drop" in (self.tests, self.duplicates)


def run(context: StepContext) -> None:
    """Write report.json, and dropped.parquet if the recipe leaves training problems out.

    Raises GateError if a test problem is in the training set, by normalised text or id, and is not left out. The
    questions of a lighteval task are inside prompts: such a question also counts as a training problem if its prompt
    contains a training problem of eight words or more.
    """
    settings = Decontamination.model_validate(context.config.get("decontamination", {}))
    near = Near(settings.similarity)
    tests = _Tests(context, near)
    trained = {
        name.removeprefix(TRAINING): folder for name, folder in context.inputs.items() if _trained_on(name)
    }
    among: dict[str, Any] = {}
    with RowWriter(context.work / "dropped.parquet", DROPPED_SCHEMA) as dropped:
        for name, folder in trained.items():
            ids: list[str] = []
            out: dict[int, str] = {}
            with Sketches(near, context.work / "signatures") as sketches:
                for number, (id_, text) in enumerate(_problems(folder)):
                    ids.append(id_)
                    signature = near.signature(text)
                    keys = near.keys(signature)
                    sketches.add(signature, keys)
                    if (reason := tests.look(id_, text, signature, keys)) and settings.tests == "drop":
                        out[number] = reason
                found = sketches.duplicates()
            among[name] = {
                "problems": len(ids),
                "duplicates": len(found),
                "examples": _examples(folder, found),
            }
            if settings.duplicates == "drop":
                out = dict.fromkeys(found, "near_duplicate") | out
            for number, reason in sorted(out.items()):
                dropped.add({"input": name, "id": ids[number], "reason": reason})
                context.count(f"dropped_{reason}")
    report = tests.report()
    if settings.tests == "stop":
        tests.check()
    context.metrics.update(report)
    context.metrics["near_duplicates"] = {
        "similarity": settings.similarity,
        "tests": tests.near(),
        "training": among,
    }
    write_json(context.out / "report.json", report)
    if settings.drops:
        for part in files_of(context.work / "dropped.parquet"):
            part.rename(context.out / part.name)


class _Tests:
    """The problems of benchmarks, in memory; the training set, which may be far larger, is streamed past them."""

    def __init__(self, context: StepContext, near: Near) -> None:
        self._sizes: dict[str, int] = {}
        self._same: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._begins: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
        self._index: dict[str, tuple[Index, list[tuple[str, str]]]] = {}
        self._shared: dict[str, dict[str, None]] = {}
        self._near: dict[str, dict[str, None]] = {}
        self._alike: dict[str, set[str]] = {}
        self._examples: dict[str, list[dict[str, Any]]] = {}
        for name, folder in context.inputs.items():
            if not _trained_on(name):
                self._add(near, name, [(id_, text, text) for id_, text in _problems(folder)])
        tasks: list[str] = context.config.get("tasks", [])
        if tasks:
            from hubkit.evaluation.tasks import questions

            for task in tasks:
                revision = context.models.get(task, {}).get("revision", "")
                asked = questions(task, context.work / "datasets", revision)
                # Text that all prompts share would make them similar to each other, and less so to training problems.
                bare = without_frame(asked)
                self._add(
                    near,
                    task,
                    [(f"{task} {i}", t, b) for i, (t, b) in enumerate(zip(asked, bare, strict=True))],
                )
                for i, text in enumerate(map(normalise, asked)):
                    for words in _windows(text):
                        self._begins[words].append((task, f"{task} {i}", text))

    def _add(self, near: Near, name: str, problems: list[tuple[str, str, str]]) -> None:
        """`problems`: (id, prompt, the part of it that is compared)."""
        self._sizes[name] = len(problems)
        self._shared[name], self._near[name], self._alike[name], self._examples[name] = {}, {}, set(), []
        for id_, text, _ in problems:
            self._same[normalise(text)].append((name, id_))
            self._same[id_].append((name, id_))
        # A task's prompts may not be for everyone: its examples show the training problem alone.
        shown = [(id_, "" if id_.startswith(f"{name} ") else text) for id_, text, _ in problems]
        self._index[name] = near.index(bare for _, _, bare in problems), shown

    def look(self, id_: str, text: str, signature: Any, keys: list[int]) -> str:
        """Compare a training problem. Returns in_test, near_test or ""."""
        normal = normalise(text)
        found = self._same.get(normal, []) + self._same.get(id_, [])
        for words in _windows(normal)[:1]:
            found += [
                (name, of)
                for name, of, prompt in self._begins.get(words, [])
                if f" {normal} " in f" {prompt} "
            ]
        for name, of in found:
            self._shared[name][of] = None
        reason = "in_test" if found else ""
        for name, (index, shown) in self._index.items():
            for number, alike in index.find(signature, keys):
                of, other = shown[number]
                if (name, of) in found:
                    continue
                self._near[name][of] = None
                self._alike[name].add(id_)
                reason = reason or "near_test"
                example = {"id": id_, "problem": text[:_SHOWN], "of": of, "other": other[:_SHOWN]}
                examples = [*self._examples[name], example | {"similarity": round(alike, 3)}]
                self._examples[name] = sorted(examples, key=lambda e: -e["similarity"])[:EXAMPLES]
        return reason

    def report(self) -> dict[str, Any]:
        return {
            name: {"problems": size, "in_training": len(self._shared[name])}
            for name, size in self._sizes.items()
        }

    def near(self) -> dict[str, Any]:
        return {
            name: {
                "problems": len(self._near[name]),
                "training": len(self._alike[name]),
                "examples": self._examples[name],
            }
            for name in self._sizes
        }

    def check(self) -> None:
        for name, ids in self._shared.items():
            if ids:
                raise GateError(
                    f"{len(ids)} of {self._sizes[name]} problems of {name!r} are in the training set: {list(ids)[:3]}",
                    "draw them from another split or seed, or leave them out: decontamination: {tests: drop}",
                )


def _trained_on(name: str) -> bool:
    """Whether an input has training problems. All others are tests, by the name of their set."""
    return name.startswith(TRAINING)


def _problems(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (id, problem) of a set, without options that were put after a problem: benchmarks differ in these."""
    for row in read_rows(folder / "problems.parquet", columns=["id", "problem", "verifier", "metadata"]):
        yield row["id"], verifier_named(row["verifier"]).as_written(row["problem"], row["metadata"])


def _examples(folder: Path, found: dict[int, tuple[int, float]]) -> list[dict[str, Any]]:
    """Returns the least similar near-duplicates of a set with their texts: they show where the limit is."""
    chosen = sorted(found.items(), key=lambda item: (item[1][1], item[0]))[:EXAMPLES]
    numbers = {n for number, (other, _) in chosen for n in (number, other)}
    texts = {n: row for n, row in enumerate(_problems(folder)) if n in numbers} if numbers else {}
    return [
        {
            "id": texts[number][0],
            "problem": texts[number][1][:_SHOWN],
            "of": texts[other][0],
            "other": texts[other][1][:_SHOWN],
            "similarity": round(alike, 3),
        }
        for number, (other, alike) in chosen
    ]


def _windows(text: str) -> list[str]:
    """Yield all runs of eight words of a text, the usual length in the decontamination of training data."""
    words = text.split()
    return [" ".join(words[i : i + 8]) for i in range(len(words) - 7)]
