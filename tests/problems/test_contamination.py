"""What training and test problems have in common: the same, held in a prompt, and near-duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubkit.errors import GateError
from hubkit.problems import contamination
from hubkit.problems.near import Near, Sketches, shingles, without_frame
from hubkit.records import PROBLEM_SCHEMA, read_rows, write_rows
from hubkit.store import StepContext

TRAIN = (
    "A train travels 360 miles in 3 hours from the coast to the hills and back. At the same rate, how many additional "
    "hours would it take the train to travel an additional {} miles along the coast, without a stop on the way?"
)
OTHER = "Harper has 15 rubber bands. His brother has 6 fewer rubber bands than he has. How many do they have together?"


def problems(folder: Path, texts: list[str], **more: Any) -> Path:
    rows = [
        {"id": f"{folder.name}-{i}", "source": "s", "problem": text, "answer": "2", "verifier": "math", "metadata": ""}
        | more
        for i, text in enumerate(texts)
    ]  # fmt: skip
    write_rows(folder / "problems.parquet", rows, PROBLEM_SCHEMA)
    return folder


def check(tmp_path: Path, train: list[str], test: list[str], **settings: Any) -> StepContext:
    inputs = {
        "training/problems/mine": problems(tmp_path / "mine", train),
        # A set of tests may have any name.
        "train-dev": problems(tmp_path / "test", test),
    }
    config = {"decontamination": settings} if settings else {}
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir(), work.mkdir()
    context = StepContext("contamination", config, {}, inputs, {}, out, work)
    contamination.run(context)
    return context


def test_the_same_problem_stops_the_run_even_when_spelt_differently(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="1 of 1 problems of 'train-dev' are in the training set"):
        check(tmp_path, [OTHER], [OTHER.upper().replace(" ", "  ")])


def test_near_duplicates_are_counted_with_examples_and_stop_nothing(tmp_path: Path) -> None:
    found = check(tmp_path, [TRAIN.format(n) for n in (240, 250)] + [OTHER], [TRAIN.format(260)])
    assert {n: m for n, m in found.metrics.items() if n != "near_duplicates"} == {
        "train-dev": {"problems": 1, "in_training": 0}
    }
    near = found.metrics["near_duplicates"]
    (tests,), (training,) = near["tests"].values(), near["training"].values()
    assert (tests["problems"], tests["training"]) == (1, 2) and not found.counts
    assert (training["problems"], training["duplicates"]) == (3, 1)
    (pair,) = training["examples"]
    assert (pair["id"], pair["of"]) == ("mine-1", "mine-0") and "250 miles" in pair["problem"]
    # The estimate is within three standard errors of what it estimates.
    a, b = (set(shingles(TRAIN.format(n))) for n in (240, 250))
    assert abs(pair["similarity"] - len(a & b) / len(a | b)) < 3 * 0.04
    assert not (tmp_path / "out" / "dropped.parquet").exists() and not list((tmp_path / "work").glob("sig*"))


def test_what_is_left_out_is_named_with_its_reason(tmp_path: Path) -> None:
    train = [TRAIN.format(240), OTHER, TRAIN.format(250), OTHER[:40]]
    found = check(tmp_path, train, [OTHER, TRAIN.format(260)], tests="drop", duplicates="drop")
    rows = list(read_rows(tmp_path / "out" / "dropped.parquet"))
    assert [(r["input"], r["id"], r["reason"]) for r in rows] == [
        ("problems/mine", "mine-0", "near_test"), ("problems/mine", "mine-1", "in_test"),
        ("problems/mine", "mine-2", "near_test"),
    ]  # fmt: skip
    assert found.counts == {"dropped_near_test": 2, "dropped_in_test": 1}
    again = tmp_path / "again"
    again.mkdir()
    check(again, train, ["Nothing alike."], duplicates="drop")
    assert [r["reason"] for r in read_rows(again / "out" / "dropped.parquet")] == ["near_duplicate"]


def test_instructions_around_a_question_hide_nothing() -> None:
    prompts = [
        f"Solve it step by step.\n\nQuestion: {text}\nAnswer: in a box" for text in (OTHER, TRAIN.format(5))
    ]
    assert without_frame(prompts) == [OTHER, TRAIN.format(5)]
    assert without_frame(["one alone"]) == ["one alone"] and without_frame(["a", "a"]) == ["", ""]


def test_scripts_without_spaces_have_words_too() -> None:
    assert len(shingles("一个班有四十个学生,其中二十五个是男生。")) > 10
    assert shingles("Ab \ud800 c") == [b"ab ? c"] and shingles("") == [b""]


def test_a_thousand_siblings_are_one_group_and_take_no_square_of_time(tmp_path: Path) -> None:
    near = Near(0.7)
    with Sketches(near, tmp_path / "signatures") as sketches:
        for n in range(1000):
            signature = near.signature(TRAIN.format(n) if n % 2 else f"{n} apples " * 6 + str(n * n))
            sketches.add(signature, near.keys(signature))
        found = sketches.duplicates()
    siblings = set(range(3, 1000, 2))
    assert found.keys() <= siblings and len(siblings - found.keys()) <= 2
    assert all(other < n for n, (other, _) in found.items())
    assert not (tmp_path / "signatures").exists()
