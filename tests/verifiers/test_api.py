"""The public entry point, and a verifier of somebody's own: one class and a row in the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hubkit.errors import InputError
from hubkit.verifiers import verify, verify_problem
from hubkit.verifiers.base import Task, Verdict, Verifier, verdict
from hubkit.verifiers.table import TABLE


def test_one_text_one_verdict() -> None:
    found = verify("So it is \\boxed{\\dfrac12}.", answer="0.5")
    assert found.correct and found.status == "correct" and found.answer and found.reason
    assert not verify("\\boxed{84}", answer="85").correct


def test_lists_in_lists_out() -> None:
    texts = ["\\boxed{85}", "\\boxed{84}", "\\boxed{1+x^2}"]
    found = verify(texts, answer=["85", "85", "x^2+1"])
    assert [one.status for one in found] == ["correct", "wrong", "correct"]
    assert [one.correct for one in verify(texts[:2], answer="85")] == [True, False]
    assert verify([], answer="85") == []


def test_metadata_is_what_the_verifier_documents() -> None:
    assert verify("\\boxed{9.8}", answer="9.81", verifier="numeric", metadata={"tolerance": 0.01}).correct
    assert verify(
        "\\boxed{Rome}", answer="B", verifier="choice", metadata={"options": ["Oslo", "Rome"]}
    ).correct
    with pytest.raises(InputError, match="tests"):
        verify("", answer="", verifier="code")


def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(InputError, match="no verifier is called 'vibes'"):
        verify("1", answer="1", verifier="vibes")
    with pytest.raises(InputError, match="2 texts, 1 answers"):
        verify(["1", "2"], answer=["1"])
    with pytest.raises(InputError, match="one text has one answer"):
        verify("1", answer=["1"])  # type: ignore[call-overload]


class Shout(Verifier):
    name = "shout"

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        same = text.strip() == problem["answer"].upper()
        return verdict("correct" if same else "wrong", text, "compared in capitals")


def test_a_new_verifier_is_a_class_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, Shout.name, Shout())
    assert verify("PARIS", answer="Paris", verifier="shout").correct
    row = {"answer": "Paris", "verifier": "shout", "source": "", "metadata": ""}
    assert verify_problem(row, "Paris").status == "wrong"
