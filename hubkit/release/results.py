"""The numbers of a release, gathered from the records of its steps.

    evaluation/base-s-raw-full/test  record.json: metrics {"n": 200, "correct": 54, "accuracy": 0.27, …}
    student/base-s-raw-full          record.json: metrics {"train_tokens": 571000, "train_seconds": 120.4, …}
        -> {"student": "base-s-raw-full", "base": "base-s", "variant": "raw", "method": "full", "seed": 0,
            "benchmark": "test", "accuracy": 0.27, "ci_low": 0.21, …, "train_tokens_of_raw": 1.0}

Report, cards, dataset and Space all show these rows, so that no two of them can disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from hubkit.errors import InputError
from hubkit.store import Record

__all__ = [
    "RESULTS_SCHEMA",
    "Facts",
    "Row",
    "over_seeds",
    "paired_tests",
    "student_rows",
    "variant_order",
    "variant_rows",
]

Row = dict[str, Any]

RESULTS_SCHEMA: Final = pa.schema(
    [
        ("student", pa.string()),
        ("teacher", pa.string()),
        ("base", pa.string()),
        ("variant", pa.string()),
        ("method", pa.string()),
        ("seed", pa.int32()),
        ("benchmark", pa.string()),
        ("n", pa.int32()),
        ("correct", pa.int32()),
        ("accuracy", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("mean_output_tokens", pa.float64()),
        ("cut_share", pa.float64()),
        ("accuracy_per_1000_tokens", pa.float64()),
        ("train_rows", pa.int32()),
        ("train_tokens", pa.int64()),
        ("train_seconds", pa.float64()),
        ("trainable_parameters", pa.int64()),
        ("train_tokens_of_raw", pa.float64()),
        ("train_seconds_of_raw", pa.float64()),
        ("output_tokens_of_raw", pa.float64()),
        ("accuracy_of_raw", pa.float64()),
    ]
)
"""One row per student (or untrained base: variant, method, seed null) and benchmark. `*_of_raw` are relative to
the student of the same teacher, base, method and seed that was trained on raw traces."""

_MEASURED: Final = (
    "n",
    "correct",
    "accuracy",
    "ci_low",
    "ci_high",
    "mean_output_tokens",
    "cut_share",
    "accuracy_per_1000_tokens",
)
_TRAINING: Final = ("train_rows", "train_tokens", "train_seconds", "trainable_parameters")
_RATIOS: Final = {
    "train_tokens_of_raw": "train_tokens",
    "train_seconds_of_raw": "train_seconds",
    "output_tokens_of_raw": "mean_output_tokens",
    "accuracy_of_raw": "accuracy",
}
_ORDER: Final = {"raw": 0, "compressed": 1, "truncated": 2}


@dataclass(frozen=True)
class Facts:
    """The finished steps of a run: where they are and their records."""

    folders: Mapping[str, Path]
    records: Mapping[str, Record]

    @classmethod
    def read(cls, inputs: Mapping[str, Path]) -> Facts:
        return cls(inputs, {name: Record.read(folder) for name, folder in inputs.items()})

    def kind(self, *kinds: str) -> dict[str, Record]:
        """Step name -> record of all steps of some kinds, in the order of the plan."""
        return {name: record for name, record in self.records.items() if record.kind in kinds}

    def variants(self, teacher: str) -> dict[str, str]:
        """Config name -> step name of one teacher's published variants, raw first."""
        found = {}
        for name in self.kind("raw", "compressed", "truncated"):
            kind, owner, *compressor = name.split("/")
            if owner == teacher:
                found["-".join([kind, *compressor])] = name
        return dict(sorted(found.items(), key=lambda item: variant_order(item[0])))

    def teachers(self) -> list[str]:
        return [name.split("/")[1] for name in self.kind("raw")]

    def benchmarks(self) -> list[str]:
        names = (record.config["benchmark"]["name"] for record in self.kind("evaluation").values())
        return list(dict.fromkeys(names))


def variant_order(variant: str | None) -> tuple[int, str]:
    """Sort key: untrained, raw, compressed, truncated."""
    return (_ORDER.get((variant or "").split("-")[0], -1), variant or "")


