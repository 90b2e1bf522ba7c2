"""Numbers that a shortened trace makes up are found; those that it only writes otherwise are not."""

from __future__ import annotations

import pytest

from hubkit.traces.faithful import invented

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
