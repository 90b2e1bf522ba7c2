"""Generation and compression with the shipped models: what is kept, dropped, retried and refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import MODELS, NANO

from hubkit.config import EngineRuntime, load_recipe
from hubkit.errors import GateError
from hubkit.records import PROBLEM_SCHEMA, VARIANT_SCHEMAS, messages_of, write_rows
from hubkit.store import StepContext
from hubkit.traces import compress, generate

PROMPT = load_recipe(NANO).compressors[0].prompt


def problems(count: int) -> list[dict[str, str]]:
    rng = random.Random(0)
    made = []
    for i in range(count):
        a, b, c = (rng.randint(1, 9) for _ in range(3))
        text = f"State the final answer to the following arithmetic problem: {a} + {b} + {c} ="
        made.append(
            {
                "id": f"p-{i}",
                "source": "test",
                "problem": text,
                "answer": str(a + b + c),
                "verifier": "math",
                "metadata": "",
            }
        )
    return made


def context(folder: Path, name: str, config: dict[str, Any], **models: str) -> StepContext:
    inputs = {path.name: path for path in folder.iterdir() if path.is_dir()}
    made = StepContext(
        step=f"{name}/x/0",
        config={"seed": 0, "shard": [0, 1]} | config,
        runtime={"engine": EngineRuntime().model_dump(), "device": "cpu", "threads": 1},
        inputs=inputs,
        models={key: {"model": str(MODELS / model), "revision": ""} for key, model in models.items()},
        out=folder / f"{name}-out",
        work=folder / f"{name}-work",
    )
    made.out.mkdir()
    made.work.mkdir()
    return made


def teacher(folder: Path, model: str = "teacher", **config: Any) -> StepContext:
    sampling = {"max_tokens": 300, "temperature": 0.7}
    wanted = {"teacher": "t", "samples": 2, "sampling": sampling, "system": ""} | config
    return context(folder, "traces", wanted, teacher=model)


def test_a_teacher_answers_each_problem_as_often_as_asked(tmp_path: Path) -> None:
    write_rows(tmp_path / "problems" / "problems.parquet", problems(9), PROBLEM_SCHEMA)
    step = teacher(tmp_path)
    generate.run(step)
    rows = pq.read_table(step.out / "traces.parquet").to_pylist()
    assert [(row["id"], row["sample"]) for row in rows] == [(f"p-{i}", s) for i in range(9) for s in (0, 1)]
    assert len({row["reasoning"] for row in rows}) > 9, "samples of one problem differ"
    assert step.counts["traces"] == 18
    assert step.metrics["completion_tokens"] == sum(row["completion_tokens"] for row in rows)


def test_a_teacher_that_never_thinks_is_stopped_early(tmp_path: Path) -> None:
    write_rows(tmp_path / "problems" / "problems.parquet", problems(200), PROBLEM_SCHEMA)
    # The compressor answers, and never opens a thinking span.
    step = teacher(tmp_path, "compressor", sampling={"max_tokens": 20, "temperature": 0.0}, samples=1)
    with pytest.raises(GateError, match="none of the first 32 answers has a thinking span") as caught:
        generate.run(step)
    assert "reasoning model" in caught.value.remedy


def raw_rows(reasonings: list[str], answers: list[str]) -> list[dict[str, Any]]:
    rows = []
    for problem, reasoning, answer in zip(problems(len(reasonings)), reasonings, answers, strict=True):
        solution = f"The answer is \\boxed{{{answer}}}."
        empty: dict[str, Any] = dict.fromkeys(VARIANT_SCHEMAS["raw"].names)
        rows.append(
            empty
            | {name: problem[name] for name in ("id", "source", "problem", "answer", "verifier")}
            | {
                "sample": 0,
                "teacher": "t",
                "reasoning": reasoning,
                "solution": solution,
                "messages": messages_of(problem["problem"], reasoning, solution),
                "correct": True,
                "raw_reasoning_tokens": 100,
                "raw_reasoning_chars": len(reasoning),
            }
        )
    return rows


def test_a_compressed_trace_reaches_the_answer_or_is_dropped(tmp_path: Path) -> None:
    known = problems(6)
    reasonings = []
    for problem in known:
        a, b, c = (int(word) for word in problem["problem"].split() if word.isdigit())
        reasonings.append(
            f"I need to work out {a} + {b} + {c}.\nFirst {a} + {b}: just {max(a, b)} + {min(a, b)} = {a + b}. "
            f"So {a + b} + {c} is next.\nThen {a + b} + {c}: So {a + b} + {c} = {a + b + c}.\n"
            f"The total is {a + b + c}."
        )
    # The last problem's known answer is one that no honest compressor reaches.
    known[-1]["answer"] = "999"
    write_rows(tmp_path / "problems" / "problems.parquet", known, PROBLEM_SCHEMA)
    rows = raw_rows(reasonings, [p["answer"] for p in known])
    write_rows(tmp_path / "raw" / "data.parquet", rows, VARIANT_SCHEMAS["raw"])
    config = {
        "compressor": "c",
        "prompt": PROMPT,
        "prompt_sha": "0",
        "attempts": 2,
        "sampling": {"max_tokens": 120, "temperature": 0.0},
    }
    step = context(tmp_path, "compress", config, compressor="compressor", tokenizer="student-s")
    compress.run(step)
    kept = pq.read_table(step.out / "data.parquet").to_pylist()
    rejected = pq.read_table(step.out / "rejected.parquet").to_pylist()
    assert len(kept) + len(rejected) == 6 and len(kept) >= 3
    assert rejected[-1]["id"] == "p-5" and rejected[-1]["reason"] == "wrong"
    assert step.counts["retries"] >= 1 and step.counts["dropped_wrong"] == len(rejected)
    for row in kept:
        assert "\\boxed" not in row["reasoning"] and 0 < row["ratio"] < 1
        assert row["solution"] == rows[int(row["id"][2:])]["solution"], "the teacher's own solution stays"
        assert row["messages"] == messages_of(row["problem"], row["reasoning"], row["solution"])


@given(st.text(), st.text())
def test_a_hostile_trace_is_only_text_in_the_prompt(problem: str, reasoning: str) -> None:
    row = {"problem": problem + "{reasoning}", "reasoning": reasoning + "{problem}{0}"}
    filled = compress._fill("P {problem} R {reasoning} {x}", row)
    assert filled == f"P {row['problem']} R {row['reasoning']} {{x}}"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("2 + 2 = 4.\n\\boxed{4}", "2 + 2 = 4."),
        ("2 + 2 = 4.\n**\\boxed{4}**.", "2 + 2 = 4."),
        ("So \\boxed{4}", "So \\boxed{4}"),
        ("a\n$\\boxed{\\frac{1}{2}}$", "a"),
        ("\\boxed{4}", ""),
    ],
)
def test_a_last_line_that_only_boxes_the_answer_is_no_trace(text: str, left: str) -> None:
    assert compress.strip_answer(text) == left
