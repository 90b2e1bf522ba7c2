"""Numbers that a shortened trace makes up are found; those that it only writes otherwise are not."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from support import ROOT

from hubkit.traces.faithful import false_equations, invented

TRACE = (
    "Melanie has 1,250 cleaners. She sold a third of them, then half of what was left, and twelve more: 404.5"
)


@pytest.mark.parametrize(
    "short",
    [
        "1250 / 3, then 1/2 of it, then 12: 404.50",
        "1{,}250 and 1\\,250 and 1 250".replace(" 250", "\u2009250"),
        "Step 7: sold.\n8) then 404.5",
        "nothing but words",
        "",
    ],
)
def test_numbers_written_otherwise_are_of_the_trace(short: str) -> None:
    assert invented(short, TRACE) == []


@pytest.mark.parametrize(
    ("short", "numbers"),
    [
        ("Melanie started with 18 vacuum cleaners", ["18"]),
        ("12.5 and 125 and 12", ["12.5", "125"]),
        ("404.5 = 400 + 4.5", ["400", "4.5"]),
        ("1250 - 97 = 1153, 1153 - 97", ["97", "1153"]),
    ],
)
def test_other_numbers_are_made_up(short: str, numbers: list[str]) -> None:
    assert invented(short, TRACE) == numbers


def test_problem_and_answer_are_sources_too() -> None:
    assert invented("3 * 7 = 21", "3 boxes", "of 7", "21") == []
    assert invented("25% of 80 = 0.25 * 80 = 20", "a quarter of 80, 25 percent", "20") == []


@pytest.mark.parametrize(
    ("short", "false"),
    [
        ("17 - 13 = 17", ["17 - 13 = 17"]),
        ("$12 \\times 3 = 35$ and 12 × 3 = 36", ["12 * 3 = 35"]),
        ("860 + 129 = 997\n989 + 8 = 997", ["860 + 129 = 997"]),
        ("1,250 ÷ 5 = 240", ["1250 / 5 = 240"]),
        ("2 + 3 = 5 + 1 = 7", ["5 + 1 = 7"]),
        ("0.5 * 3 = 1.6", ["0.5 * 3 = 1.6"]),
        ("2 + 3 * 4 = 20", ["2 + 3 * 4 = 20"]),
        ("17 * 16 = 17 * (17 * 10) = 170", ["17 * 16 = 17 * ( 17 * 10 )", "17 * ( 17 * 10 ) = 170"]),
        ("7 * 30 = 7 * (3 * 10) = (7 * 3) * 10 = 21.", ["( 7 * 3 ) * 10 = 21"]),
        ("2(3 + 4) = 15\n(2)(3 + 1) = 5", ["2 ( 3 + 4 ) = 15", "( 2 ) ( 3 + 1 ) = 5"]),
        ("so x = 3 * (5 - 7) = 6 cm", ["3 * ( 5 - 7 ) = 6"]),
        ("\\( (4 + 4) / 2 = 7 \\)", ["( 4 + 4 ) / 2 = 7"]),
    ],
)
def test_equations_that_do_not_hold(short: str, false: list[str]) -> None:
    assert false_equations(short, "2 and 3") == false
    assert false_equations(short, short) == [], "what the trace has is the teacher's"


@pytest.mark.parametrize(
    "short",
    [
        "2 + 3 = 5 + 1 = 6",
        "10 / 3 = 3.33, 2 / 3 = 0.67, 17 / 5 = 3 remainder 2, 17 / 5 = 3",
        "x + 3 = 5, 2x + 3 + 4 = 9, (2 + 3) * 4 = 20, 2(3 + 4) = 14, 3^2 + 1 = 10, -3 + 4 = 1",
        "9:30 + 45 = 10:15, 218_9 * 5 = 1204_9, 50 * 20% = 10, 2 + 3 = 5x, 7 / 0 = 1",
        "Step 1: 2 + 3 = 5. 2. 5 + 1 = 6.",
        "3 * (5 - 7) = -6, -(2 + 3) = -5, 7 * 30 = 7 * (3 * 10) = (7 * 3) * 10 = 21 * 10 = 210",
        "3 bags (4 + 1) = 5, 3 (4 + 1) = 5, (1) 2 + 3 = 5, f(2) + 1 = 9, cost(3) * 2 = 4, x - 3 + (4) = 2",
        "2 + (3) = 5 (apples), 2 * (3) = 7x, 2 * (3) = 1 (x + 2), 2 * (3) = 5^2, (3) = 4, ((2) + 1 = 9, (2 + 1)) = 9",
        "(10 / 3) * 1 = 3.33, 8 / (4 - 4) = 1, 5 % (2) = 1, 2 ** (3) = 8, (1) = 5, 3! + (1) = 7",
        "30 * (1 / 2) * (2 / 3) = 30 * (1 / 2) = 15, 2 + 3 + 4 = 2 + 3 = 5, √(5 * 7) = 6, 2 * (3) = 3√5, 5 = (2 + 1)",
        "- 5(2) = 10\n-   6 * 8 = 6 * (4 + 4) = 48\n* 2 * (3) = 6\n1 / (3) = 0.333...",
        "A - (2 + 3) = 4, 4x(2 + 1) = 5, y(2) = 4(2) + 1 = 9",
    ],
)
def test_what_holds_or_is_not_read_whole_is_not_called_false(short: str) -> None:
    assert false_equations(short) == []


def test_equations_agree_with_what_a_reader_found() -> None:
    """Fifty compressions of each of three runs of a real model, read by hand."""
    lines = (ROOT / "recipes" / "smol" / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    false = Counter()
    for row in map(json.loads, lines):
        found = false_equations(row["compressed"], row["problem"], row["trace"], row["answer"])
        false[row["verdict"], bool(found)] += 1
    # Of those that are left most have a variable in their equations; the last run kept none with another fault, but for
    # what stands in the trace.
    assert false["unfaithful", True] == 17 and false["unfaithful", False] == 11
    assert not false["faithful", True] and not false["repetitive", True]


def test_a_hostile_text_takes_no_longer_than_its_length() -> None:
    for text in (
        "1 + " * 50_000,
        "1 = " * 50_000,
        "1 + 1 = 2 = " * 20_000,
        "9" * 100_000,
        "(" * 100_000,
        "((1)) = " * 20_000,
    ):
        assert false_equations(text) == []
