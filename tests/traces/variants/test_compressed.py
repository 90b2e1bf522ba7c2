"""Generation and compression with the shipped models: what is kept, dropped, retried and refused."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import MODELS, NANO

from hubkit import records
from hubkit.engines import Response
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import GateError
from hubkit.recipe.file import load_recipe
from hubkit.records import PROBLEM_SCHEMA, messages_of, read_rows, write_rows
from hubkit.store import StepContext, digest
from hubkit.traces.compressors import replies, rewrite
from hubkit.traces.journal import Journal, request_hash
from hubkit.traces.origins import teacher as origin
from hubkit.traces.variants import VARIANTS, compressed

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
    origin.run(step)
    rows = pq.read_table(step.out / "traces.parquet").to_pylist()
    assert [(row["id"], row["sample"]) for row in rows] == [(f"p-{i}", s) for i in range(9) for s in (0, 1)]
    assert len({row["reasoning"] for row in rows}) > 9, "samples of one problem differ"
    assert step.counts["traces"] == 18
    assert step.metrics["completion_tokens"] == sum(row["completion_tokens"] for row in rows)


def test_a_teacher_that_never_thinks_is_stopped_early(tmp_path: Path) -> None:
    write_rows(tmp_path / "problems" / "problems.parquet", problems(200), PROBLEM_SCHEMA)
    # The compressor answers, and never opens a thinking span.
    step = teacher(tmp_path, "compressor", sampling={"max_tokens": 120, "temperature": 0.0}, samples=1)
    with pytest.raises(
        GateError, match="none of the first 32 answers can be used; 32 of them: no thinking span"
    ) as caught:
        origin.run(step)
    assert "reasoning model" in caught.value.remedy


def raw_rows(reasonings: list[str], answers: list[str]) -> list[dict[str, Any]]:
    rows = []
    for problem, reasoning, answer in zip(problems(len(reasonings)), reasonings, answers, strict=True):
        solution = f"The answer is \\boxed{{{answer}}}."
        empty: dict[str, Any] = dict.fromkeys(VARIANTS["raw"].schema.names)
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
    write_rows(tmp_path / "raw" / "data.parquet", rows, VARIANTS["raw"].schema)
    config = {
        "compressor": "c",
        "prompt": PROMPT,
        "prompt_sha": "0",
        "attempts": 2,
        "sampling": {"max_tokens": 120, "temperature": 0.0},
    }
    step = context(tmp_path, "compress", config, compressor="compressor", tokenizer="student-s")
    rewrite.run(step)
    kept = pq.read_table(step.out / "data.parquet").to_pylist()
    rejected = pq.read_table(step.out / "rejected.parquet").to_pylist()
    assert len(kept) + len(rejected) == 6 and len(kept) >= 3
    assert rejected[-1]["id"] == "p-5" and rejected[-1]["reason"] == "wrong"
    assert step.counts["retries"] >= 1 and step.counts["dropped_wrong"] == len(rejected)
    for row in kept:
        assert "\\boxed" not in row["reasoning"] and 0 < row["ratio"] < 1
        assert row["solution"] == rows[int(row["id"][2:])]["solution"], "the teacher's own solution stays"
        assert row["messages"] == messages_of(row["problem"], row["reasoning"], row["solution"])


def answered(step: StepContext) -> StepContext:
    """The same step with every attempt's answer in its journal; those to every third row are wrong."""
    with Journal(step.work / "journal.sqlite", digest([step.config, ""])) as journal:
        for place, row in enumerate(read_rows(step.inputs["raw"] / "data.parquet")):
            for attempt in range(step.config["attempts"]):
                key, request = replies.request_of(step.config, row, attempt)
                given = row["answer"] if place % 3 else "wrong"
                text = f"It is {chr(97 + place % 26)}.\n\\boxed{{{given}}}"
                journal.add(key, request_hash(request), Response(key.text, text, "stop", 50, 9))
    return step


def compressing(folder: Path, **more: Any) -> StepContext:
    sampling = {"max_tokens": 120, "temperature": 0.0}
    config = {"compressor": "c", "prompt": PROMPT, "prompt_sha": "0", "attempts": 2, "sampling": sampling}
    return context(folder, "compress", config | more, compressor="compressor", tokenizer="student-s")


