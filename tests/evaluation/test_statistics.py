"""Statistics against published values, and against the definitions they come from."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from hubkit.evaluation.statistics import holm, mcnemar, wilson


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
def test_mcnemar_is_the_binomial_test_on_discordant_pairs(first: int, second: int) -> None:
    pairs = [(True, False)] * first + [(False, True)] * second + [(True, True)] * 7 + [(False, False)] * 3
    random.Random(0).shuffle(pairs)
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(a, b) == pytest.approx(expected)
    assert mcnemar(a, b) == mcnemar(b, a)


def test_mcnemar_refuses_unpaired_answers() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        mcnemar([True], [True, False])


def test_holm_as_computed_by_hand() -> None:
    # 0.005 x 4, 0.01 x 3, 0.03 x 2; 0.04 x 1 is raised to what the smaller one got.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
