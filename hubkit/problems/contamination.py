"""The step `contamination`: no test problem may be in the training set.

    {"test": {"problems": 300, "in_training": 0}, "gsm8k|0": {"problems": 1319, "in_training": 0}}
is its report; any other number than 0 stops the run before anything is trained.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from hubkit.errors import GateError
from hubkit.problems.base import normalise
from hubkit.records import read_rows
from hubkit.store import StepContext, write_json
from hubkit.verifiers.table import verifier_named

__all__ = ["VERSION", "run"]

VERSION: Final = 1


def run(context: StepContext) -> None:
    """Refuse to go on when a test problem is in the training set, by normalised text or id.

    Questions of a lighteval task stand in a prompt: one is in the training set, too, when its prompt holds a
    training problem of eight words or more.
    """
    tests = {
        name: [
            (normalise(_without_options(row)), row["id"]) for row in read_rows(folder / "problems.parquet")
        ]
        for name, folder in context.inputs.items()
        if not _trained_on(name)
    }
    tasks: list[str] = context.config.get("tasks", [])
    if tasks:
        from hubkit.evaluation.tasks import questions

        for task in tasks:
            revision = context.models.get(task, {}).get("revision", "")
            asked = questions(task, context.work / "datasets", revision)
            tests[task] = [(normalise(text), f"{task} {place}") for place, text in enumerate(asked)]
    # The tests are held in memory and the training set, which may be far larger, goes by.
    same: dict[str, list[tuple[str, str]]] = defaultdict(list)
    begins: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for name, problems in tests.items():
        for text, id_ in problems:
            same[text].append((name, id_))
            same[id_].append((name, id_))
            for words in _windows(text) if name in tasks else ():
                begins[words].append((name, id_, text))
    shared: dict[str, dict[str, None]] = {name: {} for name in tests}
    columns = ["id", "problem", "verifier", "metadata"]
    trained = [folder / "problems.parquet" for name, folder in context.inputs.items() if _trained_on(name)]
    for row in (row for path in trained for row in read_rows(path, columns=columns)):
        text = normalise(_without_options(row))
        found = same.get(text, []) + same.get(row["id"], [])
        for words in _windows(text)[:1]:
            found += [
                (name, id_) for name, id_, prompt in begins.get(words, []) if f" {text} " in f" {prompt} "
            ]
        for name, id_ in found:
            shared[name][id_] = None
    report = {
        name: {"problems": len(problems), "in_training": len(shared[name])}
        for name, problems in tests.items()
    }
    for name, ids in shared.items():
        if ids:
            raise GateError(
                f"{len(ids)} of {len(tests[name])} problems of {name!r} are in the training set: {list(ids)[:3]}",
                "draw them from another split or seed",
            )
    context.metrics.update(report)
    write_json(context.out / "report.json", report)


def _trained_on(name: str) -> bool:
    """Whether an input is learned from: the problems that teachers answer, and those of existing traces."""
    return name == "train" or name.startswith("train-")


def _without_options(row: dict[str, Any]) -> str:
    """The problem without the options that were put after it: benchmarks write the same ones in other ways."""
    return verifier_named(row["verifier"]).as_written(row["problem"], row["metadata"])


def _windows(text: str) -> list[str]:
    """All runs of eight words of a text, the length that decontamination of training data usually goes by."""
    words = text.split()
    return [" ".join(words[i : i + 8]) for i in range(len(words) - 7)]
