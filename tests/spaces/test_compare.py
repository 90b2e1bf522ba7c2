"""The Space's page: what comes from datasets and models is text there, whatever it holds."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT

HOSTILE = "<img src=x onerror=alert(1)>${alert(1)}{{7*7}}`</div><script>x</script>&amp;"


@pytest.fixture(scope="module")
def app() -> Iterator[SimpleNamespace]:
    """The Space's modules, as its folder has them: they find each other by their plain names."""
    folder = ROOT / "spaces" / "compare"
    sys.path.insert(0, str(folder))
    yield SimpleNamespace(
        **{
            name: importlib.import_module(name)
            for name in ("ask", "cards", "data", "results", "text", "view")
        }
    )
    sys.path.remove(str(folder))


def row(**values: Any) -> dict[str, Any]:
    return {
        "student": HOSTILE,
        "base": HOSTILE,
        "variant": "raw",
        "method": HOSTILE,
        "output": f"<think>\n{HOSTILE}\n</think>\n\n{HOSTILE}",
        "output_tokens": 7,
        "finish_reason": "length",
        "correct": True,
    } | values


def data(app: SimpleNamespace) -> Any:
    """What a card needs of the evaluations: the table of variants."""
    rows = [{"variant": "raw", "kind": "raw"}, {"variant": None}]
    return SimpleNamespace(variants=app.data.variant_table({}, rows))


class Reader(HTMLParser):
    """Names of elements, and the text that a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_outputs_are_shown_as_they_are(app: SimpleNamespace) -> None:
    page = Reader(app.cards.card(data(app), row()))
    assert not page.tags & {"img", "script"}
    assert page.text.count(HOSTILE) == 5 and "right" in page.text and "cut off" in page.text


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back_and_starts_no_template(app: SimpleNamespace, text: str) -> None:
    escaped = app.text.esc(text)
    assert not re.search(r"[<>${}`\\%\n]", escaped)
    assert Reader(f"<p>{escaped}</p>").text == text or "\r" in text or "\0" in text


def test_a_span_that_never_closed_has_no_answer(app: SimpleNamespace) -> None:
    assert app.text.split("<think>\nstill") == ("still", "")
    assert app.text.split("<think>\na\n</think>\n\nb") == ("a", "b")
    assert app.text.split("b") == ("", "b")
    assert "no answer after the thinking" in app.cards.card(data(app), row(output="<think>\nstill"))


@pytest.mark.parametrize(
    "text", ["$" * 100_000, "\\(" * 50_000, "a\n" * 50_000, "\\boxed{" * 20_000, "x" * 9]
)
def test_a_text_gets_no_more_room_than_it_is_given(app: SimpleNamespace, text: str) -> None:
    for limit in (5_000, 60_000):
        assert len(app.text.shown(text, limit)) < limit + 100
    page = app.cards.card(data(app), row(output=f"<think>{text}</think>{text}"), limit=20_000)
    assert len(page) < 22_000


def test_mathematics_gets_the_delimiters_that_are_looked_for(app: SimpleNamespace) -> None:
    assert (
        app.text.maths(r"so $x^2$ is \boxed{4}, for $5 or $6") == r"so \(x^2\) is \(\boxed{4}\), for $5 or $6"
    )
    assert (
        app.text.maths(r"\(a\) $$b$$ \[c\] \boxed{\frac{1}{2}}")
        == r"\(a\) $$b$$ \[c\] \(\boxed{\frac{1}{2}}\)"
    )


def test_the_gradio_that_is_tested_is_the_one_that_is_pinned() -> None:
    folder = ROOT / "spaces" / "compare"
    installed = version("gradio")
    assert f"gradio=={installed}\n" in (folder / "requirements.txt").read_text()
    assert f"sdk_version: {installed}\n" in (folder / "README.md").read_text()


def test_what_zero_gpu_pickles_is_what_a_visitor_sends(app: SimpleNamespace) -> None:
    """Its decorator tells generators by their function, and hands arguments to another process."""
    answer = app.ask.asking({"models": {}}, object())
    assert inspect.isgeneratorfunction(answer)
    assert inspect.signature(answer).parameters.keys() == inspect.signature(app.ask.seconds).parameters.keys()
    assert [app.ask.seconds("", "", [], 0, 1, limit) for limit in (1, 400, 4096, 1e9)] == [20, 40, 120, 120]
    (said,) = answer("2 + 2", "4", [], 0, 1, 9)
    assert "choose at least one student" in said


SORT = """
global.window = {}; global.document = {addEventListener() {}};
(0, eval)(require('fs').readFileSync(process.argv[1], 'utf8')); global.compare = window.compare;
let rows = ['3', '', '10', '', '2'].map(v => ({cells: [{dataset: {v}}]}));
const body = {get rows() { return rows; }, append(...sorted) { rows = sorted; }};
const cell = {cellIndex: 0, sort: null, removeAttribute() { this.sort = null; },
  getAttribute() { return this.sort; }, setAttribute(_, sort) { this.sort = sort; }};
