"""A teacher of many shards: verified and cut shard by shard, the rows are those of one step for all."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from support import MODELS

from hubkit import records
from hubkit.records import PROBLEM_SCHEMA, TRACE_SCHEMA, read_rows, write_rows
from hubkit.store import StepContext
from hubkit.traces.variants import VARIANTS, controls, raw, truncated

RECORD: dict[str, Any] = {
    **dict.fromkeys(("step", "kind", "key", "output", "started"), ""),
    **{name: {} for name in ("config", "inputs", "runtime", "counts", "metrics", "environment")},
    **dict.fromkeys(("version", "seconds", "cpu_seconds"), 0),
    "files": [],
}
PROBLEMS, SHARDS = 60, 4


def context(folder: Path, step: str, inputs: dict[str, Path], **config: Any) -> StepContext:
    made = StepContext(
        step=step,
        config=config,
        runtime={"threads": 2},
        inputs=inputs,
        models={"tokenizer": {"model": str(MODELS / "student-s"), "revision": ""}},
        out=folder / step.replace("/", "-"),
        work=folder / "work",
    )
    made.out.mkdir(parents=True)
    made.work.mkdir(exist_ok=True)
    return made


def finish(made: StepContext) -> Path:
    (made.out / "record.json").write_text(
        json.dumps(RECORD | {"counts": made.counts, "metrics": made.metrics})
    )
    return made.out


def traces(folder: Path) -> dict[str, Path]:
    """Shards of a teacher's traces: some wrong, some cut off, one shard with nothing right."""
    chance = random.Random(0)
    problems = [
        {
            "id": f"p{i}",
            "source": "s",
            "problem": f"{i} + 1?",
            "answer": str(i + 1),
            "verifier": "math",
            "metadata": "",
        }
        for i in range(PROBLEMS)
    ]
    write_rows(folder / "problems" / "problems.parquet", problems, PROBLEM_SCHEMA)
    made = {"problems": folder / "problems"}
    for shard in range(SHARDS):
        rows = []
        for number in range(shard, PROBLEMS, SHARDS):
            right = shard != 2 and chance.random() < 0.8
            rows.append(
                {
                    "id": f"p{number}",
                    "sample": 0,
                    "teacher": "t",
                    "reasoning": f"{number} and one more. " * chance.randint(5, 60),
                    "solution": f"It is \\boxed{{{number + 1 if right else 'no'}}}.",
                    "thinking": "closed",
                    "finish_reason": "stop" if chance.random() < 0.9 else "length",
                    "prompt_tokens": 1,
                    "completion_tokens": 2,
                    "error": "",
                }
            )
        made[f"shard-{shard}"] = folder / f"traces-{shard}"
        write_rows(made[f"shard-{shard}"] / "traces.parquet", rows, TRACE_SCHEMA)
        step = context(folder, f"done/{shard}", {})
        step.counts["traces"] = len(rows)
        finish(step)
        (step.out / "record.json").rename(made[f"shard-{shard}"] / "record.json")
    return made


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    return list(read_rows(folder / table))


def test_shards_of_raw_and_of_a_control_give_the_rows_of_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "GROUP_BYTES", 20_000)
    monkeypatch.setattr(records, "FILE_BYTES", 60_000)
    inputs = traces(tmp_path)
    whole = context(tmp_path, "raw/t", inputs)
    raw.run(whole)
    parts = {}
    for i in range(SHARDS):
        own = {"problems": inputs["problems"], f"shard-{i}": inputs[f"shard-{i}"]}
        step = context(tmp_path, f"verify/t/{i}", own, shard=[i, SHARDS])
        raw.run(step)
        parts[f"shard-{i}"] = finish(step)
    joined = context(tmp_path, "raw/joined", parts)
    raw.join(joined)
    for table in ("data.parquet", "rejected.parquet"):
        assert rows(joined.out, table) == rows(whole.out, table)
    assert joined.counts == whole.counts
    assert joined.metrics == whole.metrics
    assert rows(whole.out, "data.parquet")

    short = [
        row | {"reasoning_tokens": 3 + place % 9, "compressor": "c", "prompt_sha": "0"}
        for place, row in enumerate(rows(whole.out, "data.parquet"))
        if place % 4
    ]
    write_rows(tmp_path / "compressed" / "data.parquet", short, VARIANTS["compressed"].schema)
    both = {"raw": whole.out, "compressed": tmp_path / "compressed"}
    cut = context(tmp_path, "truncated/t/c", both)
    truncated.run(cut)
    parts = {}
    for i in range(SHARDS):
        step = context(tmp_path, f"control/t/truncated/c/{i}", both, shard=[i, SHARDS])
        truncated.run(step)
        parts[f"shard-{i}"] = finish(step)
        assert step.counts["kept"]
    together = context(tmp_path, "truncated/joined", parts)
    controls.join(together)
    assert rows(together.out, "data.parquet") == rows(cut.out, "data.parquet")
    assert together.counts == cut.counts
    assert together.metrics == cut.metrics
    assert len(rows(cut.out, "data.parquet")) == len(short)
