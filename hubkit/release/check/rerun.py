"""A few problems answered again by the published students themselves, with the embedded engine.

local/nano-s-raw-full and the first 8 problems of `sums` -> lighteval, as in the recipe's evaluation
    -> "8 of 8 answers the same to the letter, 8 of 8 verdicts"
"""

from __future__ import annotations

import os
import shutil
from itertools import islice
from pathlib import Path
from typing import Any, Final

from hubkit.engines.settings import EngineRuntime
from hubkit.errors import HubkitError
from hubkit.evaluation.published import AGREEMENT
from hubkit.records import PROBLEM_SCHEMA, read_rows, write_rows
from hubkit.release.check.claims import Claims
from hubkit.release.check.published import Published, asked_of
from hubkit.release.results import at_level
from hubkit.store import StepContext

__all__ = ["check_again"]

_AGREE: Final = 0.9
"""Minimum share of verdicts that agree: other machines round differently, which can flip a near-tie of two tokens. The
answers must also begin alike, so that two different models that are both wrong do not pass."""


def check_again(release: Published, claims: Claims, n: int, device: str) -> None:
    """Let every student and base answer the first n problems of each of the recipe's own benchmarks again."""
    from hubkit.evaluation import evaluation

    where = release.manifest.evals
    for step, record in release.facts.kind("evaluation").items():
        config = record.config
        student, benchmark = config["student"], config["benchmark"]
        asked = asked_of(config)
        what = f"{at_level(student, asked[2])} on {benchmark['name']}: answered again"
        if not benchmark.get("problems"):
            claims.skip(where, what, "a task of lighteval: `hubkit submit` evaluates it")
            continue
        rows = release.outputs().get(asked, [])
        published = rows[: n * max(1, benchmark.get("samples", 1))]
        folder = release.work / "rerun" / str(len(list((release.work / "rerun").glob("*"))))
        try:
            context = _context(release, step, config, folder, n, device, "student" in record.inputs)
            evaluation.run(context)
        except HubkitError as error:
            claims.wrong(where, what, f"{len(published)} answers", error.message)
            continue
        again = list(read_rows(context.out / "samples.parquet"))
        pairs = list(zip(published, again, strict=False))
        texts = sum(a["output"] == b["output"] for a, b in pairs)
        verdicts = sum(a["correct"] == b["correct"] for a, b in pairs)
        total = len(again)
        alike = sum(_alike(a["output"], b["output"]) for a, b in pairs) / max(1, total)
        said = f"{texts} of {total} answers the same to the letter, {verdicts} of {total} verdicts"
        if len(pairs) == total and alike < AGREEMENT and benchmark["sampling"].get("temperature", 0) > 0:
            claims.skip(where, what, f"{said}: they were drawn, and another engine draws others")
        elif total and len(pairs) == total and verdicts >= _AGREE * total and alike >= AGREEMENT:
            claims.compare(where, what, said, said)
        else:
            claims.wrong(where, what, f"{total} answers", f"{said}; {alike:.0%} of the beginnings agree")


def _alike(a: str, b: str) -> float:
    """Returns the share of two texts up to the first difference."""
    return len(os.path.commonprefix([a, b])) / max(1, len(a), len(b))  # noqa: RUF071 (by characters)


def _context(
    release: Published, step: str, config: dict[str, Any], folder: Path, n: int, device: str, student: bool
) -> StepContext:
    import joblib

    out, work = folder / "out", folder / "work"
    out.mkdir(parents=True)
    work.mkdir()
    of = config["benchmark"]["problems"]
    whole = release.facts.folders[f"problems/{of}"] / "problems.parquet"
    write_rows(folder / "problems" / "problems.parquet", islice(read_rows(whole), n), PROBLEM_SCHEMA)
    inputs = {"problems": folder / "problems"}
    if student:
        # A step's output holds its model in a folder of this name.
        shutil.copytree(release.model(config["student"]), folder / "student" / "model")
        inputs["student"] = folder / "student"
    base = release.model(config["base"])
    return StepContext(
        step=step,
        config=config,
        runtime={
            "engine": EngineRuntime().model_dump(mode="json"),
            "device": device,
            "threads": joblib.cpu_count(),
        },
        inputs=inputs,
        models={"base": {"model": str(base), "revision": ""}},
        out=out,
        work=work,
    )
