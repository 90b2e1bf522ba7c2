"""Evaluations: every output judged again, and from the outputs the accuracies, intervals, tests and the figure.

outputs {"student": "s-raw-full", "benchmark": "sums", "id": "x", "output": "<think>…</think> … 85", "correct": true}
    -> judged by the problem's verifier; n, accuracy, interval, mean tokens of each student; McNemar's tests
    -> compared with data/results, results.json, model-index, .eval_results and tradeoff.png
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hubkit.evaluation.statistics import wilson
from hubkit.records import read_rows
from hubkit.release.check.claims import Claims
from hubkit.release.check.published import Published
from hubkit.release.results import RESULTS_SCHEMA, Facts, over_seeds, paired_tests, student_rows
from hubkit.store import Record, environment
from hubkit.traces.thinking import split
from hubkit.verifiers import verify_problems

__all__ = ["check_outputs", "same_code"]

Row = dict[str, Any]


def check_outputs(release: Published, claims: Claims) -> Facts:
    """Recompute all that was measured. Returns the facts with the recomputed figures in their records."""
    facts, where = release.facts, release.manifest.evals
    records: dict[str, Record] = dict(facts.records)
    for step, record in facts.kind("evaluation").items():
        config = record.config
        rows = release.outputs().get((config["student"], config["benchmark"]["name"]), [])
        what = f"{config['student']} on {config['benchmark']['name']}"
        _judge(release, claims, what, config, rows)
        if not rows:
            claims.wrong(where, f"{what}: outputs", record.metrics.get("n"), "no rows")
            continue
        found = _metrics(rows)
        said = {name: record.metrics.get(name) for name in found}
        claims.compare(where, f"{what}: n, accuracy, interval, tokens in the record", said, found)
        records[step] = record.model_copy(update={"metrics": record.metrics | found})
    again = replace(facts, records=records)
    _tables(release, claims, again)
    return again


def _judge(release: Published, claims: Claims, what: str, config: Mapping[str, Any], rows: list[Row]) -> None:
    where, benchmark = release.manifest.evals, config["benchmark"]
    if not benchmark.get("problems"):
        claims.skip(
            where, f"{what}: answers judged again", f"scored by lighteval's own metric of {benchmark['task']}"
        )
        return
    path = release.facts.folders[f"problems/{benchmark['problems']}"] / "problems.parquet"
    problems = {row["id"]: row for row in read_rows(path)}
    ids = [row["id"] for row in rows]
    claims.compare(
        where, f"{what}: the benchmark's problems, each once, in order", list(problems) == ids, True
    )
    pairs = [(problems[row["id"]], row) for row in rows if row["id"] in problems]
    verdicts = verify_problems((problem, split(row["output"]).solution) for problem, row in pairs)
    wrong = []
    for (problem, row), verdict in zip(pairs, verdicts, strict=True):
        if (verdict.status == "correct") != row["correct"]:
            wrong.append(f"{row['id']} is {verdict.status}: {verdict.reason}")
        elif (row["problem"], row["answer"]) != (problem["problem"], problem["answer"]):
            wrong.append(f"{row['id']}: another problem")
    claims.compare_rows(where, f"{what}: answers judged again", wrong, len(rows))


def _metrics(rows: list[Row]) -> dict[str, Any]:
    """As the evaluation step counts them."""
    n, correct = len(rows), sum(row["correct"] for row in rows)
    tokens = sum(row["output_tokens"] for row in rows)
    low, high = wilson(correct, n)
    return {
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "ci_low": low,
        "ci_high": high,
        "mean_output_tokens": tokens / n,
        "cut_share": sum(row["finish_reason"] == "length" for row in rows) / n,
        "accuracy_per_1000_tokens": correct / max(1, tokens) * 1000,
    }


def _tables(release: Published, claims: Claims, facts: Facts) -> None:
    evals, where = release.evals, release.manifest.evals
    rows = student_rows(facts)
    published = [row for name in evals.below("data/results/") for row in read_rows(evals.path(name))]
    expected = [{name: row[name] for name in RESULTS_SCHEMA.names} for row in rows]
    for row in expected:
        key = (row["student"], row["benchmark"])
        same = [p for p in published if (p["student"], p["benchmark"]) == key]
        claims.compare(where, f"config results: {key[0]} on {key[1]}", same[0] if same else "no row", row)
    claims.compare(where, "config results: rows", len(published), len(expected))
    if "results.json" not in evals.files:
        return
    said = json.loads(evals.path("results.json").read_text(encoding="utf-8"))
    claims.compare(where, "results.json: students", said.get("students"), rows)
    tests = paired_tests(facts)
    claims.compare(where, "results.json: paired tests", said.get("tests"), tests)
    claims.compare(where, "results.json: over seeds", said.get("over_seeds"), over_seeds(rows))
    _figure(release, claims, rows)


def _figure(release: Published, claims: Claims, rows: list[Row]) -> None:
    from hubkit.release.plot import png

    evals = release.evals
    if "tradeoff.png" not in evals.files:
        return
    if evals.path("tradeoff.png").read_bytes() == png(rows):
        claims.compare(evals.id, "tradeoff.png: drawn again", "same bytes", "same bytes")
    elif reason := same_code(next(iter(release.records.values()))):
        claims.skip(evals.id, "tradeoff.png: drawn again", reason)
    else:
        claims.wrong(
            evals.id, "tradeoff.png: drawn again", "a figure", "another figure from the published outputs"
        )


def same_code(record: Record) -> str:
    """Why what this installation renders may differ from what was published. Returns "" if it may not."""
    then, now = record.environment, environment()
    if then.get("git_sha") and then.get("git_sha") == now["git_sha"]:
        return ""
    before, here = (e.get("packages", {}).get("hubkit", "unknown") for e in (then, now))
    if before != here or then.get("git_sha") != now["git_sha"]:
        return (
            f"made by hubkit {before} {str(then.get('git_sha'))[:12]}, this is {here} {now['git_sha'][:12]}"
        )
    return ""