RECORD: dict[str, Any] = {
    **dict.fromkeys(("step", "kind", "key", "output", "started"), ""),
    **{name: {} for name in ("config", "inputs", "runtime", "counts", "metrics", "environment")},
    **dict.fromkeys(("version", "seconds", "cpu_seconds"), 0),
    "files": [],
}


def test_shards_together_give_what_one_gives(tmp_path: Path) -> None:
    known = problems(20)
    rows = raw_rows(["a long trace " * 9] * 20, [problem["answer"] for problem in known])
    # As raw has them: the problems of the teacher's first shard, then those of its second.
    rows = rows[::2] + rows[1::2]
    results = []
    for shards in (1, 3):
        folder = tmp_path / str(shards)
        write_rows(folder / "problems" / "problems.parquet", known, PROBLEM_SCHEMA)
        write_rows(folder / "raw" / "data.parquet", rows, VARIANTS["raw"].schema)
        for shard in range(shards):
            step = answered(compressing(folder, shard=[shard, shards]))
            rewrite.run(step)
            (step.out / "record.json").write_text(json.dumps(RECORD | {"counts": step.counts}))
            step.out.rename(folder / f"shard-{shard}")
            step.work.rename(folder / f"work-{shard}")
        merged = context(folder, "merged", {})
        compressed.run(merged)
        files = [pq.read_table(merged.out / f).to_pylist() for f in ("data.parquet", "rejected.parquet")]
        results.append((files, merged.counts, merged.metrics))
    assert results[0] == results[1]
    (kept, rejected), counts, _ = results[0]
    assert [row["id"] for row in kept] == [row["id"] for place, row in enumerate(rows) if place % 3]
    assert len(rejected) == counts["retries"] == counts["dropped_wrong"] == 7


def test_further_attempts_read_only_the_rows_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many attempts there are, raw is read to ask, to judge, and to write."""
    known = problems(30)
    rows = raw_rows(["a long trace " * 9] * 30, [problem["answer"] for problem in known])
    write_rows(tmp_path / "problems" / "problems.parquet", known, PROBLEM_SCHEMA)
    write_rows(tmp_path / "raw" / "data.parquet", rows, VARIANTS["raw"].schema)
    step = answered(compressing(tmp_path, attempts=5))
    decoded: dict[str, int] = {}
    read = records.read_batches

    def counting(path: Path, *options: Any) -> Iterator[Any]:
        for batch in read(path, *options):
            decoded[path.name] = decoded.get(path.name, 0) + batch.num_rows
            yield batch

    monkeypatch.setattr(records, "read_batches", counting)
    rewrite.run(step)
    assert step.counts["kept"] == 20 and step.counts["retries"] == 40, "a third is wrong in every attempt"
    assert decoded["data.parquet"] == 3 * 30
    assert all(decoded[f"left-{attempt}.parquet"] == 2 * 10 for attempt in (1, 2, 3, 4))


def peak_of_compressing(step: StepContext) -> int:
    """MB of memory that this process has had at most."""
    rewrite.run(step)
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


@pytest.mark.slow
def test_traces_are_not_held_in_memory(tmp_path: Path) -> None:
    """Peak memory of a process that compresses 33 MB of traces, and of one that does so with 165 MB."""
    peaks = []
    for number in (1500, 7500):
        folder = tmp_path / str(number)
        known = problems(number)
        write_rows(folder / "problems" / "problems.parquet", known, PROBLEM_SCHEMA)
        rows = raw_rows([f"{i} is long. " * 1500 for i in range(number)], [p["answer"] for p in known])
        for row in rows:
            row["raw_reasoning_tokens"] = 9_000
        write_rows(folder / "raw" / "data.parquet", rows, VARIANTS["raw"].schema, batch=100)
        step = answered(compressing(folder))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            peaks.append(process.submit(peak_of_compressing, step).result())
        assert step.out.joinpath("data.parquet").is_file()
    assert peaks[1] - peaks[0] < 100, peaks


@given(st.text(), st.text())
def test_a_hostile_trace_is_only_text_in_the_prompt(problem: str, reasoning: str) -> None:
    row = {"problem": problem + "{reasoning}", "reasoning": reasoning + "{problem}{0}"}
    filled = replies.fill("P {problem} R {reasoning} {x}", row)
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
    assert replies.strip_answer(text) == left
