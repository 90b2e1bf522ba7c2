"""Which of the correct traces all variants are made from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support import MODELS

from hubkit.errors import GateError
from hubkit.problems.contamination import DROPPED_SCHEMA
from hubkit.records import PROBLEM_SCHEMA, REJECTED_SCHEMA, read_rows, write_rows
from hubkit.store import StepContext
from hubkit.traces import select
from hubkit.traces.lengths import count_tokens
from hubkit.traces.select import Selection
from hubkit.traces.variants import VARIANTS

PROBLEMS, SAMPLES = 12, 4


def words(problem: int, sample: int) -> int:
    """Of a trace's reasoning; the shortest of a problem is not its first."""
    return 5 + (7 * problem + 3 * sample) % 11


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Problem i has its first i % 5 samples wrong, so that of some none is right. The last repeats the first's text."""
    problems, right, wrong = [], [], []
    for i in range(PROBLEMS):
        text = f"What is {i % (PROBLEMS - 1)} + 1?"
        problem = {
            "id": f"p{i:02}",
            "source": "s",
            "problem": text,
            "answer": "1",
            "verifier": "math",
            "metadata": "",
        }
        problems.append(problem)
        for sample in range(SAMPLES):
            if sample < i % 5:
                rejected = {"id": problem["id"], "sample": sample, "teacher": "t", "reason": "wrong"}
                wrong.append(rejected | {"detail": "", "text": ""})
                continue
            reasoning = "so " * words(i, sample)
            [tokens] = count_tokens(MODELS / "student-s", [reasoning])
            row: dict[str, Any] = dict.fromkeys(VARIANTS["raw"].schema.names)
            row |= {n: problem[n] for n in ("id", "source", "problem", "answer", "verifier")}
            lengths = {"reasoning_tokens": tokens, "reasoning_chars": len(reasoning)}
            row |= lengths | {f"raw_{name}": n for name, n in lengths.items()}
            right.append(
                row | {"sample": sample, "reasoning": reasoning, "solution": "It is 1.", "ratio": 1.0}
            )
    write_rows(tmp_path / "problems" / "problems.parquet", problems, PROBLEM_SCHEMA)
    write_rows(tmp_path / "raw" / "data.parquet", right, VARIANTS["raw"].schema)
    write_rows(tmp_path / "raw" / "rejected.parquet", wrong, REJECTED_SCHEMA)
    return {"problems": tmp_path / "problems", "raw": tmp_path / "raw"}


def choose(folders: dict[str, Path], out: Path, **settings: Any) -> tuple[list[dict[str, Any]], StepContext]:
    out.mkdir()
    config: dict[str, Any] = {"teacher": "t"}
    if settings:
        config["select"] = Selection(**settings).model_dump(mode="json")
    if "contamination" in folders:
        config["asked"] = "problems/mine"
    models = {"tokenizer": {"model": str(MODELS / "student-s"), "revision": ""}}
    context = StepContext("selected/t", config, {}, folders, models, out, out)
    select.run(context)
    return list(read_rows(out / "data.parquet")), context


def test_rows_at_random_are_the_same_every_time_and_in_raws_order(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    rows, context = choose(folders, tmp_path / "a", rows=7)
    places = [(row["id"], row["sample"]) for row in rows]
    assert len(places) == 7 and places == sorted(places)
    total = len(list(read_rows(folders["raw"] / "data.parquet")))
    assert context.counts == {"kept": 7, "dropped_budget": total - 7} and context.metrics["rows"] == 7
    assert choose(folders, tmp_path / "b", rows=7)[0] == rows
    assert choose(folders, tmp_path / "c", rows=7, seed=1)[0] != rows
    more = choose(folders, tmp_path / "d", rows=9)[0]
    assert {row["id"] for row in rows} <= {row["id"] for row in more}, (
        "a larger budget keeps what a smaller one had"
    )


def test_the_shortest_of_each_problem_whatever_its_id(folders: dict[str, Path], tmp_path: Path) -> None:
    rows, _ = choose(folders, tmp_path / "a", by="shortest")
    # Of problems 4 and 9 no sample is right, and the last says what the first says.
    assert [row["problem"] for row in rows] == list(dict.fromkeys(row["problem"] for row in rows))
    assert len(rows) == PROBLEMS - 1 - 2
    best: dict[str, int] = {}
    for row in read_rows(folders["raw"] / "data.parquet"):
        best[row["problem"]] = min(best.get(row["problem"], 9999), row["reasoning_tokens"])
    assert {row["problem"]: row["reasoning_tokens"] for row in rows} == best


def test_a_budget_of_tokens_is_kept_and_used(folders: dict[str, Path], tmp_path: Path) -> None:
    rows, context = choose(folders, tmp_path / "a", tokens=200)
    solutions = count_tokens(MODELS / "student-s", [row["solution"] for row in rows])
    spent = sum(row["reasoning_tokens"] for row in rows) + sum(solutions)
    assert context.metrics["response_tokens"] == spent and 150 < spent <= 200
    with pytest.raises(GateError, match="no trace is selected"):
        choose(folders, tmp_path / "b", tokens=1)


def test_pass_rates_are_over_all_samples_of_a_problem(folders: dict[str, Path], tmp_path: Path) -> None:
    rows, context = choose(folders, tmp_path / "a", pass_rate=(0.5, 0.75))
    right = Counter(row["problem"] for row in read_rows(folders["raw"] / "data.parquet"))
    # The first problem is asked as the last one, too: 4 of 4 and 3 of 4 are right, 7 of 8.
    samples = Counter(f"What is {i % (PROBLEMS - 1)} + 1?" for i in range(PROBLEMS) for _ in range(SAMPLES))
    expected = {p for p, n in right.items() if 0.5 <= n / samples[p] <= 0.75}
    assert {row["problem"] for row in rows} == expected and "What is 0 + 1?" not in expected
    assert context.counts["dropped_pass_rate"] == sum(right.values()) - len(rows)


def test_a_range_of_tokens(folders: dict[str, Path], tmp_path: Path) -> None:
    lengths = [row["reasoning_tokens"] for row in read_rows(folders["raw"] / "data.parquet")]
    low, high = sorted(lengths)[5], sorted(lengths)[-5]
    rows, context = choose(folders, tmp_path / "a", length=(low, high))
    assert [row["reasoning_tokens"] for row in rows] == [n for n in lengths if low <= n <= high]
    assert context.counts == {"kept": len(rows), "dropped_length_filter": len(lengths) - len(rows)}


def test_problems_that_decontamination_leaves_out_are_left_out(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    told = [("problems/mine", "p00", "in_test"), ("problems/other", "p01", "in_test")]
    rows = [{"input": of, "id": id_, "reason": reason} for of, id_, reason in told]
    write_rows(tmp_path / "contamination" / "dropped.parquet", rows, DROPPED_SCHEMA)
    found, context = choose(folders | {"contamination": tmp_path / "contamination"}, tmp_path / "a")
    ids = {row["id"] for row in found}
    assert "p00" not in ids and "p01" in ids and context.counts["dropped_in_test"] == SAMPLES


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rows": 0},
        {"pass_rate": (0.9, 0.1)},
        {"pass_rate": (0, 2)},
        {"length": (9, 3)},
        {"rows": 3, "by": "longest"},
    ],
)
def test_what_selects_nothing_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Selection(**settings)
