"""Checks traces: counts rows, lengths and ratios again, joins variants to raw, verifies every answer again.

compressed row {"id": "x", "sample": 0, "reasoning": "…", "reasoning_tokens": 31, "raw_reasoning_tokens": 210, …}
    its tokens counted by the published tokenizer, its raw length looked up in raw, its ratio divided again,
    its messages put together again, its problem compared with the published one
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Mapping
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, Final, NamedTuple

from hubkit.records import messages_of, read_rows
from hubkit.release.check.claims import Claims
from hubkit.release.check.published import Published
from hubkit.store import StepContext, write_json
from hubkit.traces.lengths import LENGTH_COLUMNS, count_tokens, length_metrics, response_metrics
from hubkit.traces.origins import Origin
from hubkit.traces.variants import Variant
from hubkit.verifiers import verify_problems
from hubkit.verifiers.base import Verifier
from hubkit.verifiers.gym import Gym
from hubkit.verifiers.table import verifier_named

__all__ = ["check_contamination", "check_traces"]

_BATCH: Final = 512
Row = dict[str, Any]
Key = tuple[str, int]


class _Raw(NamedTuple):
    """The part of a raw trace that other variants are compared with: some 300 bytes, however long its text is."""

    tokens: int
    chars: int
    told: int
    """Tokens of its solution."""
    solution: bytes
    """Digest of it."""


def check_traces(release: Published, claims: Claims) -> None:
    """Everything that the trace datasets and their cards count."""
    facts = release.facts
    origins = {origin.name: origin for origin in release.recipe.origins()}
    for teacher, repo in release.manifest.traces.items():
        variants = facts.variants(teacher)
        problems = _problems(release, origins[teacher])
        raw: dict[Key, _Raw] = {}
        lengths: dict[Variant, dict[Key, int]] = {}
        for variant, step in variants.items():
            path = facts.folders[step] / variant.row.file
            check = _Variant(variant, raw, lengths, problems, release)
            check.run(path)
            lengths[variant] = check.tokens
            what, n = f"config {variant.name}", check.rows
            for name, wrong in check.wrong.items():
                claims.compare_rows(repo, f"{what}: {name}", wrong, n)
            for name, why in check.skipped.items():
                claims.skip(repo, f"{what}: {name}", why)
            metrics = facts.records[step].metrics
            found = length_metrics(read_rows(path, columns=LENGTH_COLUMNS)) if n else {"rows": 0}
            said = {name: metrics.get(name) for name in found}
            for name in ("rows", "problems", "reasoning_tokens", "ratio_tokens", "ratio_chars", "quantiles"):
                claims.compare(repo, f"{what}: {name.replace('_', ' ')}", said.get(name), found.get(name))
            if "ratio_response" in metrics:
                response_metrics(told := found | check.told)
                claims.compare(
                    repo,
                    f"{what}: ratio with solution",
                    metrics["ratio_response"],
                    told.get("ratio_response"),
                )
            counts = facts.records[step].counts
            claims.compare(repo, f"{what}: rows kept", counts.get("kept"), n)
            if variant.row.matched:
                claims.compare(
                    repo, f"{what}: rows without exactly the budget", counts.get("inexact", 0), check.inexact
                )
                _make_again(release, claims, repo, variant, variants)


def _make_again(
    release: Published, claims: Claims, repo: str, variant: Variant, variants: Mapping[Variant, str]
) -> None:
    """Run the step of a control again, on the published raw and compressed traces, and compare its texts."""
    facts, step = release.facts, variants[variant]
    record, what = facts.records[step], f"config {variant.name}: made again from raw and compressed lengths"
    module, _, function = variant.row.step.partition(":")
    code = importlib.import_module(module)
    if record.version != code.VERSION:
        claims.skip(repo, what, f"made by version {record.version} of its step, this is {code.VERSION}")
        return
    of = {"raw": Variant("raw"), "compressed": Variant("compressed", variant.compressor)}
    inputs = {name: facts.folders[variants[source]] for name, source in of.items() if source in variants}
    for name, source in of.items():
        if source in variants:
            write_json(inputs[name] / "record.json", facts.records[variants[source]].model_dump())
    out = release.work / "again" / variant.name
    work = out / "work"
    work.mkdir(parents=True, exist_ok=True)
    models = {"tokenizer": {"model": str(release.tokenizer()), "revision": ""}}
    getattr(code, function)(StepContext(step, record.config, {}, inputs, models, out, work))
    rows = zip_longest(read_rows(facts.folders[step] / variant.row.file), read_rows(out / variant.row.file))
    wrong, n = [], 0
    for n, (there, again) in enumerate(rows, 1):
        if there is None or again is None:
            wrong.append(f"row {n} is missing on one side")
        elif any(there[name] != again[name] for name in ("id", "sample", "reasoning", "solution")):
            wrong.append(f"{there['id']}, sample {there['sample']}: another text")
    claims.compare_rows(repo, what, wrong, n)


def _problems(release: Published, origin: Origin) -> dict[str, Row]:
    """Returns the published problems of training by id; {} for an origin that brings its own, in its rows alone."""
    step = f"problems/{release.recipe.train_on}"
    if step not in release.records or origin.brings_problems:
        return {}
    return {row["id"]: row for row in read_rows(release.facts.folders[step] / "problems.parquet")}


class _Variant:
    """One pass over the rows of one variant."""

    def __init__(
        self,
        variant: Variant,
        raw: dict[Key, _Raw],
        lengths: dict[Variant, dict[Key, int]],
        problems: dict[str, Row],
        release: Published,
    ) -> None:
        self._variant, self._raw, self._problems = variant, raw, problems
        self._tokenizer = release.tokenizer()
        compressors = {compressor.name: compressor for compressor in release.recipe.compressors}
        self._keeps = (
            variant.compressor not in compressors or compressors[variant.compressor].solution == "keep"
        )
        of = Variant("compressed", variant.compressor) if variant.row.matched else None
        self._budget = lengths.get(of, {}) if of else None
        self.rows = 0
        self.tokens: dict[Key, int] = {}
        self.told = {"solution_tokens": 0, "raw_solution_tokens": 0}
        """Tokens of all solutions, and of those of the raw traces."""
        self.wrong: dict[str, list[str]] = {}
        self.skipped: dict[str, str] = {}
        self.inexact = 0

    def run(self, path: Path) -> None:
        """Check every row. Rows of raw are added to `raw`, for the comparison with other variants."""
        rows = read_rows(path, batch=_BATCH)
        while batch := list(islice(rows, _BATCH)):
            counted = count_tokens(self._tokenizer, [row["reasoning"] for row in batch])
            told = count_tokens(self._tokenizer, [row["solution"] for row in batch])
            for row, tokens, solution in zip(batch, counted, told, strict=True):
                key = (row["id"], row["sample"])
                own = _Raw(tokens, len(row["reasoning"]), solution, _digest(row["solution"]))
                raw = own if self._variant.kind == "raw" else self._raw.get(key)
                self._look(row, tokens, own, raw)
                self.told["solution_tokens"] += solution
                self.told["raw_solution_tokens"] += raw.told if raw else 0
                self._note("each (id, sample) once", row, "" if key not in self.tokens else "twice")
                self.tokens[key] = tokens
                if self._variant.kind == "raw":
                    self._raw[key] = own
            self._verify(batch)
            self.rows += len(batch)

    def _note(self, what: str, row: Row, fault: str) -> None:
        listed = self.wrong.setdefault(what, [])
        if fault:
            listed.append(f"{row['id']}, sample {row['sample']}: {fault}")

    def _look(self, row: Row, tokens: int, own: _Raw, raw: _Raw | None) -> None:
        note = self._note
        note("reasoning tokens", row, _unlike(row["reasoning_tokens"], tokens))
        note("reasoning characters", row, _unlike(row["reasoning_chars"], len(row["reasoning"])))
        text = messages_of(row["problem"], row["reasoning"], row["solution"])
        note(
            "messages hold problem, reasoning, solution", row, "" if row["messages"] == text else "other text"
        )
        problem = self._problems.get(row["id"]) if self._problems else row
        same = problem and all(row[k] == problem[k] for k in ("problem", "answer", "source", "verifier"))
        note(
            "problem and answer, as published",
            row,
            "" if same else "another problem" if problem else "no such",
        )
        note("ratio", row, _unlike(row["ratio"], tokens / max(1, row["raw_reasoning_tokens"])))
        note("joined to raw on (id, sample)", row, "" if raw else "not in raw")
        if raw is None:
            return
        note("raw reasoning tokens", row, _unlike(row["raw_reasoning_tokens"], raw.tokens))
        note("raw reasoning characters", row, _unlike(row["raw_reasoning_chars"], raw.chars))
        if self._keeps:
            same = own.solution == raw.solution
            note("solution of the raw trace", row, "" if same else "another solution")
        if self._budget is not None:
            budget = self._budget.get((row["id"], row["sample"]))
            note("budget is the compressed length", row, _unlike(row["budget_tokens"], budget))
            # Where no cut has exactly the budget, the nearest one below stands, and the record counts it.
            limit = min(row["budget_tokens"], raw.tokens)
            note("length is the budget", row, f"{tokens} tokens" if tokens > limit else "")
            self.inexact += tokens != limit

    def _verify(self, batch: list[Row]) -> None:
        what = "answer verified again"
        if self._problems:
            asked = [(self._problems.get(row["id"]), row) for row in batch]
        else:
            # The problems came with the traces: each row has its own, with all that some verifiers need.
            what += ", by the known answer of its row"
            asked = [(row | {"metadata": ""}, row) for row in batch if row["correct"] is not None]
            if len(asked) < len(batch):
                self.skipped[what] = "these answers were not verified, as the card says"
        able = [(p, row) for p, row in asked if p is not None and p["verifier"] != "judge"]
        if len(able) < len(asked) and any(p is not None and p["verifier"] == "judge" for p, _ in asked):
            self.skipped[what] = "a language model judged these answers; ask it again with the recipe"
        if not self._problems and any(_needs_metadata(p["verifier"]) for p, _ in able):
            self.skipped[what] = "their verifier needs more than the answer, which is published with no row"
            return
        for (_, row), verdict in zip(able, verify_problems((p, r["solution"]) for p, r in able), strict=True):
            right = verdict.status == "correct"
            self._note(
                what, row, "" if right == row["correct"] and right else f"{verdict.status}: {verdict.reason}"
            )


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def _needs_metadata(verifier: str) -> bool:
    """Whether a verifier may read more of a problem than its answer."""
    return type(verifier_named(verifier)).metadata is not Verifier.metadata or verifier == Gym.name


def _unlike(published: Any, found: Any) -> str:
    if published is None or found is None:
        return "" if published is found else f"{published} for {found}"
    near = math.isclose(published, found, rel_tol=1e-9)
    return "" if near else f"{published:g} for {found:g}"


def check_contamination(release: Published, claims: Claims) -> None:
    """Run the contamination step again on the published problems, and compare its report."""
    from hubkit.errors import GateError, HubkitError
    from hubkit.problems import contamination

    where, record = release.manifest.problems or release.name, release.records.get("contamination")
    if record is None or f"problems/{release.recipe.train_on}" not in release.records:
        claims.skip(
            where, "contamination", "the release has no such record, or no training problems of its own"
        )
        return
    sets = {step.partition("/")[2]: release.facts.folders[step] for step in release.facts.kind("problems")}
    used = {b.problems for b in release.recipe.benchmarks if b.problems}
    train_on = release.recipe.train_on
    inputs = {f"{contamination.TRAINING}problems/{train_on}": sets[train_on]}
    inputs |= {name: sets[name] for name in sorted(used)}
    out, work = release.work / "contamination", release.work / "contamination-work"
    out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    context = StepContext("contamination", record.config, {}, inputs, {}, out, work)
    try:
        contamination.run(context)
    except GateError as error:
        claims.wrong(where, "contamination: test problems in the training set", record.metrics, error.message)
        return
    except (HubkitError, ValueError) as error:  # a record may hold anything
        claims.skip(where, "contamination", getattr(error, "message", "its settings are not to be read"))
        return
    # Of near-duplicates older records say nothing, and problems that came with traces are not all published.
    here = release.recipe.origins() == release.recipe.teachers and record.version == contamination.VERSION
    said, found = (
        {n: v for n, v in metrics.items() if here or n != "near_duplicates"}
        for metrics in (record.metrics, context.metrics)
    )
    claims.compare(where, "contamination: test problems in the training set", said, found)
