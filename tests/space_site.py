"""A small release whose every text is hostile, on a local Hub, for tests of the Space's page."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from support import MODELS

from hubkit.evaluation.statistics import wilson
from hubkit.localhub import LocalHub
from hubkit.records import messages_of, write_rows
from hubkit.release.columns import OUTPUTS_SCHEMA, card_configs
from hubkit.release.headline import headline
from hubkit.release.plot import figures
from hubkit.release.results import RESULTS_SCHEMA
from hubkit.traces.variants import Variant

OWNED = "document.title='owned'"
PAYLOADS = [
    f"<script>{OWNED}</script>",
    f'<img src=x onerror="{OWNED}">',
    f'${{{OWNED}}} {{{{constructor.constructor("{OWNED}")()}}}} `${{{OWNED}}}`',
    f'</span></div></section><svg onload="{OWNED}"><style>body {{ display: none }}</style>',
    f'<a href="javascript:{OWNED}">x</a> [y](javascript:{OWNED}) <https://example.org/z>',
    f"\\(\\href{{javascript:{OWNED}}}{{x}}\\) \\(\\includegraphics{{https://example.org/x.png}}\\)",
    "%%%LATEX_BLOCK_0%%% %%%LATEX_BLOCK_9%%%",
    "\\(\\def\\a{\\a\\a}\\a\\) \\(\\rule{9999em}{9999em}\\) $$\\unclosed{",
    f'"\'><iframe srcdoc="<script>parent.{OWNED}</script>"></iframe>',
    f"\n\n```mermaid\ngraph TD; A[<img src=x onerror={OWNED}>]\n```\n\n# head\n<!-- ![p](https://example.org/p.png)",
]
"""What a problem, a model or a recipe may hold."""
PROBLEMS = 30
SHORT, CUT = Variant("compressed", "x"), Variant("truncated", "x")


@dataclass
class Site:
    """A running app."""

    address: str
    hub: LocalHub
    students: list[str] = field(default_factory=list)


def students() -> list[dict[str, Any]]:
    found = []
    for base in ("s", "m", "l"):  # two of them fit one page of students
        for variant in (Variant("raw"), SHORT, CUT):
            about = {"base": base, "variant": variant.name, "kind": variant.kind, "method": "full"}
            found.append({**about, "student": f"{base}-{variant.name}", "origin": "student", "seed": 0})
    base = dict.fromkeys(("variant", "kind", "method", "seed"))
    return [*found, {**base, "student": PAYLOADS[1], "base": "s", "origin": "base"}]


def _outputs(student: dict[str, Any]) -> list[dict[str, Any]]:
    """Raw is wrong on every fifth problem, compressed on every sixth, the rest is wrong on all."""
    every = {"raw": 5, "compressed": 6}.get(student["kind"], 1)
    rows = []
    for i in range(PROBLEMS):
        payload = PAYLOADS[i % len(PAYLOADS)]
        tokens = (40 if student["kind"] == "compressed" else 200) + i
        rows.append(
            {
                **{name: student.get(name) for name in OUTPUTS_SCHEMA.names},
                "teacher": PAYLOADS[0] if student["kind"] else None,
                "benchmark": "sums",
                "id": f"p{i}",
                "problem": f"Problem {i}: what is ${i} + 1$? {payload}",
                "answer": str(i + 1),
                "output": f"<think>\nthought {i} {payload}\n</think>\n\nIt is \\boxed{{{i + 1}}}. {payload}",
                "correct": i % every != 0,
                "output_tokens": tokens,
                "finish_reason": "length" if i == 3 else "stop",
            }
        )
    if student["base"] == "l":  # answered twice
        again = [row | {"sample": 1, "output": "the second answer", "correct": True} for row in rows]
        rows = [row | {"sample": 0} for row in rows] + again
    return rows


def _results(student: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    right = sum(row["correct"] for row in rows)
    low, high = wilson(right, len(rows))
    tokens = sum(row["output_tokens"] for row in rows) / len(rows)
    measured = {
        "n": len(rows),
        "correct": right,
        "accuracy": right / len(rows),
        "ci_low": low,
        "ci_high": high,
    }
    if student["base"] == "l":
        measured |= {"samples": 2, "pass_at_k": 1.0, "maj_at_k": 0.625}
    measured |= {"mean_output_tokens": tokens, "cut_share": 1 / len(rows), "accuracy_per_1000_tokens": 1.0}
    about = {name: student.get(name) for name in RESULTS_SCHEMA.names}
    return {**about, "benchmark": "sums", "teacher": rows[0]["teacher"], **measured}


def _traces(variant: Variant) -> list[dict[str, Any]]:
    rows = []
    for i in range(PROBLEMS):
        payload = PAYLOADS[i % len(PAYLOADS)]
        whole = f"First I look at it. {payload}\nThen {i} + 1 is {i + 1}.\nLet me check again: {i} + 1 is {i + 1}."
        text = {"compressed": f"{payload} {i} + 1 is {i + 1}.", "truncated": whole[:30]}.get(
            variant.kind, whole
        )
        columns = dict.fromkeys(variant.row.schema.names)
        problem = f"Trace problem {i} {payload}"
        columns |= {"id": f"t{i}", "source": "x", "problem": problem, "answer": str(i + 1), "sample": 0}
        columns |= {
            "messages": messages_of(problem, text, "ok"),
            "reasoning": text,
            "solution": f"\\boxed{{{i + 1}}}",
        }
        columns |= {"teacher": "sage", "correct": variant.kind != "truncated", "verifier": "math"}
        columns |= {
            "finish_reason": "stop",
            "reasoning_chars": len(text),
            "reasoning_tokens": len(text.split()),
        }
        columns |= {"raw_reasoning_chars": len(whole), "raw_reasoning_tokens": len(whole.split())}
        rows.append({**columns, "ratio": len(text) / len(whole)})
    return rows


def _report(results: list[dict[str, Any]]) -> dict[str, Any]:
    """results.json, with a payload in every text of every row."""
    numbers = {
        "seeds": 2,
        "accuracy": 0.5,
        "accuracy_min": 0.4,
        "accuracy_max": 0.6,
        "mean_output_tokens": 9.0,
    }
    numbers |= {"difference": 0.1, "ci_low": 0.0, "ci_high": 0.2, "only_a": 3, "only_b": 1, "p_holm": 0.6}
    names = ("base", "variant", "method", "benchmark", "a", "b", "seed")
    rows = [numbers | dict.fromkeys(names, payload) for payload in PAYLOADS]
    return {"headline": f"{headline(results, [])} {PAYLOADS[2]}", "over_seeds": rows, "tests": rows}


def publish(hub: LocalHub, folder: Path) -> dict[str, Any]:
    """The datasets and models of a small release, as publishing lays them out; gives its release.json."""
    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    outputs = {student["student"]: _outputs(student) for student in students()}
    results = [_results(student, outputs[student["student"]]) for student in students()]
    evals, traces, more = folder / "evals", folder / "traces", folder / "more-traces"
    for name, rows, schema in (
        ("outputs", [row for answers in outputs.values() for row in answers], OUTPUTS_SCHEMA),
        ("results", results, RESULTS_SCHEMA),
    ):
        write_rows(evals / "data" / name / "test-00000-of-00001.parquet", rows, schema)
    for name, content in figures(results).items():
        (evals / name).write_bytes(content)
    (evals / "results.json").write_text(json.dumps(_report(results)))
    variants = [Variant("raw"), SHORT, CUT]
    for variant in variants:
        for teacher in (traces, more):
            path = teacher / "data" / variant.name / "train-00000-of-00001.parquet"
            write_rows(path, _traces(variant), variant.row.schema)
    for path, names, part in (
        (evals, ["outputs", "results"], "test"),
        (traces, [v.name for v in variants], "train"),
        (more, [v.name for v in variants], "train"),
    ):
        (path / "README.md").write_text(f"---\nconfigs: {json.dumps(card_configs(names, part))}\n---\n")
        api.create_repo(f"local/{path.name}", repo_type="dataset")
        api.upload_folder(repo_id=f"local/{path.name}", repo_type="dataset", folder_path=path)
    api.create_repo("local/student")
    api.upload_folder(repo_id="local/student", folder_path=MODELS / "student-s")
    return {
        "recipe": "tiny",
        "description": f"A release {PAYLOADS[3]}",
        "evals": "local/evals",
        "traces": {PAYLOADS[0]: "local/traces", "another": "local/more-traces"},
        "models": {"s-raw": "local/student", "s-compressed-x": "local/student"},
        "variants": [variant.published("sage") for variant in variants],
        "max_new_tokens": 60,
    }
