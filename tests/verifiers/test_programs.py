"""Tests of programs in the layouts of public datasets, and tests that check nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import needs_bubblewrap

from hubkit.errors import InputError
from hubkit.problems.base import Pin
from hubkit.problems.file import FileSource
from hubkit.verifiers import verify
from hubkit.verifiers.code import judge_code
from hubkit.verifiers.programs import read_tests

DOUBLE = "```python\ndef double(x):\n    return 2 * x\n```"
TRIPLE = "```python\ndef double(x):\n    return 3 * x\n```"
PRINTS = "```python\nprint(2 * int(input()))\n```"
NONSENSE = "```python\nprint('nonsense')\n```"
SOLUTION = "```python\nclass Solution:\n    def double(self, x):\n        return 2 * x\n```"
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n"

LAYOUTS: list[tuple[str, Any, dict[str, Any], str, str]] = [
    ("MBPP", ["assert double(2) == 4"], {}, DOUBLE, TRIPLE),
    (
        "MBPP with imports",
        ["assert double(math.floor(2.5)) == 4"],
        {"test_imports": ["import math"]},
        DOUBLE,
        TRIPLE,
    ),
    ("MBPP with setup", ["assert double(two) == 4"], {"test_setup_code": "two = 2"}, DOUBLE, TRIPLE),
    ("HumanEval", CHECK, {"entry_point": "double"}, DOUBLE, TRIPLE),
    ("APPS", '{"inputs": ["21\\n"], "outputs": ["42\\n"]}', {}, PRINTS, NONSENSE),
    (
        "APPS with a function",
        {"fn_name": "double", "inputs": [[2], [3]], "outputs": [[4], [6]]},
        {},
        DOUBLE,
        TRIPLE,
    ),
    ("TACO with a class", {"fn_name": "double", "inputs": [[2]], "outputs": [4]}, {}, SOLUTION, TRIPLE),
    ("TACO with lines", {"inputs": [["21"]], "outputs": [["42"]]}, {}, PRINTS, NONSENSE),
    ("pairs", [{"input": "21\n", "output": "42\n", "testtype": "stdin"}], {}, PRINTS, NONSENSE),
    (
        "a checker",
        "for x in range(3):\n    if double(x) != 2 * x:\n        raise ValueError(x)",
        {},
        DOUBLE,
        TRIPLE,
    ),
]


@pytest.mark.parametrize(
    ("name", "tests", "beside", "right", "wrong"), LAYOUTS, ids=[row[0] for row in LAYOUTS]
)
@needs_bubblewrap
def test_layouts_are_read_as_what_they_are(
    name: str, tests: Any, beside: dict[str, Any], right: str, wrong: str
) -> None:
    metadata = json.dumps({"tests": read_tests(tests, beside, "row 0")})
    assert judge_code(right, metadata).correct, judge_code(right, metadata)
    assert judge_code(wrong, metadata).status == "wrong", judge_code(wrong, metadata)


@pytest.mark.parametrize(
    "tests",
    [
        CHECK,  # never called, and no entry_point
        "def test_double():\n    assert double(2) == 4",
        "double(2)",
        "import math\nprint(double(2))",
        "assert True",
        "pass",
        "assert 1 == 1",
        "x = 3\nassert x == 3",
        "import sys\ndouble(2)\nsys.exit(0)",
        "import numpy as np\nassert np.all(double(2) == 4)",
        ">>> double(2)\n4",
        "['assert double(2) == 4']",
        "class Test:\n    def test(self):\n        assert double(2) == 4",
        "def a():\n    b()\n\ndef b():\n    assert double(2) == 4",
        "assert double(2) == 4)",
        [],
        {},
        None,
        7,
        [7],
        [{"input": "1"}],
        [{"input": "1", "output": ""}],
        [{"input": "1", "output": "2", "testtype": "functional"}],
        {"inputs": ["1"], "outputs": []},
        {"inputs": [], "outputs": []},
        {"inputs": "1", "outputs": "2"},
        {"input": "1", "output": "2"},
        {"fn_name": "a b", "inputs": [[1]], "outputs": [1]},
        '{"inputs": ["1"]',
    ],
)
def test_tests_that_check_nothing_are_refused_when_they_are_read(tests: Any) -> None:
    with pytest.raises(InputError, match="row 3"):
        read_tests(tests, {}, "row 3")
    with pytest.raises(InputError):
        verify(NONSENSE, answer="", verifier="code", metadata={"tests": tests})


@pytest.mark.parametrize(
    "tests",
    [
        "def a():\n    b()\n\ndef b():\n    assert double(2) == 4\n\na()",
        "import sys\nif double(2) != 4:\n    sys.exit(1)",
        "import unittest\nclass Test(unittest.TestCase):\n    def test(self):\n        self.assertEqual(double(2), 4)\n"
        "unittest.main()",
    ],
)
def test_tests_that_check_something_are_kept(tests: str) -> None:
    assert read_tests(tests, {}, "row 3") == [tests]


@pytest.mark.parametrize(
    "test",
    [
        "if False:\n    assert double(2) == 4",
        "for x in []:\n    assert double(x) == 2 * x",
        "try:\n    assert double(2) == 4\nexcept Exception:\n    pass",
        "assert True or double(2) == 4",
        "assert all(double(x) == 4 for x in ())",
    ],
)
@needs_bubblewrap
def test_tests_that_pass_without_a_program_check_nothing(test: str) -> None:
    for program in (DOUBLE, NONSENSE):
        assert judge_code(program, json.dumps({"tests": [test]})).status == "unparseable"
    both = json.dumps({"tests": [test, "assert double(2) == 4"]})
    assert judge_code(DOUBLE, both).correct and judge_code(NONSENSE, both).status == "wrong"


@pytest.mark.parametrize(
    "text",
    [
        "1. So:\n   ```python\n   print(2*int(input()))\n   ```",
        "- So:\n\n\t```python\n\tprint(2*int(input()))\n\t```\n",
        "1. ```python\n   x = int(input())\n   if x:\n       print(2*x)\n   ```",
        "> ```python\n> print(2*int(input()))\n> ```",
        "````python\nprint(2*int(input()))\n````",
        "~~~py\nprint(2*int(input()))\n~~~",
        "So:\r\n```python\r\nx = int(input())\r\nprint(2*x)\r\n```\r\nDone.\r\n",
    ],
)
@needs_bubblewrap
def test_fences_in_lists_and_quotes_are_dedented(text: str) -> None:
    found = judge_code(text, json.dumps({"tests": [{"input": "21\n", "output": "42\n"}]}))
    assert found.correct, found


def test_what_stands_beside_the_tests_is_read_from_rows(tmp_path: Path) -> None:
    row = {"problem": "Double.", "answer": "", "test": CHECK, "entry_point": "double", "other": 1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"answer": "-"}) + "\n")
    pq.write_table(pa.Table.from_pylist([row | {"answer": "-"}]), tmp_path / "rows.parquet")
    for name in ("rows.jsonl", "rows.parquet"):
        source = FileSource(source="file", path=name, verifier="code", tests="test")
        (problem,) = source.rows(Pin(path=tmp_path / name))
        assert json.loads(problem["metadata"])["tests"] == [f"{CHECK}\n\ncheck(double)"]
