"""A finished lighteval run, hubkit's or anybody's: its scores, tasks and intervals.

    results/org/model/results_2026-11-24T06-24-06.json, beside details/… with 1,319 rows
        -> Score("gsm8k|0", "extractive_match", 0.4117, n=1319, correct=543, low=0.385, high=0.438, …)

The files may come from anywhere: they are data, checked before use.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeGuard

from hubkit.errors import InputError
from hubkit.evaluation.statistics import Z95, effective, wilson

__all__ = ["Score", "find_results", "is_number", "other_shares", "read_run"]

_LARGEST: Final = 64 << 20
"""Bytes of a results file."""
_KEY: Final = re.compile(r"(?:[a-z_]+\|)?([A-Za-z0-9][\w.:-]{0,99})\|(\d{1,3})")
"""gsm8k|0, or with the suite that older versions put first: lighteval|gsm8k|0."""
_DATE: Final = re.compile(r"results_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d{1,6})?)")


@dataclass(frozen=True)
class Score:
    """One task of one run. Shares are from 0 to 1."""

    task: str
    """name|shots"""
    metric: str
    share: float
    n: int
    """Problems; 0 where the run does not say."""
    correct: int | None
    """None where a problem can be partly right (pass@k, avg@n)."""
    low: float | None
    high: float | None
    model: str
    """As lighteval was given it: a Hub id, or a folder's name."""
    dataset: str
    config: str
    splits: tuple[str, ...]
    revision: str
    """Commit of the problems; "" where the run does not say."""
    date: str
    """Of the evaluation, by the clock of the machine that ran it; "" where the file's name does not say."""
    max_tokens: int
    temperature: float | None
    results: Path
    details: Path | None

    @property
    def name(self) -> str:
        return self.task.partition("|")[0]

    @property
    def shots(self) -> int:
        return int(self.task.partition("|")[2])


def find_results(path: Path) -> Path:
    """The results file that a path names: itself, or the newest one in a folder."""
    if path.is_file():
        return path
    found = sorted(path.glob("**/results_*.json"), key=lambda p: p.name) or sorted(
        path.glob("**/results.json")
    )
    if not found:
        raise InputError(
            f"{path} holds no lighteval results", "give its results_….json, or the folder it is in"
        )
    return found[-1]


def read_run(
    path: Path, tasks: Sequence[str] = (), metric: str = "", main: bool = False, every: bool = False
) -> list[Score]:
    """The scores of a results file, or of the newest in a folder: of some tasks, or of the only one in it.

    `every` takes all tasks where none are named. `main` takes the first of a task's metrics, which lighteval's tasks
    list as their main one.
    Raises InputError for a file that is no complete, plausible lighteval run.
    """
    file = find_results(path)
    run = _load(file)
    results, configs = _part(run, "results", file), _part(run, "config_tasks", file)
    general = _part(run, "config_general", file)
    if general.get("max_samples") is not None:
        raise InputError(
            f"{file.name} is of {str(general['max_samples'])[:20]} problems per task at most, not of the whole "
            "benchmark",
            "evaluate without --max-samples",
        )
    keys = {match[1] + "|" + match[2]: key for key in results if (match := _KEY.fullmatch(str(key)))}
    keys = {name: key for name, key in keys.items() if not name.startswith("all|") and "_average" not in name}
    chosen = list(tasks) or list(keys)
    if not tasks and len(keys) != 1 and not (every and keys):
        raise InputError(
            f"{file.name} has results of {', '.join(sorted(keys)) or 'no task'}",
            "say which with --task name|shots",
        )
    for task in chosen:
        if task not in keys:
            raise InputError(
                f"{file.name} has no results of {task!r}",
                f"choose from {', '.join(sorted(keys)) or 'another file'}",
            )
    return [
        _score(file, general, results[keys[t]], configs.get(keys[t]), t, keys[t], metric, main)
        for t in chosen
    ]


def other_shares(score: Score) -> dict[str, float]:
    """Further metrics of a score's task that are shares from 0 to 1, such as pass@k beside avg@n: name -> value."""
    results = _part(_load(score.results), "results", score.results)
    for key, values in results.items():
        match = _KEY.fullmatch(str(key))
        if match and f"{match[1]}|{match[2]}" == score.task and isinstance(values, dict):
            return {
                name: float(value)
                for name, value in values.items()
                if name != score.metric
                and not name.endswith("_stderr")
                and is_number(value)
                and 0 <= value <= 1
            }
    return {}


def _load(file: Path) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no number")

    try:
        if file.stat().st_size > _LARGEST:
            raise InputError(f"{file.name} has more than {_LARGEST >> 20} MiB", "it is no results file")
        found = json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{file.name} is no results file: {reason}", "give a results_….json of lighteval"
        ) from None
    if not isinstance(found, dict):
        raise InputError(
            f"{file.name} is no results file: not a mapping", "give a results_….json of lighteval"
        )
    return found


