"""Whether a student of a mixture follows its level of effort: length and accuracy of its answers at each level.

    evaluation/s-mix-raw-compressed-x-full/sums/high  samples of 212, 180, … tokens
    evaluation/s-mix-raw-compressed-x-full/sums/low   samples of 31, 185, … tokens
        -> {"student": "s-mix-raw-compressed-x-full", "benchmark": "sums", "long": "high", "short": "low",
            "shorter": 0.93, "shorter_low": 0.88, …, "length": 0.21, "difference": -0.02, "p": 0.61, …}

The long level is the one with the longer training traces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from hubkit.records import read_rows
from hubkit.release.results import Facts, Row, peers
from hubkit.store import Record

__all__ = ["obedience"]


def obedience(facts: Facts, tests: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each student of a mixture, benchmark and two of its levels. `tests`: those of `paired_tests`.

    `shorter` is the share of problems whose answer at the short level has fewer tokens (of several answers their mean),
    with Wilson's interval; `length` the mean tokens at the short level over those at the long one; `difference` the
    accuracy at the short level less that at the long one, with the interval and the p-value of the paired test.
    """
    from hubkit.evaluation.statistics import wilson

    of_student: dict[tuple[str, str], dict[str, tuple[Path, Record]]] = {}
    for step, record in facts.kind("evaluation").items():
        if asked := record.config.get("level"):
            key = (record.config["student"], record.config["benchmark"]["name"])
            of_student.setdefault(key, {})[asked["value"]] = facts.folders[step], record
    found = []
    for (student, benchmark), levels in of_student.items():
        measured = {level: record.metrics for level, (_, record) in levels.items()}
        config = next(iter(levels.values()))[1].config
        variant = facts.variant(config["variant"])
        taught = {part.level: _taught(facts, config["teacher"], part.variant) for part in variant.parts}
        for long, short in combinations(sorted(levels, key=lambda level: -taught[level]), 2):
            before, after = (_lengths(levels[level][0]) for level in (long, short))
            shorter = sum(after[id_] < before[id_] for id_ in before)
            low, high = wilson(shorter, len(before))
            about = {name: config[name] for name in ("teacher", "base", "variant", "method", "seed")}
            row: Row = {"student": student, "benchmark": benchmark, **about, "long": long, "short": short}
            row |= {
                "n": len(before),
                "shorter": shorter / len(before),
                "shorter_low": low,
                "shorter_high": high,
            }
            for end, which in (("long", long), ("short", short)):
                for name in ("accuracy", "ci_low", "ci_high", "mean_output_tokens"):
                    row[f"{name}_{end}"] = measured[which][name]
            whole = measured[long]["mean_output_tokens"]
            row["length"] = measured[short]["mean_output_tokens"] / whole if whole else None
            found.append(row | _test(tests, row))
    return found


def _taught(facts: Facts, teacher: str, name: str) -> float:
    """Mean reasoning tokens of the traces of a variant."""
    metrics = facts.records[facts.variants(teacher)[facts.variant(name)]].metrics
    return float(metrics.get("reasoning_tokens") or 0) / max(1, metrics.get("rows") or 1)


def _lengths(folder: Path) -> dict[str, int]:
    """Problem -> tokens of all answers to it."""
    tokens: dict[str, int] = {}
    for row in read_rows(folder / "samples.parquet", columns=["id", "output_tokens"]):
        tokens[row["id"]] = tokens.get(row["id"], 0) + row["output_tokens"]
    return tokens


def _test(tests: Sequence[Mapping[str, Any]], row: Row) -> Row:
    """Of the paired test of two levels: short less long."""
    for test in tests:
        levels = (test.get("a_level"), test.get("b_level"))
        if test["a"] == test["b"] == row["variant"] and peers(test) == peers(row):
            values = {name: test[name] for name in ("difference", "ci_low", "ci_high", "p", "p_holm")}
            if levels == (row["short"], row["long"]):
                return values
            if levels == (row["long"], row["short"]):
                turned = {
                    "difference": -test["difference"],
                    "ci_low": -test["ci_high"],
                    "ci_high": -test["ci_low"],
                }
                return values | turned
    raise ValueError(f"{row['student']} was not tested at the levels {row['long']} and {row['short']}")
