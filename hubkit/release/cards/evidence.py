"""Parts of cards besides totals: example rows, lengths, paired tests, a question that was answered.

raw 470 rows, compressed-nano-compressor 462  ->  two traces in both forms; "64 to 128 tokens: ████ 301, 12"
outputs of s-raw-full  ->  the shortest problem of the benchmark that it got right, for the card's snippet
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hubkit.records import read_rows
from hubkit.release.examples import examples
from hubkit.release.results import Facts, Row, peers
from hubkit.students.gates import level_of
from hubkit.traces.variants import Variant

__all__ = [
    "Question",
    "alike",
    "beside_raw",
    "checked",
    "citation",
    "disagreement",
    "excerpts",
    "histogram",
    "question",
]

_EXAMPLES: Final = 2
_LONGEST: Final = 1_500
"""Characters of an example's text."""
_BINS: Final = 8
_BAR: Final = 12
"""Characters of the longest bar."""


@dataclass(frozen=True)
class Question:
    """A problem of a benchmark, for a snippet."""

    problem: str
    answer: str
    benchmark: str
    max_tokens: int
    right: bool
    """Whether this model's published output is right."""
    temperature: float
    """With 0 anybody who asks again gets the same answer."""
    template: dict[str, str]
    """Variables of the chat template: the level of effort at which a mixture was asked."""


def question(facts: Facts, name: str) -> Question | None:
    """Returns the shortest problem that a student or base got right, greedily if possible; else the shortest that it
    was asked. Returns None if it was never evaluated."""
    found: list[tuple[bool, bool, int, Question]] = []
    for step, record in facts.kind("evaluation").items():
        if record.config["student"] != name:
            continue
        benchmark = record.config["benchmark"]
        for row in read_rows(facts.folders[step] / "samples.parquet"):
            right = row["correct"] and row["finish_reason"] == "stop"
            limit = benchmark["sampling"]["max_tokens"]
            drawn = benchmark["sampling"].get("temperature", 0.0)
            given = level_of(record.config)
            one = Question(row["problem"], row["answer"], benchmark["name"], limit, right, drawn, given)
            found.append((not right, drawn > 0, len(row["problem"]), one))
    return min(found, key=lambda item: item[:3])[3] if found else None


def beside_raw(rows: list[Row], tests: list[Row], facts: Facts) -> list[Row]:
    """Returns rows with `test`: the paired test against the student of the same base, method and seed on raw traces.

    {"difference": accuracy above raw's, "p": …, "p_holm": …}, or None for raw itself and for bases.
    """

    def key(row: Mapping[str, Any], variant: str | None, level: str | None) -> tuple[Any, ...]:
        return (*peers(row), variant, level)

    found = {
        key(test, test["b"], test.get("b_level")): {
            "difference": 0.0 - test["difference"],  # a tie is 0, not -0
            "p": test["p"],
            "p_holm": test["p_holm"],
        }
        for test in tests
        if facts.variant(test["a"]).kind == "raw"
    }
    return [row | {"test": found.get(key(row, row["variant"], row.get("level")))} for row in rows]


def excerpts(facts: Facts, teacher: str) -> list[dict[str, Any]]:
    """Returns two traces of a teacher in all forms, the most shortened and a median one; long texts are cut."""
    return [
        {
            "what": example["what"],
            "id": example["id"],
            "sample": example["sample"],
            "problem": _cut(example["problem"]),
            "answer": _cut(example["answer"]),
            "forms": [
                {"name": trace["variant"], "tokens": trace["tokens"], "text": _cut(trace["text"])}
                for trace in example["traces"]
            ],
        }
        for example in examples(facts, teacher)[:_EXAMPLES]
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} […]"


def histogram(facts: Facts, teacher: str) -> list[dict[str, Any]]:
    """Returns a histogram of reasoning tokens, one row per range, with a bar and a count for each variant.

    Ranges grow by a constant factor, from the shortest trace of any variant to the longest.
    """
    lengths = {
        variant.name: np.fromiter(
            (
                row["reasoning_tokens"]
                for row in read_rows(facts.folders[step] / variant.row.file, columns=["reasoning_tokens"])
            ),
            dtype=np.int64,
        )
        for variant, step in facts.variants(teacher).items()
    }
    together = np.concatenate(list(lengths.values()))
    low, high = max(1, int(together.min())), max(1, int(together.max()))
    edges = np.unique(np.geomspace(low, high + 1, _BINS + 1).astype(np.int64))
    edges[-1] = high + 1
    # Where some have no reasoning, the first range begins with them.
    counts = {name: np.histogram(np.maximum(values, low), edges)[0] for name, values in lengths.items()}
    most = max(1, *(int(c.max()) for c in counts.values()))
    return [
        {
            "low": int(edges[i] if i else together.min()),
            "high": int(edges[i + 1]) - 1,
            "cells": [
                f"{'█' * round(_BAR * int(c[i]) / most)} {int(c[i]):,}".strip() for c in counts.values()
            ],
        }
        for i in range(len(edges) - 1)
    ]


def citation(name: str, namespace: str, version: int, year: str, address: str) -> str:
    """Returns BibTeX of a release, and of the paper that it follows."""
    key = "".join(c for c in f"{namespace}{name}" if c.isalnum())
    braces = str.maketrans({"{": "", "}": "", "\\": ""})
    return (
        f"@misc{{{key}v{version},\n"
        f"  title = {{{name}: reasoning traces and students, version {version}}},\n"
        f"  author = {{{{{namespace}}}}},\n"
        f"  year = {{{year}}},\n"
        f"  howpublished = {{{address.translate(braces)}}}\n"
        "}\n\n"
        "@misc{compressdistill2026,\n"
        "  title = {Compress-Distill: Reasoning Trace Compression for Efficient Knowledge Distillation},\n"
        "  author = {Griot and Scotti and Abraham},\n"
        "  year = {2026},\n"
        "  eprint = {2606.05988},\n"
        "  archivePrefix = {arXiv}\n"
        "}"
    )


def checked(facts: Facts) -> dict[str, dict[str, Any]]:
    """Returns a benchmark's problems or task -> the contamination step's findings; {} if there is no such step."""
    record = facts.records.get("contamination")
    near = alike(facts).get("tests", {})
    return {
        name: {**found, "near": near.get(name), "dropped": facts.recipe.decontamination.tests == "drop"}
        for name, found in (record.metrics if record else {}).items()
        if name != "near_duplicates"
    }


def alike(facts: Facts) -> dict[str, Any]:
    """Returns the near-duplicates of the contamination step; {} if none were searched."""
    record = facts.records.get("contamination")
    found: dict[str, Any] = record.metrics.get("near_duplicates", {}) if record else {}
    return found


def disagreement(facts: Facts, teacher: str) -> dict[str, int]:
    """Returns the counts of a source's own verdicts on existing traces, and of disagreements with the verifier; {} if
    the source has none, or nothing was verified."""
    said = {
        name: sum(
            r.counts.get(name, 0) for n, r in facts.kind("traces").items() if n.split("/")[1] == teacher
        )
        for name in ("claimed_correct", "claimed_wrong")
    }
    raw = facts.records[Variant("raw").step(teacher)]
    if not any(said.values()) or raw.config.get("unverified"):
        return {}
    otherwise = ("claimed_correct_found_wrong", "claimed_wrong_found_correct")
    return said | {name: raw.counts.get(name, 0) for name in otherwise}
