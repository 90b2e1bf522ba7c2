"""Uncertainty of what is measured: intervals for accuracies, paired tests between students."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["holm", "mcnemar", "paired_interval", "summary", "wilson"]

Z95 = 1.959963984540054
"""97.5 % quantile of the normal distribution: 95 % two-sided."""


def wilson(correct: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, JASA 1927): inside 0 to 1 also at 0 or n correct.

    Raises ValueError unless 0 <= correct <= n and n > 0.
    """
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} correct of {n}")
    share = correct / n
    denominator = 1 + Z95**2 / n
    centre = (share + Z95**2 / (2 * n)) / denominator
    half = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2)) / denominator
    # At the ends the interval meets 0 and 1 exactly; rounding must not move it past them.
    return (
        0.0 if correct == 0 else max(0.0, centre - half),
        1.0 if correct == n else min(1.0, centre + half),
    )


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Two-sided exact p-value of a difference on the same problems (McNemar, Psychometrika 1947).

    Only problems that one of the two got right count; under no difference each is a coin toss.
    Raises ValueError for sequences of different lengths.
    """
    first = sum(x and not y for x, y in zip(a, b, strict=True))
    second = sum(y and not x for x, y in zip(a, b, strict=True))
    n = first + second
    # In logarithms: 2 ** n leaves the floats at n = 1024.
    log_half = n * math.log(0.5)
    tail = math.fsum(
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + log_half)
        for k in range(min(first, second) + 1)
    )
    return min(1.0, 2 * tail)


def paired_interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """95 % interval of accuracy a - accuracy b on the same n problems (Bonett and Price, JEBS 2012).

    `only_a`, `only_b`: problems that only one of the two got right. Adding one to each keeps the interval honest
    for small counts. Raises ValueError unless both are at least 0 and at most n together.
    """
    if only_a < 0 or only_b < 0 or only_a + only_b > n:
        raise ValueError(f"{only_a} and {only_b} of {n}")
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = Z95 * math.sqrt((a + b - (a - b) ** 2) / (n + 2))
    return max(-1.0, a - b - half), min(1.0, a - b + half)


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in the order given (Holm, Scand. J. Statist. 1979)."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted = [0.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = highest
    return adjusted


def summary(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts, accuracy with its interval, and tokens of one evaluation: one or more rows of EVALUATION_SCHEMA."""
    n, correct = len(samples), sum(sample["correct"] for sample in samples)
    tokens = sum(sample["output_tokens"] for sample in samples)
    low, high = wilson(correct, n)
    return {
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "ci_low": low,
        "ci_high": high,
        "output_tokens": tokens,
        "mean_output_tokens": tokens / n,
        "cut_share": sum(sample["finish_reason"] == "length" for sample in samples) / n,
        "accuracy_per_1000_tokens": correct / max(1, tokens) * 1000,
    }
