"""The numbers of a release, gathered from the records of its steps.

    evaluation/base-s-raw-full/test  record.json: metrics {"n": 200, "correct": 54, "accuracy": 0.27, …}
    student/base-s-raw-full          record.json: metrics {"train_tokens": 571000, "train_seconds": 120.4, …}
        -> {"student": "base-s-raw-full", "origin": "student", "base": "base-s", "variant": "raw", "seed": 0,
            "benchmark": "test", "accuracy": 0.27, "ci_low": 0.21, …, "train_tokens_of_raw": 1.0}

Report, cards, dataset and Space all show these rows, so that no two of them can disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from hubkit.errors import InputError
from hubkit.recipe.config import Recipe
from hubkit.records import read_rows
from hubkit.store import Record
from hubkit.students.settings import method_card
from hubkit.traces.variants import Variant, possible_variants, sort_key

__all__ = [
    "RESULTS_SCHEMA",
    "Facts",
    "Row",
    "answers_of",
    "at_level",
    "compare",
    "null_tests",
    "paired_tests",
    "peers",
    "results_schema",
    "student_rows",
    "variant_order",
    "variant_rows",
    "without_level",
    "without_level_of",
]

Row = dict[str, Any]

RESULTS_SCHEMA: Final = pa.schema(
    [
        ("student", pa.string()),
        ("origin", pa.string()),
        ("teacher", pa.string()),
        ("base", pa.string()),
        ("variant", pa.string()),
        ("kind", pa.string()),
        ("compressor", pa.string()),
        ("level", pa.string()),
        ("method", pa.string()),
        ("adapter", pa.bool_()),
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
        ("samples", pa.int32()),
        ("pass_at_k", pa.float64()),
        ("maj_at_k", pa.float64()),
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
"""One row per student, or base as it is (`origin` says which), and benchmark; of a mixture's student one per level, for
which a release without mixtures has no column. `*_of_raw` are relative to the student of the same teacher, base,
method and seed that was trained on raw traces."""

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
_SAMPLED: Final = ("samples", "pass_at_k", "maj_at_k")
"""Columns for several answers to each problem; null with one answer."""
_TRAINING: Final = ("train_rows", "train_tokens", "train_seconds", "trainable_parameters")
_RATIOS: Final = {
    "train_tokens_of_raw": "train_tokens",
    "train_seconds_of_raw": "train_seconds",
    "output_tokens_of_raw": "mean_output_tokens",
    "accuracy_of_raw": "accuracy",
}


@dataclass(frozen=True)
class Facts:
    """The finished steps of a run: the recipe, where they are and their records."""

    recipe: Recipe
    folders: Mapping[str, Path]
    records: Mapping[str, Record]

    @classmethod
    def read(cls, recipe: Recipe, folders: Mapping[str, Path]) -> Facts:
        """Facts of these steps: step name -> folder of its output."""
        return cls(recipe, folders, {name: Record.read(folder) for name, folder in folders.items()})

    def kind(self, *kinds: str) -> dict[str, Record]:
        """Step name -> record of all steps of some kinds, in the order of the plan."""
        return {name: record for name, record in self.records.items() if record.kind in kinds}

    def variant(self, name: str) -> Variant:
        """The variant of this name."""
        return self.recipe.known_variants()[name]

    @property
    def has_levels(self) -> bool:
        """Whether there is a mixture: outputs and results then have a level."""
        return any(variant.row.mixture for variant in self.recipe.variants())

    def variants(self, teacher: str) -> dict[Variant, str]:
        """Variant -> step name, of what was made of one teacher's traces, in the table's order."""
        possible = possible_variants(c.name for c in self.recipe.compressors).values()
        found = {v: step for v in possible if (step := self._step(v, teacher)) in self.records}
        return dict(sorted(found.items(), key=lambda item: sort_key(item[0])))

    def _step(self, variant: Variant, teacher: str) -> str:
        """Returns the step that wrote a variant. With a selection, raw traces are those of the step `selected`."""
        selected = f"selected/{teacher}"
        return (
            selected if not variant.row.of_compressor and selected in self.records else variant.step(teacher)
        )

    def teachers(self) -> list[str]:
        return [t.name for t in self.recipe.origins() if self._step(Variant("raw"), t.name) in self.records]

    def benchmarks(self) -> list[str]:
        names = (record.config["benchmark"]["name"] for record in self.kind("evaluation").values())
        return list(dict.fromkeys(names))


def at_level(name: str, level: str | None) -> str:
    """Returns the name of a student, or of its variant, at a level of effort."""
    return f"{name} at {level}" if level else name


def variant_order(row: Row) -> tuple[int, str]:
    """Sort key of a row by its variant: bases as they are first, then in the table's order."""
    return sort_key(Variant(row["kind"], row["compressor"] or "")) if row["kind"] else (-1, "")


