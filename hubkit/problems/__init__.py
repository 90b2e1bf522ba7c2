"""Problems: prompts with known answers, from reasoning-gym, a local file or a Hub dataset.

    reasoning-gym's entry {"question": "State the final answer … 47 + 38 =", "answer": "85", …}
becomes
    {"id": "chain_sum-2f6c81d0a1b2", "source": "reasoning-gym/chain_sum", "problem": "State … 47 + 38 =",
     "answer": "85", "verifier": "reasoning-gym", "metadata": "{…the entry, for its scorer…}"}
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from hubkit.errors import GateError, InputError
from hubkit.recipe.config import FileSource, HubSource, ProblemSource, ReasoningGymSource
from hubkit.records import PROBLEM_SCHEMA, Problem, RowWriter, read_rows
from hubkit.store import StepContext, write_json

__all__ = ["VERSION", "check", "run", "split_of"]

VERSION: Final = 1
FILE: Final = "problems.parquet"


def normalise(problem: str) -> str:
    """The text by which two problems count as the same: case and white space folded."""
    return " ".join(problem.split()).lower()


def split_of(problem: str) -> Literal["train", "dev", "test"]:
    """Which side a problem belongs to, by its text alone: 10 % test, 10 % dev, the rest train.

    The same problem lands on the same side in every recipe and every run, so a model trained on one
    side has not seen another, however many problems were drawn.
    """
    number = int.from_bytes(hashlib.sha256(" ".join(problem.split()).encode()).digest()[:8], "big") % 10
    return "test" if number == 0 else "dev" if number == 1 else "train"


def problem_id(prefix: str, problem: str) -> str:
    """A stable id: the source's name and 12 hex digits of the text's sha256."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", prefix).strip("-.")[:40]
    return f"{safe}-{hashlib.sha256(problem.encode()).hexdigest()[:12]}"


def run(context: StepContext) -> None:
    """Write problems.parquet; problems that say the same are kept once."""
    source: ProblemSource = TypeAdapter[ProblemSource](ProblemSource).validate_python(context.config)
    seen: set[bytes] = set()
    total = source.size if isinstance(source, ReasoningGymSource) else source.limit or 0
    with RowWriter(context.out / FILE, PROBLEM_SCHEMA) as rows:
        for problem in _read(source, context):
            text = normalise(problem["problem"])
            mark = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if not text or not problem["answer"].strip():
                context.count("dropped_empty")
            elif mark in seen:
                context.count("dropped_duplicate")
            else:
                seen.add(mark)
                rows.add(problem)
                context.progress(rows.rows, max(total, rows.rows))
            if total and rows.rows == total:
                break
    if not rows.rows:
        raise InputError(f"{context.step}: no problem left", "check the source, its split and its columns")
    if isinstance(source, ReasoningGymSource) and rows.rows < source.size:
        raise InputError(
            f"{context.step}: {source.task} gives only {rows.rows} different problems of {source.size}",
            "ask for fewer, or widen the task's options",
        )
    context.count("kept", rows.rows)


def check(context: StepContext) -> None:
    """Refuse to go on when a test problem is in the training set, by normalised text or id.

    Questions of a lighteval task stand in a prompt: one is in the training set, too, when its prompt holds a
    training problem of eight words or more.
    """
    tests = {
        name: [(normalise(row["problem"]), row["id"]) for row in read_rows(folder / FILE)]
        for name, folder in context.inputs.items()
        if name != "train"
    }
    tasks: list[str] = context.config.get("tasks", [])
    if tasks:
        from hubkit.evaluation.tasks import questions

        for task in tasks:
            asked = questions(task, context.work / "datasets")
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
    for row in read_rows(context.inputs["train"] / FILE, columns=["id", "problem"]):
        text = normalise(row["problem"])
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


def _windows(text: str) -> list[str]:
    """All runs of eight words of a text, the length that decontamination of training data usually goes by."""
    words = text.split()
    return [" ".join(words[i : i + 8]) for i in range(len(words) - 7)]


def _read(source: ProblemSource, context: StepContext) -> Iterator[Problem]:
    if isinstance(source, ReasoningGymSource):
        return _reasoning_gym(source)
    if isinstance(source, FileSource):
        return _columns(source, _file_rows(context.paths["source"]), Path(source.path).stem)
    return _columns(source, _hub_rows(source, context.models["source"]["revision"]), source.dataset)


def _reasoning_gym(source: ReasoningGymSource) -> Iterator[Problem]:
    import reasoning_gym

    # The hash split keeps 1 of 10 for test and dev, and small tasks repeat: draw more than is needed.
    try:
        drawn = reasoning_gym.create_dataset(
            source.task, seed=source.seed, size=source.size * 40 + 1000, **source.options
        )
    except (ValueError, TypeError, AssertionError) as error:
        raise InputError(
            f"reasoning-gym cannot make {source.task!r}: {error}", "check `task` and `options` in its gallery"
        ) from error
    for index in range(len(drawn)):
        entry: dict[str, Any] = drawn[index]
        question = str(entry["question"])
        if split_of(question) == source.split:
            yield {
                "id": problem_id(source.task, question),
                "source": f"reasoning-gym/{source.task}",
                "problem": question,
                "answer": str(entry["answer"]),
                "verifier": "reasoning-gym",
                "metadata": json.dumps(entry, default=str, ensure_ascii=False),
            }


def _columns(source: FileSource | HubSource, rows: Iterator[dict[str, Any]], name: str) -> Iterator[Problem]:
    needed = [source.problem, source.answer]
    needed += [source.tests] if source.verifier == "code" else []
    needed += [source.options] if source.verifier == "choice" and source.options else []
    for number, row in enumerate(rows):
        for column in needed:
            if column not in row:
                raise InputError(
                    f"{name}: row {number} has no column {column!r}", f"its columns are {', '.join(row)}"
                )
        problem = str(row[source.problem] or "")
        yield {
            "id": problem_id(name.split("/")[-1], problem),
            "source": name,
            "problem": problem,
            "answer": str(row[source.answer] or ""),
            "verifier": source.verifier,
            "metadata": _metadata(source, row, f"{name}: row {number}"),
        }


def _metadata(source: FileSource | HubSource, row: dict[str, Any], where: str) -> str:
    """What the verifier needs besides the answer, as JSON; "" where that is all."""
    if source.verifier == "numeric":
        return json.dumps({"tolerance": source.tolerance})
    if source.verifier == "code":
        kind, value = "tests", row[source.tests]
    elif source.verifier == "choice" and source.options:
        kind, value = "options", row[source.options]
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


def _file_rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        yield from read_rows(path)
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{path.name}:{number}: not JSON: {error}", "mend the line") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path.name}:{number}: not an object", "one JSON object a line")
                yield row


def _hub_rows(source: HubSource, revision: str) -> Iterator[dict[str, Any]]:
    import datasets

    rows = datasets.load_dataset(
        source.dataset, source.config, split=source.split, revision=revision, streaming=True
    )
    yield from rows
