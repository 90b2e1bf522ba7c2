"""Checks evaluations: judges every output again, and computes accuracies, intervals, tests and the figure from them.

outputs {"student": "s-raw-full", "benchmark": "sums", "id": "x", "output": "<think>…</think> … 85", "correct": true}
    -> judged by the problem's verifier; n, accuracy, interval, mean tokens of each student; McNemar's tests
    -> compared with data/results, results.json, report.html and the figure
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hubkit.evaluation.statistics import summary
from hubkit.records import read_rows
from hubkit.release.check.claims import Claims
from hubkit.release.check.published import Published, asked_of
from hubkit.release.results import Facts, at_level, results_schema, student_rows
from hubkit.store import Record, StepContext, environment, write_json
from hubkit.traces.thinking import split
from hubkit.verifiers import verify_problems

__all__ = ["check_outputs", "same_code"]

Row = dict[str, Any]


def check_outputs(release: Published, claims: Claims) -> Facts:
    """Recompute all measurements. Returns the facts with the recomputed figures in their records."""
    facts, where = release.facts, release.manifest.evals
    records: dict[str, Record] = dict(facts.records)
    for step, record in facts.kind("evaluation").items():
        config = record.config
        rows = release.outputs().get(asked_of(config), [])
        what = f"{at_level(config['student'], asked_of(config)[2])} on {config['benchmark']['name']}"
        _judge(release, claims, what, config, rows)
        if not rows:
            claims.wrong(where, f"{what}: outputs", record.metrics.get("n"), "no rows")
            continue
        found = {name: value for name, value in summary(rows).items() if name in record.metrics}
        said = {name: record.metrics[name] for name in found}
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
    answers = max(1, benchmark.get("samples", 1))
    found = [(row["id"], row.get("sample", 0)) for row in rows]
    asked = [(id_, sample) for id_ in problems for sample in range(answers)]
    times = "once" if answers == 1 else f"{answers} times"
    claims.compare(where, f"{what}: the benchmark's problems, each {times}, in order", found == asked, True)
    pairs = [(problems[row["id"]], row) for row in rows if row["id"] in problems]
    verdicts = verify_problems((problem, split(row["output"]).solution) for problem, row in pairs)
    wrong = []
    for (problem, row), verdict in zip(pairs, verdicts, strict=True):
        if (verdict.status == "correct") != row["correct"]:
            wrong.append(f"{row['id']} is {verdict.status}: {verdict.reason}")
        elif (row["problem"], row["answer"]) != (problem["problem"], problem["answer"]):
            wrong.append(f"{row['id']}: another problem")
        elif answers > 1 and row["extracted"] != (verdict.answer or None):
            wrong.append(f"{row['id']}: read as {row['extracted']!r} for {verdict.answer!r}")
    claims.compare_rows(where, f"{what}: answers judged again", wrong, len(rows))


def _tables(release: Published, claims: Claims, facts: Facts) -> None:
    evals, where = release.evals, release.manifest.evals
    rows = student_rows(facts)
    published = [row for name in evals.below("data/results/") for row in read_rows(evals.path(name))]
    names = results_schema(facts).names
    expected = [{name: row[name] for name in names} for row in rows]
    columns = published[0].keys() if published else names
    # A release of an earlier hubkit lacks the columns that came later.
    expected = [{name: value for name, value in row.items() if name in columns} for row in expected]
    for row in expected:
        key = (row["student"], row["benchmark"], row.get("level"))
        same = [p for p in published if (p["student"], p["benchmark"], p.get("level")) == key]
        what = f"config results: {at_level(key[0], key[2])} on {key[1]}"
        claims.compare(where, what, same[0] if same else "no row", row)
    claims.compare(where, "config results: rows", len(published), len(expected))
    _report(release, claims, facts)


def _report(release: Published, claims: Claims, facts: Facts) -> None:
    """Run the report step again, on the published data and the recomputed figures."""
    from hubkit.release import report

    evals, record = release.evals, facts.records.get("report")
    if record is None:
        claims.skip(evals.id, "report", "the release has none")
        return
    inputs = {name: facts.folders[name] for name in record.inputs if name in facts.records}
    for name, folder in inputs.items():
        write_json(folder / "record.json", facts.records[name].model_dump())
    out, work = release.work / "report", release.work / "report-work"
    for folder in (out, work):
        folder.mkdir(parents=True, exist_ok=True)
    report.run(StepContext("report", record.config, {}, inputs, {}, out, work))
    reason = same_code(record)
    for path in sorted(p for p in out.iterdir() if p.is_file()):
        what = f"{path.name}: made again"
        if path.name not in evals.files:
            claims.wrong(evals.id, what, "missing", f"{path.stat().st_size:,} bytes")
            continue
        there = evals.path(path.name).read_bytes()
        if path.suffix == ".json":
            said, found = json.loads(there), json.loads(path.read_bytes())
            for key in found:
                what = f"{path.name}: {key.replace('_', ' ')}"
                # An earlier hubkit had fewer tables and columns, and other sentences.
                if reason and (key not in said or (key == "headline" and said[key] != found[key])):
                    claims.skip(evals.id, what, reason)
                else:
                    expected = _columns_of(said[key], found[key]) if reason else found[key]
                    claims.compare(evals.id, what, said.get(key), expected)
        elif there == path.read_bytes():
            claims.compare(evals.id, what, "same bytes", "same bytes")
        elif reason:
            claims.skip(evals.id, what, reason)
        else:
            claims.wrong(evals.id, what, "one picture or text", "another, from the published outputs")


def _columns_of(said: Any, found: Any) -> Any:
    """What was found in the columns that the published rows have."""
    if not (isinstance(said, list) and isinstance(found, list) and said and isinstance(said[0], dict)):
        return found
    return [{name: value for name, value in row.items() if name in said[0]} for row in found]


def same_code(record: Record) -> str:
    """Returns why this installation may render differently than the publishing one. Returns "" if it does not."""
    then, now = record.environment, environment()
    if then.get("git_sha") and then.get("git_sha") == now["git_sha"]:
        return ""
    before, here = (e.get("packages", {}).get("hubkit", "unknown") for e in (then, now))
    if before != here or then.get("git_sha") != now["git_sha"]:
        return (
            f"made by hubkit {before} {str(then.get('git_sha'))[:12]}, this is {here} {now['git_sha'][:12]}"
        )
    return ""