const table = {querySelectorAll: () => [cell], tBodies: [body]};
for (let i = 0; i < 2; i++) {
  compare.sort({closest: what => what === 'th' ? cell : table});
  console.log(cell.sort, rows.map(row => row.cells[0].dataset.v || '-').join(' '));
}
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node: apt install nodejs")
def test_what_is_not_known_is_sorted_last() -> None:
    page = ROOT / "spaces" / "compare" / "page.js"
    done = subprocess.run(["node", "-e", SORT, str(page)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["ascending 2 3 10 - -", "descending 10 3 2 - -"]


@pytest.mark.parametrize(
    ("solution", "known", "same"),
    [
        ("so \\boxed{85}", "85", True),
        ("85", "85", True),
        ("it is 86", "85", False),
        ("\\boxed{\\frac{1}{2}}", "1/2", None),
        ("\\boxed{84}, no, \\boxed{\\text{none}}", "84", None),
        ("no number", "85", None),
        ("\\boxed{blue}", "Blue", True),
        ("\\boxed{red}", "blue", False),
        ("It is blue, I think.", "blue", None),
        ("\\boxed{100000}", "1e5", True),
        # Worked out, this would keep the Space busy for ever.
        ("85", "1e9999999999", None),
        ("\\boxed{85}", "9" * 100_000, False),
    ],
)
def test_what_cannot_be_compared_is_not_called_wrong(
    app: SimpleNamespace, solution: str, known: str, same: bool | None
) -> None:
    assert app.ask.same_answer(solution, known) is same


def test_a_base_of_the_hub_is_asked_at_the_commit_that_was_evaluated(app: SimpleNamespace) -> None:
    release = {"revisions": {"s": "1" * 40}, "pinned": {"org-b": {"model": "org/b", "revision": "2" * 40}}}
    students = {name: {"student": name} for name in ("s", "org-b", "x")}
    found = [app.ask.revision_of(release, SimpleNamespace(students=students), name) for name in students]
    assert found == ["1" * 40, "2" * 40, None]


def test_students_of_two_teachers_are_told_apart_in_every_table(app: SimpleNamespace) -> None:
    same = {"base": "b", "method": "full", "benchmark": "test", "seed": None, "seeds": 2}
    numbers = dict.fromkeys(("accuracy", "accuracy_min", "accuracy_max", "mean_output_tokens"), 0.5)
    test = {"a": "raw", "b": "raw", "difference": 0.0, "only_a": 1, "only_b": 2, "p_holm": 1.0}

    def shown(*teachers: str) -> str:
        tests = [same | test | {"teacher": teacher} for teacher in teachers]
        groups = [same | numbers | {"variant": "raw", "teacher": teacher} for teacher in teachers]
        found = SimpleNamespace(**vars(data(app)), results=groups, report={"over_seeds": groups})
        return str(app.results._tests(found, tests, False) + app.results._over_seeds(found, False))

    assert all(shown("sage", "owl").count(f"of {teacher}</td>") == 1 for teacher in ("sage", "owl"))
    assert all(f"b full of {teacher}, 2 seeds" in shown("sage", "owl") for teacher in ("sage", "owl"))
    assert "of sage" not in shown("sage", "sage") and ">b full, 2 seeds<" in shown("sage")


def test_no_filter_of_what_a_base_lacks_hides_it(app: SimpleNamespace) -> None:
    lacks = {"base": "b", "variant": None, "method": None, "seed": None, "teacher": None}
    raw = {"base": "b", "variant": "raw", "method": "full", "seed": 1, "teacher": "t"}
    known = SimpleNamespace(names=["b", "b-raw"], students={"b": lacks, "b-raw": raw})
    view = app.view.View(variant=["untrained", "raw"], method=["full"], seed=["0"], teacher=["t"])
    assert app.view.chosen_students(known, view) == [0]


def test_the_space_imports_what_it_says_it_needs_and_nothing_of_hubkit() -> None:
    folder = ROOT / "spaces" / "compare"
    own = {path.stem for path in folder.glob("*.py")}
    needed = set(re.findall(r"^[a-z_]+", (folder / "requirements.txt").read_text(), re.MULTILINE))
    found = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    # numpy comes with gradio; `spaces` is there on ZeroGPU hardware alone.
    assert found - own - set(sys.stdlib_module_names) - {"numpy", "spaces"} == needed
