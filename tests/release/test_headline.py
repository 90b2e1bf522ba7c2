"""The sentence that stands on top, from rows as results.json has them."""

from __future__ import annotations

from typing import Any

import pytest

from hubkit.evaluation.statistics import paired_interval, sign_flip
from hubkit.release.headline import headline


def row(variant: str | None, accuracy: float, tokens: float, **more: Any) -> dict[str, Any]:
    kind, _, compressor = (variant or "").partition("-")
    same = {"benchmark": "sums", "teacher": "sage", "base": "s", "method": "full", "seed": 0}
    values = {"variant": variant, "kind": kind or None, "compressor": compressor or None}
    return same | values | {"accuracy": accuracy, "mean_output_tokens": tokens} | more


def paired(a: str, b: str, p: float, **more: Any) -> dict[str, Any]:
    same = {"benchmark": "sums", "teacher": "sage", "base": "s", "method": "full", "seed": 0}
    return same | {"a": a, "b": b, "p_holm": p} | more


def test_ranges_over_pairs_and_the_control() -> None:
    rows = [row("raw", 0.8, 200), row("compressed-x", 0.777, 44), row("truncated-x", 0.1, 44)]
    rows += [row("raw", 0.5, 100, base="m"), row("compressed-x", 0.54, 25, base="m")]
    tests = [paired("raw", "compressed-x", 0.3), paired("raw", "compressed-x", 0.01, base="m")]
    assert headline(rows, tests) == (
        "Students of compressed traces answer in 22 to 25 % of the tokens of raw ones; accuracy −2.3 to +4.0 points, "
        "and no difference told apart in 1 of 2 pairs. Cut to the same length instead: −70.0 points."
    )


def test_one_sentence_per_compressor_and_none_without_a_pair() -> None:
    rows = [row("raw", 0.8, 200), row("compressed-x", 0.8, 50), row("compressed-y", 0.7, 100)]
    text = headline(rows, [paired("raw", "compressed-x", 1.0), paired("raw", "compressed-y", 0.001)])
    assert "compressed-x traces answer in 25 %" in text and "compressed-y traces answer in 50 %" in text
    assert "accuracy +0.0 points, and the test does not tell them apart" in text
    assert headline([row(None, 0.1, 9), row("compressed-x", 0.8, 50)], []) == ""
    # Another seed's raw student is no pair.
    assert headline([row("raw", 0.8, 200, seed=1), row("compressed-x", 0.8, 50)], []) == ""


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(0, 0, 10), (4, 0, 20), (28, 21, 300), (300, 0, 300)])
def test_the_interval_of_a_difference(only_a: int, only_b: int, n: int) -> None:
    differences = [1] * only_a + [-1] * only_b + [0] * (n - only_a - only_b)
    low, high = paired_interval(differences)
    assert -1 <= low <= (only_a - only_b) / n <= high <= 1
    mirrored = paired_interval([-d for d in differences])
    assert mirrored == (pytest.approx(-high), pytest.approx(-low))
    # Where the exact test tells apart clearly the interval excludes 0, and the other way round.
    p = sign_flip(differences)
    assert (low > 0 or high < 0) or p > 0.02
    assert (low <= 0 <= high) or p < 0.2
