"""A student's step with everything before it, on a handful of traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from support import MODELS

from hubkit.records import messages_of, write_rows
from hubkit.store import StepContext
from hubkit.students import tokens
from hubkit.traces.variants import VARIANTS

__all__ = ["LORA", "SFT", "context", "rows", "uneven"]

SFT = {
    "learning_rate": 1e-3,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "max_length": 256,
}


def rows(count: int = 24) -> list[dict[str, Any]]:
    made = []
    for i in range(count):
        problem, thought, solution = f"What is {i} + 1?", f"{i} + 1 = {i + 1}.", f"\\boxed{{{i + 1}}}"
        row: dict[str, Any] = dict.fromkeys(VARIANTS["raw"].schema.names)
        made.append(
            row
            | {
                "id": f"p-{i}",
                "sample": 0,
                "problem": problem,
                "reasoning": thought,
                "messages": messages_of(problem, thought, solution),
            }
        )
    return made


def uneven() -> list[dict[str, Any]]:
    """Rows of very different lengths, as traces have them."""
    made = []
    for i, row in enumerate(rows()):
        thought = " ".join([f"{i} + 1 = {i + 1}."] * (1 + i % 5))
        messages = messages_of(row["problem"], thought, f"\\boxed{{{i + 1}}}")
        made.append(row | {"reasoning": thought, "messages": messages})
    return made


LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", "use_rslora": False}


def context(
    folder: Path,
    data: list[dict[str, Any]],
    processes: int = 1,
    model: Path = MODELS / "student-s",
    **config: Any,
) -> StepContext:
    """A student's step, after the steps that made its tokens."""
    write_rows(folder / "data" / "data.parquet", data, VARIANTS["raw"].schema)
    schema = pa.schema([("id", pa.string()), ("sample", pa.int32())])
    write_rows(
        folder / "matched" / "matched.parquet", [{"id": r["id"], "sample": 0} for r in data[:20]], schema
    )

    def step(name: str, config: dict[str, Any], **inputs: Path) -> StepContext:
        made = StepContext(
            step=name,
            config=config,
            runtime={"device": "cpu", "threads": 1}
            | ({"accelerate": {"num_processes": processes}} if processes > 1 else {}),
            inputs=inputs,
            models={key: {"model": str(model), "revision": ""} for key in ("base", "tokenizer")},
            out=folder / name / "out",
            work=folder / name / "work",
        )
        made.out.mkdir(exist_ok=True, parents=True)
        made.work.mkdir(exist_ok=True)
        return made

    made = step("tokens", {"system": ""}, data=folder / "data")
    tokens.run(made)
    agreed = step("rows", {"max_dropped_share": 0.0}, matched=folder / "matched", raw=made.out)
    tokens.agree(agreed)
    return step(
        "student",
        {"base": "s", "seed": 0, "sft": SFT, "lora": None, "max_cut_share": 0.0, "system": ""} | config,
        tokens=made.out,
        rows=agreed.out,
    )