def student_rows(facts: Facts) -> list[Row]:
    """One row per student and benchmark, with the ratios to the raw student beside it."""
    rows = []
    for step, record in facts.kind("evaluation").items():
        config, metrics = record.config, record.metrics
        row: Row = dict.fromkeys(RESULTS_SCHEMA.names)
        row |= {
            name: config.get(name) for name in ("student", "teacher", "base", "variant", "method", "seed")
        }
        row["benchmark"] = config["benchmark"]["name"]
        for name in _MEASURED:
            if name not in metrics:
                raise InputError(
                    f"the record of {step} has no {name}", "run that step again with this hubkit"
                )
            row[name] = metrics[name]
        training = facts.records.get(f"student/{row['student']}")
        if training is not None:
            row |= {name: training.metrics.get(name) for name in _TRAINING}
        rows.append(row)
    raw = {_peers(row): row for row in rows if row["variant"] == "raw"}
    for row in rows:
        beside = raw.get(_peers(row)) if row["variant"] else None
        if beside is not None:
            row |= {ratio: _ratio(row[name], beside[name]) for ratio, name in _RATIOS.items()}

    def order(row: Row) -> tuple[Any, ...]:
        key = (row["benchmark"], row["base"], row["teacher"] or "", row["method"] or "")
        # The untrained base comes before all students of its base.
        return (
            *key[:2],
            row["variant"] is not None,
            *key[2:],
            row["seed"] or 0,
            variant_order(row["variant"]),
        )

    return sorted(rows, key=order)


def _peers(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("benchmark", "teacher", "base", "method", "seed"))


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def over_seeds(rows: list[Row]) -> list[Row]:
    """Mean and range over the seeds of a student; empty when no student has several."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["variant"]:
            key = tuple(row[name] for name in ("benchmark", "teacher", "base", "variant", "method"))
            groups.setdefault(key, []).append(row)
    result = []
    for (benchmark, teacher, base, variant, method), group in groups.items():
        if len(group) < 2:
            continue
        summary: Row = {
            "benchmark": benchmark,
            "teacher": teacher,
            "base": base,
            "variant": variant,
            "method": method,
            "seeds": len(group),
        }
        for name in ("accuracy", "mean_output_tokens", "train_tokens", "train_seconds"):
            values = [row[name] for row in group if row[name] is not None]
            if values:
                summary |= {name: fmean(values), f"{name}_min": min(values), f"{name}_max": max(values)}
        result.append(summary)
    return result


def variant_rows(facts: Facts) -> list[Row]:
    """One row per teacher and variant: what was kept, what was dropped, how long it is."""
    rows = []
    for teacher in facts.teachers():
        for variant, step in facts.variants(teacher).items():
            record = facts.records[step]
            row: Row = {"teacher": teacher, "variant": variant, "step": step}
            row["dropped"] = {
                reason.removeprefix("dropped_"): number
                for reason, number in record.counts.items()
                if reason.startswith("dropped_")
            }
            for name in (
                "rows",
                "problems",
                "reasoning_tokens",
                "reasoning_chars",
                "raw_reasoning_tokens",
                "raw_reasoning_chars",
                "ratio_tokens",
                "ratio_chars",
            ):
                row[name] = record.metrics.get(name)
            row["quantiles"] = record.metrics.get("quantiles", {}).get("reasoning_tokens", {})
            rows.append(row)
    return rows


def paired_tests(facts: Facts) -> list[Row]:
    """McNemar's exact test between every two variants that differ in nothing else, corrected by Holm.

    Both students answered the same problems, so the test is on pairs; it asks whether the two accuracies can be
    told apart, for the hypothesis that they are equal.
    """
    from hubkit.evaluation.statistics import holm, mcnemar

    groups: dict[tuple[Any, ...], list[tuple[str, Record]]] = {}
    for step, record in facts.kind("evaluation").items():
        config = record.config
        if config.get("variant"):
            key = tuple(config.get(name) for name in ("teacher", "base", "method", "seed"))
            groups.setdefault((config["benchmark"]["name"], *key), []).append((step, record))
    tests: list[Row] = []
    for (benchmark, teacher, base, method, seed), group in groups.items():
        group.sort(key=lambda item: variant_order(item[1].config["variant"]))
        for (step_a, a), (step_b, b) in combinations(group, 2):
            ids_a, correct_a = _answers(facts.folders[step_a])
            ids_b, correct_b = _answers(facts.folders[step_b])
            if ids_a != ids_b:
                raise InputError(f"{step_a} and {step_b} answered different problems", "evaluate both again")
            tests.append(
                {
                    "benchmark": benchmark,
                    "teacher": teacher,
                    "base": base,
                    "method": method,
                    "seed": seed,
                    "a": a.config["variant"],
                    "b": b.config["variant"],
                    "difference": a.metrics["accuracy"] - b.metrics["accuracy"],
                    "only_a": sum(x and not y for x, y in zip(correct_a, correct_b, strict=True)),
                    "only_b": sum(y and not x for x, y in zip(correct_a, correct_b, strict=True)),
                    "p": mcnemar(correct_a, correct_b),
                }
            )
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p
    return tests


def _answers(folder: Path) -> tuple[list[str], list[bool]]:
    table = pq.read_table(folder / "samples.parquet", columns=["id", "correct"])
    return table["id"].to_pylist(), table["correct"].to_pylist()
