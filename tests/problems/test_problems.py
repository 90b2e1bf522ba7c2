from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hubkit.errors import InputError
from hubkit.problems import split_of
from hubkit.problems.problems import run
from hubkit.records import read_rows
from hubkit.store import StepContext

GYM = {
    "source": "reasoning-gym",
    "task": "chain_sum",
    "options": {"min_terms": 2, "max_terms": 3},
    "size": 30,
}


def make(folder: Path, config: dict[str, Any], **parts: Any) -> list[dict[str, Any]]:
    folder.mkdir(parents=True)
    context = StepContext("problems/x", config, {}, {}, parts.pop("models", {}), folder, folder, **parts)
    run(context)
    return list(read_rows(folder / "problems.parquet"))


def test_the_splits_of_any_seeds_never_share_a_problem(tmp_path: Path) -> None:
    rows = {
        split: make(tmp_path / split, {**GYM, "seed": seed, "split": split})
        for seed, split in enumerate(["train", "dev", "test"])
    }
    for split, problems in rows.items():
        assert len(problems) == 30 == len({p["id"] for p in problems})
        assert {split_of(p["problem"]) for p in problems} == {split}


def test_the_same_seed_gives_the_same_problems(tmp_path: Path) -> None:
    config = {**GYM, "seed": 3, "split": "train"}
    assert make(tmp_path / "a", config) == make(tmp_path / "b", config)


def test_a_task_that_does_not_exist_or_is_too_small(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no_such_task"):
        make(tmp_path / "a", {**GYM, "task": "no_such_task", "split": "train"})
    small = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    with pytest.raises(InputError, match="only"):
        make(tmp_path / "b", {**GYM, "options": small, "size": 500, "split": "test"})


def test_a_file_of_problems(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [{"q": "1 + 1?", "a": 2}, {"q": "1 + 1?", "a": 2}, {"q": "", "a": 3}, {"q": "2 + 2?", "a": 4}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    config = {"source": "file", "path": "mine.jsonl", "problem": "q", "answer": "a"}
    found = make(tmp_path / "out", config, paths={"source": path})
    assert [(row["problem"], row["answer"], row["verifier"]) for row in found] == [
        ("1 + 1?", "2", "math"),
        ("2 + 2?", "4", "math"),
    ]
    with pytest.raises(InputError, match="no column 'question'"):
        make(tmp_path / "b", {**config, "problem": "question"}, paths={"source": path})
    path.write_text('{"q": "x"}\n{torn')
    with pytest.raises(InputError, match=r"mine.jsonl:2|no column"):
        make(tmp_path / "c", config, paths={"source": path})


def test_what_a_verifier_needs_travels_with_the_problem(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [
        {"problem": "Double x.", "answer": "-", "tests": ["assert double(2) == 4"], "options": ["a", "b"]},
        {
            "problem": "Double it.",
            "answer": "-",
            "tests": '[{"input": "2", "output": "4"}]',
            "options": ["c"],
        },
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    config = {"source": "file", "path": "mine.jsonl"}

    def metadata(name: str, **more: Any) -> list[Any]:
        found = make(tmp_path / name, config | more, paths={"source": path})
        return [json.loads(row["metadata"] or "null") for row in found]

    assert metadata("code", verifier="code") == [
        {"tests": ["assert double(2) == 4"]},
        {"tests": [{"input": "2", "output": "4"}]},
    ]
    choices = [row | {"answer": "B", "options": [*"ab", str(i)]} for i, row in enumerate(rows)]
    path.write_text("\n".join(json.dumps(row) for row in choices))
    assert metadata("choice", verifier="choice", options="options") == [
        {"options": ["a", "b", "0"]},
        {"options": ["a", "b", "1"]},
    ]
    assert metadata("letters", verifier="choice", parts={"options": ""}) == [None, None]
    with pytest.raises(InputError, match=r"options that the problem does not show .*`options: options`"):
        metadata("unsaid", verifier="choice")
    assert metadata("numeric", verifier="numeric", tolerance=0.01) == [{"tolerance": 0.01}] * 2
    with pytest.raises(InputError, match="no column 'cases'"):
        metadata("missing", verifier="code", tests="cases")
    path.write_text(json.dumps(rows[0] | {"tests": "[torn"}))
    with pytest.raises(InputError, match="tests are not JSON"):
        metadata("torn", verifier="code")
    path.write_text(json.dumps(rows[0] | {"tests": []}))
    with pytest.raises(InputError, match="there are no tests"):
        metadata("none", verifier="code")
