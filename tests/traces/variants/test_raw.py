from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubkit.errors import GateError, InputError
from hubkit.records import PROBLEM_SCHEMA, TRACE_SCHEMA, read_rows, write_rows
from hubkit.store import StepContext, Store
from hubkit.traces.variants.raw import run
from hubkit.verifiers import verify_problem
from hubkit.verifiers.extract import boxed


def problem(answer: str, verifier: str = "math", **more: str) -> dict[str, Any]:
    return {
        "id": "p",
        "source": "s",
        "problem": "?",
        "answer": answer,
        "verifier": verifier,
        "metadata": "",
    } | more


@pytest.mark.parametrize(
    ("answer", "text", "status"),
    [
        ("85", "The answer is \\boxed{85}.", "correct"),
        ("85", "First \\boxed{84}, no: \\boxed{85}", "correct"),
        ("85", "\\boxed{84}, while 85 stands here too", "wrong"),
        ("1000", "\\boxed{1,000}", "correct"),
        ("\\frac{1}{2}", "\\boxed{0.5}", "correct"),
        ("\\frac{1}{2}", "It is $\\frac{2}{4}$.", "correct"),
        ("85", "\\boxed{", "unparseable"),
        ("85", "I do not know.", "unparseable"),
        ("85", "", "unparseable"),
        ("x^2+1", "\\boxed{1+x^2}", "correct"),
    ],
)
def test_mathematics(answer: str, text: str, status: str) -> None:
    verdict = verify_problem(problem(answer), text)
    assert verdict.status == status, verdict
    assert verdict.reason


def test_an_unreadable_key_is_never_correct_and_no_verifier_an_error() -> None:
    assert verify_problem(problem("no mathematics at all?!"), "\\boxed{7}").status == "wrong"
    verdict = verify_problem(problem(""), "\\boxed{7}")
    assert verdict.status == "unparseable" and "answer key" in verdict.reason
    assert verify_problem(problem(""), "\\boxed{}").status == "unparseable"
    with pytest.raises(InputError, match="no verifier"):
        verify_problem(problem("1", "vibes"), "2")


def test_exact_and_reasoning_gym() -> None:
    assert verify_problem(problem("Paris", "exact"), "\\boxed{Paris}").status == "correct"
    assert verify_problem(problem("Paris", "exact"), "\\boxed{paris}").status == "wrong"
    entry = {"question": "?", "answer": "-7", "metadata": {}}
    gym = problem("-7", "reasoning-gym", source="reasoning-gym/chain_sum", metadata=json.dumps(entry))
    assert verify_problem(gym, "The answer is \\boxed{-7}.").status == "correct"
    assert verify_problem(gym, "The answer is \\boxed{7}.").status == "wrong"


def test_hostile_answers_end_in_time() -> None:
    started = time.monotonic()
    for text in (
        "\\boxed{9^{9^{9^{9^9}}}}",
        "\\boxed{" * 3000,
        "\\boxed{" + "(" * 2000 + "}",
        "\\boxed{10^{10^{10}}!}",
    ):
        assert verify_problem(problem("3"), text).status != "correct"
    assert time.monotonic() - started < 60


@given(st.text(alphabet="{}\\boxed x1", max_size=60))
def test_boxed_never_fails_and_is_balanced(text: str) -> None:
    found = boxed(text)
    if found is not None:
        assert f"\\boxed{{{found}}}" in text
        assert found.count("{") == found.count("}")


def test_the_step_keeps_the_correct_and_counts_the_rest(tmp_path: Path, models: Path) -> None:
    def trace(sample: int, reasoning: str, solution: str, **more: Any) -> dict[str, Any]:
        usual = {
            "thinking": "closed",
            "finish_reason": "stop",
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "error": "",
        }
        row = {"id": "p", "sample": sample, "teacher": "t", "reasoning": reasoning, "solution": solution}
        return {**row, **usual, **more}

    traces = [
        trace(0, "2 and 2", "\\boxed{4}"),
        trace(1, "2 and 2", "\\boxed{5}"),
        trace(2, "2 and", "", finish_reason="length", thinking="unclosed"),
        trace(3, "", "\\boxed{4}", thinking="none"),
        trace(4, "", "", error="500", finish_reason="error"),
        trace(5, "2 and 2", "four?"),
        trace(6, "2", " "),
    ]
    store = Store(tmp_path)

    def write(context: StepContext) -> None:
        context.count("traces", write_rows(context.out / "traces.parquet", traces, TRACE_SCHEMA))

    store.run(
        StepContext("traces/t/0", {}, {}, {}, {}, tmp_path / "o", tmp_path / "w"),
        "traces",
        1,
        "k" * 64,
        {},
        write,
    )
    write_rows(tmp_path / "problems" / "problems.parquet", [problem("4")], PROBLEM_SCHEMA)
    folders = {"problems": tmp_path / "problems", "shard-0": store.folder("traces/t/0", "k" * 64)}
    tokenizer = {"tokenizer": {"model": str(models / "student-s"), "revision": ""}}
    context = StepContext("raw/t", {}, {}, folders, tokenizer, tmp_path, tmp_path)
    run(context)
    reasons = ("wrong", "length", "no_thinking", "error", "unparseable", "no_solution")
    assert context.counts == {"kept": 1} | {f"dropped_{reason}": 1 for reason in reasons}
    (row,) = read_rows(tmp_path / "data.parquet")
    assert row["messages"][1]["content"] == "<think>\n2 and 2\n</think>\n\n\\boxed{4}"
    assert row["ratio"] == 1.0 and row["reasoning_tokens"] == context.metrics["reasoning_tokens"] > 0
    assert {r["sample"] for r in read_rows(tmp_path / "rejected.parquet")} == {1, 2, 3, 4, 5, 6}


def test_zero_correct_traces_stop_the_run(tmp_path: Path, models: Path) -> None:
    row = {
        "id": "p",
        "sample": 0,
        "teacher": "t",
        "reasoning": "r",
        "solution": "\\boxed{1}",
        "thinking": "closed",
    }
    more = {"finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1, "error": ""}
    store = Store(tmp_path)

    def write(context: StepContext) -> None:
        context.count("traces", write_rows(context.out / "traces.parquet", [row | more], TRACE_SCHEMA))

    store.run(
        StepContext("traces/t/0", {}, {}, {}, {}, tmp_path / "o", tmp_path / "w"),
        "traces",
        1,
        "k" * 64,
        {},
        write,
    )
    write_rows(tmp_path / "problems" / "problems.parquet", [problem("4")], PROBLEM_SCHEMA)
    folders = {"problems": tmp_path / "problems", "shard-0": store.folder("traces/t/0", "k" * 64)}
    with pytest.raises(GateError, match=r"not one trace is correct.*wrong 1"):
        run(StepContext("raw/t", {}, {}, folders, {}, tmp_path, tmp_path))