def _part(run: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    part = run.get(name)
    if not isinstance(part, dict):
        raise InputError(
            f"{file.name} is no results file: it has no {name}", "give a results_….json of lighteval"
        )
    return part


def _score(
    file: Path,
    general: Mapping[str, Any],
    values: Any,
    config: Any,
    task: str,
    key: str,
    metric: str,
    main: bool,
) -> Score:
    where = f"{file.name}, {task}"
    if not isinstance(values, dict) or not isinstance(config, dict):
        raise InputError(f"{where}: no metrics, or no configuration of the task", "evaluate it again")
    names = [name for name in values if isinstance(name, str) and not name.endswith("_stderr")]
    if metric and metric not in names:
        raise InputError(f"{where} has no metric {metric!r}", f"choose from {', '.join(names)}"[:200])
    if not names or (not metric and not main and len(names) != 1):
        raise InputError(f"{where} has several metrics", f"say which with --metric: {', '.join(names)}"[:200])
    metric = metric or names[0]
    share = _number(values[metric], f"{where}: {metric}")
    if not 0 <= share <= 1:
        raise InputError(
            f"{where}: {metric} is {share:g}, which is not a share from 0 to 1", "choose another --metric"
        )
    model, dataset = (str(x or "") for x in (general.get("model_name"), config.get("hf_repo")))
    details = _details(file, model, key)
    n, correct, low, high = _certainty(details, metric, share, where)
    if details is None:
        error = values.get(f"{metric}_stderr")
        if error is not None:
            half = Z95 * _number(error, f"{where}: {metric}_stderr")
            low, high = max(0.0, share - half), min(1.0, share + half)
        documents = config.get("effective_num_docs")
        n = documents if _is_count(documents) else 0
    split = config.get("evaluation_splits")
    splits = split if isinstance(split, list | tuple) else [split] if split else []
    model_config = general.get("model_config")
    parameters = model_config.get("generation_parameters") if isinstance(model_config, dict) else None
    parameters = parameters if isinstance(parameters, dict) else {}
    tokens = parameters.get("max_new_tokens") or config.get("generation_size")
    temperature = parameters.get("temperature")
    date = _DATE.search(file.name) or (_DATE.search(f"results_{details.parent.name}") if details else None)
    return Score(
        task=task,
        metric=metric,
        share=share,
        n=n,
        correct=correct,
        low=low,
        high=high,
        model=model,
        dataset=dataset,
        config=str(config.get("hf_subset") or ""),
        splits=tuple(map(str, splits)),
        revision=str(config.get("hf_revision") or ""),
        date=date[1][:10] if date else "",
        max_tokens=tokens if _is_count(tokens) else 0,
        temperature=None if temperature is None else _number(temperature, f"{where}: temperature"),
        results=file,
        details=details,
    )


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40


def _number(value: Any, where: str) -> float:
    if not is_number(value):
        raise InputError(f"{where} is not a number: {str(value)[:40]!r}", "evaluate it again")
    return float(value)


def _details(file: Path, model: str, key: str) -> Path | None:
    """lighteval's Parquet file of one row per problem, where it lies beside the results."""
    date = _DATE.search(file.name)
    # By the names of files below the run's own folder; nothing in the results says where to look.
    root = next((p.parent for p in file.parents[:3] if p.name == "results"), file.parent)
    found = [
        path
        for path in sorted(root.glob("**/details_*.parquet"))
        if path.name.startswith(f"details_{key}_") and (date is None or date[1] in path.name)
    ]
    mine = [path for path in found if model and model.strip("/") in path.parent.parent.as_posix()]
    return (mine or found)[-1] if found else None


def _certainty(
    details: Path | None, metric: str, share: float, where: str
) -> tuple[int, int | None, float | None, float | None]:
    """Problems, right answers, and the 95 % interval, from one value per problem.

    Raises InputError where the problems' values do not give the share that was reported.
    """
    if details is None:
        return 0, None, None, None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        column = pq.read_table(details, columns=["metric"])["metric"].to_pylist()
        values = [float(row[metric]) for row in column]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        raise InputError(
            f"{where}: {details.name} has no {metric} per problem", "evaluate it again"
        ) from None
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if not n or not math.isfinite(mean) or abs(mean - share) > 1e-6:
        raise InputError(
            f"{where}: the results say {share:g}, the {n} problems of {details.name} give {mean:g}",
            "evaluate it again",
        )
    if all(value in (0.0, 1.0) for value in values):
        correct = int(sum(values))
        return n, correct, *wilson(correct, n)
    if not all(0 <= value <= 1 for value in values):
        raise InputError(
            f"{where}: {metric} of a problem is not a share from 0 to 1", "choose another --metric"
        )
    worth = effective(values, _answers(details))
    return n, None, *wilson(min(mean * worth, worth), worth)


def _answers(details: Path) -> float:
    """Answers to each problem, where there are several; no number where the details do not say, or there is one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts = set()
    try:
        with pq.ParquetFile(details) as file:
            for batch in file.iter_batches(256, columns=["model_response.text"]):
                texts = (row["model_response"]["text"] for row in batch.to_pylist())
                counts |= {len(text) if isinstance(text, list) else 1 for text in texts}
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return math.inf
    return max(counts) if counts and max(counts) > 1 else math.inf


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value of a file is a finite number; true and false are none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False
