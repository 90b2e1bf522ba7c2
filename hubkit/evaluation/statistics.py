"""Statistical uncertainty: intervals for accuracies, paired tests between students."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "effective",
    "holm",
    "majority_right",
    "paired_interval",
    "right_counts",
    "sign_flip",
    "summary",
    "wilson",
]

Z95 = 1.959963984540054
"""97.5 % quantile of the normal distribution: 95 % two-sided."""


def wilson(correct: float, n: float) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion (Wilson, JASA 1927), inside 0 to 1 also at 0 or n correct.

    With several answers per problem, n is `effective(…)`, and `correct` the same share of it.

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


def sign_flip(differences: Sequence[int]) -> float:
    """Returns the two-sided exact p-value of Fisher's randomisation test (The Design of Experiments, 1935): if there
    is no difference, the sign of each problem's difference is random.

    `differences`: of right answers, problem by problem. Of -1, 0 and 1 this is McNemar's exact test.
    """
    sizes = [abs(difference) for difference in differences if difference]
    if max(sizes, default=1) == 1:
        # A coin toss for each: the binomial's tail, in logarithms, since 2 ** n leaves the floats at n = 1024.
        n, fewer = len(sizes), min(differences.count(1), differences.count(-1))
        tail = math.fsum(
            math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + n * math.log(0.5))
            for k in range(fewer + 1)
        )
        return min(1.0, 2 * tail)
    # chances[i]: of the sum i - reach, in steps of all problems so far.
    chances = np.ones(1)
    for size in sizes:
        next_ = np.zeros(len(chances) + 2 * size)
        next_[: len(chances)] += chances / 2
        next_[2 * size :] += chances / 2
        chances = next_
    reach, observed = sum(sizes), abs(sum(differences))
    sums = np.abs(np.arange(-reach, reach + 1))
    return min(1.0, float(chances[sums >= observed].sum()))


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of differences per problem, each from -1 to 1.

    Bonett and Price (JEBS 2012) for -1, 0 and 1; they add one problem on either side, which keeps the interval valid
    for small counts, also for means of several answers. Raises ValueError for an empty list or a value beyond 1.
    """
    if not differences or max(map(abs, differences)) > 1:
        raise ValueError("no differences of shares")
    n = len(differences) + 2
    mean = math.fsum(differences) / n
    square = (math.fsum(d * d for d in differences) + 2) / n
    half = Z95 * math.sqrt((square - mean**2) / n)
    return max(-1.0, mean - half), min(1.0, mean + half)


def holm(values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for multiple testing, in the order given (Holm, Scand. J. Statist. 1979)."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted = [0.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = highest
    return adjusted


def right_counts(samples: Iterable[Mapping[str, Any]]) -> tuple[dict[str, int], int]:
    """Returns the right answers to each problem, in the order of the rows, and the number of answers per problem.

    Raises ValueError if problems have different numbers of answers.
    """
    right: dict[str, int] = {}
    asked: dict[str, int] = {}
    for sample in samples:
        id_ = sample["id"]
        right[id_] = right.get(id_, 0) + bool(sample["correct"])
        asked[id_] = asked.get(id_, 0) + 1
    if len(set(asked.values())) > 1:
        raise ValueError("problems have different numbers of answers")
    return right, next(iter(asked.values()), 0)


def effective(shares: Sequence[float], answers: float = math.inf) -> float:
    """Returns the effective number of independent answers, for the accuracy's interval.

    Answers to one problem are correlated, so they count for less (Kish, Survey Sampling, 1965: the design effect).
    `shares`: of right answers, per problem. The result is between the number of problems and that of all answers.
    """
    n = len(shares)
    if answers == 1 or n < 2:
        return float(n)
    mean = math.fsum(shares) / n
    variance = math.fsum((share - mean) ** 2 for share in shares) / (n - 1)
    if variance == 0:
        # All shares are equal: the correlation of answers to one problem is unknown.
        return float(n)
    return min(n * answers, max(float(n), mean * (1 - mean) / (variance / n)))


def summary(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns counts, accuracy with its interval, and tokens of one evaluation, from rows of EVALUATION_SCHEMA.

    `n` counts problems. With several answers to each (SAMPLED_SCHEMA), accuracy is the mean over all, and there are
    `samples`, `pass_at_k` (any is right) and, if answers could be read, `maj_at_k` (the most frequent one is right).
    """
    right, answers = right_counts(samples)
    n, total, correct = len(right), len(samples), sum(right.values())
    tokens = sum(sample["output_tokens"] for sample in samples)
    independent = effective([count / answers for count in right.values()], answers)
    low, high = wilson(correct, n) if answers == 1 else wilson(correct / total * independent, independent)
    found = {
        "n": n,
        "correct": correct,
        "accuracy": correct / total,
        "ci_low": low,
        "ci_high": high,
        "output_tokens": tokens,
        "mean_output_tokens": tokens / total,
        "cut_share": sum(sample["finish_reason"] == "length" for sample in samples) / total,
        "accuracy_per_1000_tokens": correct / max(1, tokens) * 1000,
    }
    if answers > 1:
        found |= {"samples": answers, "pass_at_k": sum(map(bool, right.values())) / n}
        if any(sample["extracted"] is not None for sample in samples):
            given: dict[str, list[tuple[str | None, bool]]] = {id_: [] for id_ in right}
            for sample in samples:
                given[sample["id"]].append((sample["extracted"], bool(sample["correct"])))
            found["maj_at_k"] = sum(map(majority_right, given.values())) / n
    return found


def majority_right(answers: Iterable[tuple[str | None, bool]]) -> bool:
    """Returns whether the most frequent answer is right (Wang et al., 2022: self-consistency).

    `answers`: (answer, whether right). Outputs without an answer (None) do not vote; of equally frequent answers the
    first one given wins.
    """
    votes: dict[str, list[bool]] = {}
    for answer, right in answers:
        if answer is not None:
            votes.setdefault(answer, []).append(right)
    return bool(votes) and max(votes.values(), key=len)[0]
