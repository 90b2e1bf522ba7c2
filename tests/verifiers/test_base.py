"""Choices, numbers and programs: the doubtful cases that the verifiers' docstrings settle."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import needs_bubblewrap

from hubkit.errors import StepError
from hubkit.verifiers import code as verify_code
from hubkit.verifiers.base import Task, Verdict
from hubkit.verifiers.code import check_sandbox, judge_code
from hubkit.verifiers.table import verify_in_worker, verify_inline


def verdict(verifier: str, answer: str, text: str, **metadata: Any) -> Verdict:
    row = {"answer": answer, "verifier": verifier, "source": "", "metadata": json.dumps(metadata)}
    found = verify_inline(row, text)
    if isinstance(found, Task):
        found = verify_in_worker(found)
    assert isinstance(found, Verdict) and found.reason, found
    return found


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("\\boxed{B}", "correct"),
        ("\\boxed{(B)}", "correct"),
        ("\\boxed{\\text{B}}", "correct"),
        ("\\boxed{\\textbf{(B)}\\ 12}", "correct"),
        ("\\boxed{B. Paris}", "correct"),
        ("\\boxed{ paris }", "correct"),
        ("\\boxed{C}", "wrong"),
        ("\\boxed{London}", "wrong"),
        ("\\boxed{A or B}", "unparseable"),
        ("\\boxed{b}", "unparseable"),
        ("A is tempting, but the answer is **B**.", "correct"),
        ("Answer: (C)", "wrong"),
        ("B", "correct"),
        ("A city has many people.", "unparseable"),
        ("", "unparseable"),
        ("\\boxed{\\text{Paris}}", "correct"),
        ("\\boxed{\\textbf{Paris}}", "correct"),
        ("\\boxed{\\text{(B)}\\ \\text{Paris}}", "correct"),
        ("\\boxed{\\text{B) London}}", "unparseable"),
        ("\\boxed{\\text{Option B}}", "correct"),
        ("\\boxed{B, C}", "unparseable"),
        ("\\boxed{AB}", "unparseable"),
        ("\\boxed{A} or \\boxed{B}", "unparseable"),
        ("\\boxed{D}", "unparseable"),  # there are three
        ("**Paris**", "correct"),
        ("<answer>B</answer>", "correct"),
        ("<answer>Paris</answer>", "correct"),
        ("The answer is B because it is the capital.", "correct"),
        ("The answer is A because it is large.", "wrong"),
        ("The answer is A or B.", "unparseable"),
        ("B or maybe C", "unparseable"),
        ("The answer is B, or possibly A.", "unparseable"),
        ("$\\boxed{B}$ and C", "unparseable"),
        ("\\boxed{B} or perhaps A.", "unparseable"),
        ("\\boxed{B} and I am sure", "correct"),
        ("Answer: A city on the Seine", "unparseable"),
        ("Answer: I am sure it is B", "correct"),
        ("I choose B", "correct"),
        ("Answer: I think B", "correct"),
        ("So I would say B.", "correct"),
        ("I'd go with B", "correct"),
        ("Answer: Paris", "correct"),
        ("The answer is **Paris**.", "correct"),
        ("答案：B", "correct"),
        ("答案是B", "correct"),
        ("The answer is not B", "unparseable"),
        ("Answer: B is wrong", "unparseable"),
        ("Option B is right, option A is wrong.", "correct"),
        ("(A) is wrong. (B) is right.", "unparseable"),
        ("A. Wrong\nB. Right\nC. Wrong", "unparseable"),
    ],
)
def test_choices(text: str, status: str) -> None:
    assert verdict("choice", "B", text, options=["London", "Paris", "Rome"]).status == status


@pytest.mark.parametrize("text", ["The answer is A.", "\\boxed{A}", "A"])
def test_a_letter_comes_before_the_option_with_that_text(text: str) -> None:
    assert verdict("choice", "A", text, options=["C", "D", "A", "B"]).correct
    assert not verdict("choice", "C", text, options=["C", "D", "A", "B"]).correct


@pytest.mark.parametrize(
    ("answer", "text", "tolerance", "status"),
    [
        ("9.81", "\\boxed{9.8}", 0.01, "correct"),
        ("9.81", "\\boxed{9.6}", 0.01, "wrong"),
        ("0", "\\boxed{0.005}", 0.01, "correct"),
        ("-40", "so it is -39.9 degrees", 0.01, "correct"),
        ("50", "\\boxed{50\\%}", 1e-6, "correct"),
        ("1234.5", "\\boxed{1,234.5 \\text{ m}}", 1e-6, "correct"),
        ("0.0012", "\\boxed{1.2 \\times 10^{-3}}", 1e-6, "correct"),
        ("1.2e-3", "\\boxed{0.0012}", 1e-6, "correct"),
        ("0.75", "\\boxed{\\frac{3}{4}}", 1e-6, "correct"),
        ("0.75", "\\boxed{x = 3/4}", 1e-6, "correct"),
        ("5", "\\boxed{1/0}", 1e-6, "unparseable"),
        ("5", "\\boxed{1e9999}", 1e-6, "unparseable"),
        ("5", "\\boxed{none}", 1e-6, "unparseable"),
        ("0.6931471805", "\\boxed{\\ln 2}", 1e-6, "correct"),
        ("much", "\\boxed{5}", 1e-6, "unparseable"),
        ("10^{-3}", "\\boxed{10}", 1e-6, "wrong"),
        ("8000", "\\boxed{8\\,000}", 1e-6, "correct"),
        ("144", "\\boxed{1,44}", 1e-6, "unparseable"),
        ("1.5", "\\boxed{1,5}", 1e-6, "unparseable"),
        ("5", "\\boxed{x_1 = 5}", 1e-6, "correct"),
        ("1", "\\boxed{x_1}", 1e-6, "unparseable"),
        ("2", "\\boxed{\\sqrt{4}}", 1e-6, "correct"),
        ("2", "\\boxed{2^3}", 1e-6, "wrong"),
        ("3.25", "\\boxed{3\\frac14}", 1e-6, "correct"),
        ("50", "\\boxed{0.5}", 1e-6, "wrong"),
        ("5", "\\boxed{5 \\text{ or } 6}", 1e-6, "unparseable"),
        ("5 km", "\\boxed{5 cm}", 1e-6, "wrong"),
        ("18", "\\boxed{\\$18.00}", 1e-6, "correct"),
        ("3", "\\boxed{8:00}", 1e-6, "unparseable"),
        ("22", "\\boxed{211_3}", 1e-6, "correct"),
        ("5", "\\boxed{\\text{at least } 5}", 1e-6, "unparseable"),
        ("1000000", "\\boxed{1 \\text{ million}}", 1e-6, "correct"),
        ("12", "\\boxed{2 \\cdot 6 = 12}", 1e-6, "correct"),
        ("12", "\\boxed{2 \\cdot 7 = 12}", 1e-6, "unparseable"),
        ("12 * 12 = <<12*12=144>>144.\n#### 1,440", "\\boxed{1440}", 1e-6, "correct"),
        ("12 * 12 = <<12*12=144>>144.\n#### 144", "\\boxed{12}", 1e-6, "wrong"),
        ("9.8 m/s^2", "\\boxed{9.8}", 1e-6, "correct"),
        ("9.8 m/s^2", "\\boxed{9.8 \\text{ m/s}^2}", 1e-6, "correct"),
        ("9.8 m/s^2", "\\boxed{9.8 \\text{ m/s}}", 1e-6, "wrong"),
        ("50 \\Omega", "\\boxed{50}", 1e-6, "correct"),
        ("50 \\Omega", "\\boxed{50\\text{ k}\\Omega}", 1e-6, "wrong"),
        ("5", "\\boxed{\\approx 5}", 1e-6, "correct"),
        ("5000", "\\boxed{5 x 10^3}", 1e-6, "correct"),
        ("5", "\\boxed{5 \\times 10^3}", 1e-6, "wrong"),
        ("5", "\\boxed{5 \\pm 0.1}", 1e-6, "unparseable"),
        ("5", "\\boxed{> 5}", 1e-6, "unparseable"),
        ("5", "\\boxed{5x}", 1e-6, "unparseable"),
        ("1e-30", "\\boxed{2e-30}", 1e-6, "wrong"),
        ("2^{10}", "\\boxed{2}", 1e-6, "wrong"),
        ("\\binom{5}{2}", "\\boxed{10}", 1e-6, "correct"),
        ("\\log_2 8", "\\boxed{8}", 1e-6, "wrong"),
        ("\\frac13", "\\boxed{0.333...}", 1e-6, "correct"),
        ("\\pi", "\\boxed{3.14...}", 0.01, "unparseable"),
        ("8:30", "\\boxed{8.5}", 1e-6, "unparseable"),
        ("25 °C", "\\boxed{25 °F}", 1e-6, "wrong"),
        ("48480", "<answer>The answer is 48480.</answer>", 1e-6, "correct"),
    ],
)
def test_numbers(answer: str, text: str, tolerance: float, status: str) -> None:
    assert verdict("numeric", answer, text, tolerance=tolerance).status == status


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("\\boxed{\\frac{1}{2}}", "correct"),
        ("\\boxed{$\\dfrac12$}", "correct"),
        ("The answer is $\\frac12$.", "correct"),
        ("\\boxed{\\frac{1}{3}}", "wrong"),
        ("\\boxed{\\frac{1}{5}}", "unparseable"),
        ("\\boxed{\\text{half}}", "unparseable"),
    ],
)
def test_options_that_are_formulas(text: str, status: str) -> None:
    assert verdict("choice", "A", text, options=["$1/2$", "1/3", "1/4"]).status == status


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("\\boxed{Paris}", "correct"),
        ("It is <answer>Paris</answer>.", "correct"),
        ("<answer>Rome</answer> no, <answer> Paris </answer>", "correct"),
        ("So.\n#### Paris", "correct"),
        ("Paris", "correct"),
        ("<answer>paris</answer>", "wrong"),
        ("<answer>Rome</answer> Paris", "wrong"),
        ("It is Paris", "wrong"),
        ("\\boxed{Rome} <answer>Paris</answer>", "wrong"),
    ],
)
def test_exact_texts(text: str, status: str) -> None:
    assert verdict("exact", "Paris", text).status == status


def test_problems_of_reasoning_gym_read_tags() -> None:
    row = {"answer": "85", "verifier": "reasoning-gym", "source": "reasoning-gym/chain_sum"}
    row["metadata"] = json.dumps({"question": "84 + 1", "answer": "85", "metadata": {}})
    for text, status in (
        ("<answer>85</answer>", "correct"),
        ("<answer>84</answer> 85", "wrong"),
        ("#### 85", "correct"),
    ):
        found = verify_inline(row, text)
        assert (verify_in_worker(found) if isinstance(found, Task) else found).status == status


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.sampled_from(["%s", "\\boxed{%s}"]))
def test_any_number_equals_itself(number: float, form: str) -> None:
    assert verdict("numeric", repr(number), form % repr(number)).status == "correct"


@settings(deadline=None)
@given(st.text(max_size=60), st.sampled_from(["choice", "numeric", "exact"]))
def test_hostile_text_gets_a_verdict(text: str, verifier: str) -> None:
    for whole in (text, f"\\boxed{{{text}}}"):
        assert verdict(verifier, "7", whole).status in ("correct", "wrong", "unparseable")


DOUBLE = "Here:\n```python\ndef double(x):\n    return 2 * x\n```\nDone."


@pytest.mark.parametrize(
    ("text", "tests", "status", "reason"),
    [
        (DOUBLE, ["assert double(2) == 4", "assert double(-1) == -2"], "correct", "passed 2 of 2"),
        (DOUBLE, ["assert double(2) == 4", "assert double(2) == 5"], "wrong", "test 2 of 2: AssertionError"),
        ("```\nprint(2 * int(input()))\n```", [{"input": "21\n", "output": "42"}], "correct", "1 of 1"),
        ("```\nprint(input())\n```", [{"input": "21\n", "output": "42"}], "wrong", "output differs"),
        ("```python\nimport sys; sys.exit(0)\n```", ["assert False"], "wrong", "ended early"),
        ("```python\nimport os; os._exit(0)\n```", ["assert False"], "wrong", "ended early"),
        ("```python\ndef f(:\n```", ["f()"], "wrong", "SyntaxError"),
        ("no program", ["pass"], "unparseable", "no fenced program"),
        (DOUBLE, [], "unparseable", "no tests"),
    ],
)
@needs_bubblewrap
def test_programs(text: str, tests: list[Any], status: str, reason: str) -> None:
    found = judge_code(text, json.dumps({"tests": tests}))
    assert (found.status, reason in found.reason) == (status, True), found


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("open('/usr/lib/x', 'w')", "Read-only"),
        ("open('/code/program.py', 'w')", "Error"),
        ("open('/etc/passwd')", "FileNotFoundError"),
        ("open('/tmp/x', 'w').write('x' * (64 << 20))", "OSError"),
        ("x = 'x' * (2 << 30)", "MemoryError"),
        (
            # All of them say one line: which process ends last is chance.
            "import os\nwhile True:\n try: os.fork()\n except BlockingIOError: raise SystemExit('no more processes')",
            "no more processes",
        ),
        ("while True: print('x' * 1000)", "File too large"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        (
            "import os; assert not set(os.environ) - {'LD_LIBRARY_PATH', 'PWD', 'LC_CTYPE'}; 1 / 0",
            "ZeroDivision",
        ),
        ("import numpy", "ModuleNotFoundError"),
    ],
)
@needs_bubblewrap
def test_a_program_cannot_leave_the_sandbox(program: str, reason: str) -> None:
    found = judge_code(f"```python\n{program}\n```", json.dumps({"tests": ["done"]}))
    assert found.status == "wrong" and reason in found.reason, found


@needs_bubblewrap
def test_a_program_has_no_network_not_even_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = f"import socket; socket.create_connection({listener.getsockname()!r}, 2)"
        found = judge_code(f"```python\n{program}\n```", json.dumps({"tests": ["done"]}))
    assert found.status == "wrong" and "refused" in found.reason, found


@needs_bubblewrap
def test_a_program_that_hangs_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_code, "TEST_SECONDS", 1)
    for program in ("while True: pass", "import time; time.sleep(60)"):
        found = judge_code(f"```python\n{program}\n```", json.dumps({"tests": ["done"]}))
        assert found.status == "timeout" and "test 1 of 1" in found.reason


@needs_bubblewrap
def test_without_bubblewrap_it_says_what_to_install(tmp_path: Path) -> None:
    check_sandbox()  # here it works
    code = "from hubkit.verifiers.code import check_sandbox; check_sandbox()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert done.stderr.strip().endswith("(apt install bubblewrap)")
    assert StepError.__name__ in done.stderr