def student_rows(facts: Facts) -> list[Row]:
    """One row per student and benchmark, and level of a mixture, with the ratios to the raw student beside it."""
    rows = []
    levels: list[str] = []
    for step, record in facts.kind("evaluation").items():
        config, metrics = record.config, record.metrics
        row: Row = dict.fromkeys(RESULTS_SCHEMA.names)
        row |= {
            name: config.get(name) for name in ("student", "teacher", "base", "variant", "method", "seed")
        }
        row["benchmark"] = config["benchmark"]["name"]
        if level := config.get("level"):
            row["level"] = level["value"]
            levels.append(level["value"])
        for name in _MEASURED:
            if name not in metrics:
                raise InputError(
                    f"the record of {step} has no {name}", "run that step again with this hubkit"
                )
            row[name] = metrics[name]
        row |= {name: metrics.get(name) for name in _SAMPLED}
        row["origin"] = "student" if "student" in record.inputs else "base"
        if row["origin"] == "student":
            variant = facts.variant(row["variant"])
            row |= {"kind": variant.kind, "compressor": variant.compressor or None}
            training = facts.records[f"student/{row['student']}"]
            row["adapter"] = method_card(training.config).adapter
            row |= {name: training.metrics.get(name) for name in _TRAINING}
        rows.append(row)
    raw = {peers(row): row for row in rows if row["kind"] == "raw"}
    for row in rows:
        beside = raw.get(peers(row)) if row["origin"] == "student" else None
        if beside is not None:
            row |= {ratio: _ratio(row[name], beside[name]) for ratio, name in _RATIOS.items()}

    def order(row: Row) -> tuple[Any, ...]:
        key = (row["benchmark"], row["base"], row["teacher"] or "", row["method"] or "")
        # The untrained base comes before all students of its base.
        return (
            *key[:2],
            row["origin"] == "student",
            *key[2:],
            row["seed"] or 0,
            variant_order(row),
            *((row["variant"], levels.index(row["level"])) if row["level"] else ()),
        )

    rows.sort(key=order)
    return rows if facts.has_levels else [without_level_of(row) for row in rows]


def results_schema(facts: Facts) -> pa.Schema:
    """Of the rows of `student_rows`."""
    return RESULTS_SCHEMA if facts.has_levels else without_level(RESULTS_SCHEMA)


def without_level(schema: pa.Schema) -> pa.Schema:
    """A schema of a release without mixtures."""
    return schema.remove(schema.get_field_index("level"))


def without_level_of(row: Row) -> Row:
    """The same of a row."""
    return {name: value for name, value in row.items() if name != "level"}


