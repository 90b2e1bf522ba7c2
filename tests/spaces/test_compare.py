"""The Space's page: what comes from datasets and models is text there, whatever it holds."""

from __future__ import annotations

import importlib.util
import re
import sys
from html.parser import HTMLParser
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT

HOSTILE = "<img src=x onerror=alert(1)>${alert(1)}{{7*7}}`</div><script>x</script>&amp;"


@pytest.fixture(scope="module")
def app() -> ModuleType:
    path = ROOT / "spaces" / "compare" / "app.py"
    spec = importlib.util.spec_from_file_location("compare_app", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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


def data(app: ModuleType) -> Any:
    """What a card needs of the evaluations: the table of variants."""
    return SimpleNamespace(
        variants=app.variant_table({}, [{"variant": "raw", "kind": "raw"}, {"variant": None}])
    )


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


def test_hostile_outputs_are_shown_as_they_are(app: ModuleType) -> None:
    page = Reader(app.card(data(app), row()))
    assert not page.tags & {"img", "script"}
    assert page.text.count(HOSTILE) == 5 and "right" in page.text and "cut off" in page.text


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back_and_starts_no_template(app: ModuleType, text: str) -> None:
    escaped = app.esc(text)
    assert not re.search(r"[<>${}`\\%\n]", escaped)
    assert Reader(f"<p>{escaped}</p>").text == text or "\r" in text or "\0" in text


def test_a_span_that_never_closed_has_no_answer(app: ModuleType) -> None:
    assert app.split("<think>\nstill") == ("still", "")
    assert app.split("<think>\na\n</think>\n\nb") == ("a", "b")
    assert app.split("b") == ("", "b")
    assert "no answer after the thinking" in app.card(data(app), row(output="<think>\nstill"))
