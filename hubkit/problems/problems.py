"""The step `problems`: read a set of problems from its source, each once.

recipe: train: {source: reasoning-gym, task: chain_sum, size: 250, split: train}
    -> problems.parquet with 250 rows (records.PROBLEM_SCHEMA), no two with the same normalised text
"""

from __future__ import annotations

import hashlib

from hubkit.errors import InputError
from hubkit.problems import SOURCES
from hubkit.problems.base import Pin, normalise
from hubkit.records import PROBLEM_SCHEMA, RowWriter
from hubkit.store import StepContext

__all__ = ["run"]


def run(context: StepContext) -> None:
    """Write problems.parquet; of problems with the same normalised text one is kept."""
    source = SOURCES[context.config["source"]].model_validate(context.config)
    pin = Pin(revision=context.models.get("source", {}).get("revision", ""), path=context.paths.get("source"))
    seen: set[bytes] = set()
    most = source.most() or 0
    with RowWriter(context.out / "problems.parquet", PROBLEM_SCHEMA) as rows:
        for problem in source.rows(pin):
            text = normalise(problem["problem"])
            mark = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if not text or not problem["answer"].strip():
                context.count("dropped_empty")
            elif mark in seen:
                context.count("dropped_duplicate")
            else:
                seen.add(mark)
                rows.add(problem)
                context.progress(rows.rows, max(most, rows.rows))
            if most and rows.rows == most:
                break
    if not rows.rows:
        raise InputError(f"{context.step}: no problem left", "check the source, its split and its columns")
    source.check_kept(rows.rows)
    context.count("kept", rows.rows)