def peers(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns what students have in common that differ in the variant alone; of rows and of tests."""
    return tuple(row[name] for name in ("benchmark", "teacher", "base", "method", "seed"))


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def variant_rows(facts: Facts) -> list[Row]:
    """Returns one row per teacher and variant: kept and dropped traces, and lengths."""
    rows = []
    for teacher in facts.teachers():
        for variant, step in facts.variants(teacher).items():
            record = facts.records[step]
            row: Row = {"teacher": teacher, "variant": variant.name, "kind": variant.kind, "step": step}
            verified = facts.records.get(variant.step(teacher), record)
            row["dropped"] = {
                reason.removeprefix("dropped_"): number
                for reason, number in (verified.counts | record.counts).items()
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
                "solution_tokens",
                "raw_solution_tokens",
                "ratio_response",
                "ratio_target",
            ):
                row[name] = record.metrics.get(name)
            # What the target is a share of: the whole response where solutions are shortened as well.
            row["ratio_quantiles"] = record.metrics.get("ratio_response_quantiles") or record.metrics.get(
                "ratio_quantiles"
            )
            row["quantiles"] = record.metrics.get("quantiles", {}).get("reasoning_tokens", {})
            rows.append(row)
    return rows


def paired_tests(facts: Facts) -> list[Row]:
    """Returns McNemar's exact test between every two students that differ only in the variant, corrected by Holm.

    A mixture's student is tested at each of its levels, `a_level` and `b_level`.

    Both students answered the same problems, so the test is paired; its null hypothesis is that the two accuracies are
    equal. For problems with several answers it is Fisher's randomisation test, which with one answer is McNemar's.
    """
    from hubkit.evaluation.statistics import holm

    groups: dict[tuple[Any, ...], list[tuple[str, Record]]] = {}
    for step, record in facts.kind("evaluation").items():
        config = record.config
        if "student" in record.inputs:
            key = tuple(config.get(name) for name in ("teacher", "base", "method", "seed"))
            groups.setdefault((config["benchmark"]["name"], *key), []).append((step, record))
    tests: list[Row] = []
    for (benchmark, teacher, base, method, seed), group in groups.items():
        group.sort(
            key=lambda item: sort_key(facts.variant(item[1].config["variant"]))
        )  # levels stay in their order
        for (step_a, a), (step_b, b) in combinations(group, 2):
            result = compare(
                answers_of(facts.folders[step_a]), answers_of(facts.folders[step_b]), f"{step_a} and {step_b}"
            )
            tests.append(
                {
                    "benchmark": benchmark,
                    "teacher": teacher,
                    "base": base,
                    "method": method,
                    "seed": seed,
                    "a": a.config["variant"],
                    "b": b.config["variant"],
                    **result,
                    "difference": a.metrics["accuracy"] - b.metrics["accuracy"],
                }
            )
            if facts.has_levels:
                ends = (("a_level", a), ("b_level", b))
                tests[-1] |= {name: r.config.get("level", {}).get("value") for name, r in ends}
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p
    return tests


def null_tests(facts: Facts, tests: list[Row]) -> list[Row]:
    """Returns the tests of `paired_tests` between a compressor and its controls, raw traces of the same length.

    Each asks whether the compressor's choice of what stays makes a difference; `p_holm` is corrected for these tests
    alone. `a` is the compressed variant, `b` the control.
    """
    from hubkit.evaluation.statistics import holm

    found = []
    for test in tests:
        a, b = facts.variant(test["a"]), facts.variant(test["b"])
        if a.row.compressed and b.row.matched and a.compressor == b.compressor:
            found.append(test | {"compressor": a.compressor, "control": b.kind})
    for test, p in zip(found, holm([test["p"] for test in found]), strict=True):
        test["p_holm"] = p
    return found


def compare(a: tuple[dict[str, int], int], b: tuple[dict[str, int], int], who: str) -> Row:
    """Returns the paired test of right answers, `answers_of` two students. Raises InputError if the problems differ."""
    from hubkit.evaluation.statistics import paired_interval, sign_flip

    (right_a, answers), (right_b, answers_b) = a, b
    if list(right_a) != list(right_b) or answers != answers_b:
        raise InputError(f"{who} answered different problems", "evaluate both again")
    differences = [right_a[id_] - right_b[id_] for id_ in right_a]
    low, high = paired_interval([difference / answers for difference in differences])
    return {
        "difference": sum(differences) / answers / len(differences),
        "ci_low": low,
        "ci_high": high,
        "only_a": sum(difference > 0 for difference in differences),
        "only_b": sum(difference < 0 for difference in differences),
        "p": sign_flip(differences),
    }


def answers_of(folder: Path) -> tuple[dict[str, int], int]:
    """Returns the right answers to each problem, and the number of answers to each."""
    from hubkit.evaluation.statistics import right_counts

    return right_counts(read_rows(folder / "samples.parquet", columns=["id", "correct"]))
