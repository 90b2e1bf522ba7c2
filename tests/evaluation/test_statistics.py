"""Statistics against published values, and against the definitions they come from."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from scipy import stats

from hubkit.evaluation.statistics import effective, holm, sign_flip, summary, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_published(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [1, 7, 200])
def test_wilson_stays_inside_and_around_the_share(n: int) -> None:
    for correct in range(n + 1):
        low, high = wilson(correct, n)
        assert 0 <= low <= correct / n <= high <= 1
        mirrored = wilson(n - correct, n)
        assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="correct of"):
        wilson(correct, n)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 1), (10, 10), (2, 14), (900, 1000)])
def test_of_one_answer_each_it_is_the_binomial_test_on_discordant_pairs(first: int, second: int) -> None:
    """McNemar's exact test."""
    differences = [1] * first + [-1] * second + [0] * 10
    random.Random(0).shuffle(differences)
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert sign_flip(differences) == pytest.approx(expected)
    assert sign_flip([-d for d in differences]) == sign_flip(differences)
    # Counted by steps of two it is the same number by the way of several answers.
    assert sign_flip([2 * d for d in differences]) == pytest.approx(expected)


def test_of_several_answers_every_sign_is_tried() -> None:
    differences = [3, -1, 2, 2, -4, 0, 1, 3]
    observed = abs(sum(differences))
    sums = [sum(map(math.prod, zip(differences, signs, strict=True))) for signs in product((1, -1), repeat=8)]
    expected = sum(abs(total) >= observed for total in sums) / len(sums)
    assert sign_flip(differences) == pytest.approx(expected)


def test_answers_to_one_problem_count_for_less() -> None:
    # All answers to a problem alike: worth one. Independent answers: worth nearly all.
    assert effective([1, 0, 1, 1, 0, 0, 1, 0], 4) == pytest.approx(8, abs=1.01)
    generator = random.Random(0)
    independent = [sum(generator.random() < 0.5 for _ in range(4)) / 4 for _ in range(4000)]
    assert 0.9 * 16000 < effective(independent, 4) <= 16000
    assert effective([1, 1, 1], 4) == 3 and effective([1, 0, 1], 1) == 3


def test_intervals_of_several_answers_hold_what_they_say() -> None:
    """Of problems of different difficulty, with the answers to each drawn anew: 95 of 100 hold the true accuracy."""
    generator, held = random.Random(1), 0
    for _ in range(400):
        # Beta(1/2, 1/2): mostly easy or hard ones, true mean 0.5.
        right = [
            sum(generator.random() < chance for _ in range(4)) / 4
            for chance in (generator.betavariate(0.5, 0.5) for _ in range(60))
        ]
        worth = effective(right, 4)
        low, high = wilson(sum(right) / 60 * worth, worth)
        held += low <= 0.5 <= high
    assert 0.92 <= held / 400 <= 0.98


def answers(id_: str, *given: tuple[str | None, bool]) -> list[dict[str, object]]:
    more = {"output_tokens": 10, "finish_reason": "stop"}
    return [
        {"id": id_, "sample": i, "extracted": text, "correct": c} | more for i, (text, c) in enumerate(given)
    ]


def test_a_summary_of_several_answers() -> None:
    rows = answers("a", ("7", True), ("8", False), ("7", True), (None, False))
    rows += answers("b", ("1", False), ("1", False), ("2", True), ("3", False))
    rows += answers("c", (None, False), (None, False), (None, False), (None, False))
    found = summary(rows)
    assert (found["n"], found["samples"], found["correct"]) == (3, 4, 3)
    assert found["accuracy"] == 3 / 12
    assert (found["pass_at_k"], found["maj_at_k"]) == (2 / 3, 1 / 3)
    assert found["ci_low"] < 0.25 < found["ci_high"] and found["mean_output_tokens"] == 10
    with pytest.raises(ValueError, match="different numbers"):
        summary(rows[:-1])
    assert "maj_at_k" not in summary([row | {"extracted": None} for row in rows])


def test_holm_as_computed_by_hand() -> None:
    # 0.005 x 4, 0.01 x 3, 0.03 x 2; 0.04 x 1 is raised to what the smaller one got.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
