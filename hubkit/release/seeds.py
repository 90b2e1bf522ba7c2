"""Combines students of several seeds, which differ only by chance.

    rows of s-raw-full, s-raw-full-seed1, s-raw-full-seed2, and their answers
        -> {"base": "s", "variant": "raw", "seeds": 3, "accuracy": 0.81, "accuracy_min": 0.79, "accuracy_max": 0.82,
            "ci_low": 0.77, "ci_high": 0.84, …}

The answers of all seeds to a problem count as several answers to it, because three students that are right on the same
problem are not three independent problems. So intervals and tests are over problems, for students of these seeds.
"""

from __future__ import annotations

from itertools import combinations
from statistics import fmean
from typing import Any, Final

from hubkit.errors import InputError
from hubkit.release.results import Facts, Row, answers_of, compare, without_level_of
from hubkit.traces.variants import sort_key

__all__ = ["over_seeds", "seed_tests"]

_SAME_STUDENT: Final = (
    *("benchmark", "teacher", "base", "variant", "kind", "compressor", "level", "method", "adapter"),
)
"""All but the seed."""
_MEANS: Final = (
    *("accuracy", "mean_output_tokens", "train_tokens", "train_seconds"),
    *("pass_at_k", "maj_at_k"),
)


def over_seeds(facts: Facts, rows: list[Row]) -> list[Row]:
    """Mean and range over the seeds of a student, and the 95 % interval of the mean accuracy; empty when no student has
    several. `rows`: those of `student_rows`.

    The interval is Wilson's, with as many answers as those of all seeds are worth (`statistics.effective`).
    """
    from hubkit.evaluation.statistics import effective, wilson

    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["origin"] == "student":
            groups.setdefault(tuple(row.get(name) for name in _SAME_STUDENT), []).append(row)
    together = {key: right for key, right, _ in _together(facts)}
    result = []
    for key, group in groups.items():
        if len(group) < 2:
            continue
        summary: Row = dict(zip(_SAME_STUDENT, key, strict=True)) | {"seeds": len(group)}
        for name in _MEANS:
            values = [row[name] for row in group if row[name] is not None]
            if values:
                summary |= {name: fmean(values), f"{name}_min": min(values), f"{name}_max": max(values)}
        right, answers = together[tuple(summary[name] for name in _ASKED)]
        shares = [count / answers for count in right.values()]
        independent = effective(shares, answers)
        low, high = wilson(min(fmean(shares) * independent, independent), independent)
        summary |= {"ci_low": low, "ci_high": high}
        result.append(summary if "level" in group[0] else without_level_of(summary))
    return result


def seed_tests(facts: Facts) -> list[Row]:
    """The tests of `paired_tests` over all seeds at once, corrected among themselves; empty for one seed.

    Fisher's randomisation test of the right answers that the students of all seeds gave to a problem. `seed` is null,
    `seeds` their number. Variants that were not trained with the same seeds are not compared.
    """
    from hubkit.evaluation.statistics import holm

    groups: dict[tuple[Any, ...], list[tuple[tuple[Any, ...], tuple[dict[str, int], int], list[int]]]] = {}
    for key, right, seeds in _together(facts):
        same = dict(zip(_ASKED, key, strict=True))
        peers = tuple(same[name] for name in ("benchmark", "teacher", "base", "method"))
        groups.setdefault(peers, []).append((key, right, seeds))
    tests: list[Row] = []
    for (benchmark, teacher, base, method), group in groups.items():
        for (key_a, a, seeds_a), (key_b, b, seeds_b) in combinations(group, 2):
            if seeds_a != seeds_b or len(seeds_a) < 2:
                continue
            ends = [dict(zip(_ASKED, key, strict=True)) for key in (key_a, key_b)]
            about = {"benchmark": benchmark, "teacher": teacher, "base": base, "method": method}
            row: Row = about | {"seed": None, "seeds": len(seeds_a)}
            row |= {name: end["variant"] for name, end in zip("ab", ends, strict=True)}
            tests.append(row | compare(a, b, f"students of {row['a']} and {row['b']} traces"))
            if facts.has_levels:
                tests[-1] |= {f"{name}_level": end["level"] for name, end in zip("ab", ends, strict=True)}
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p
    return tests


_ASKED: Final = ("benchmark", "teacher", "base", "variant", "level", "method")


def _together(facts: Facts) -> list[tuple[tuple[Any, ...], tuple[dict[str, int], int], list[int]]]:
    """(values of _ASKED, (problem -> right answers of all seeds, answers of all seeds to each), the seeds), in the
    order of the variants."""
    found: dict[tuple[Any, ...], dict[int, tuple[dict[str, int], int]]] = {}
    steps = [item for item in facts.kind("evaluation").items() if "student" in item[1].inputs]
    steps.sort(key=lambda item: sort_key(facts.variant(item[1].config["variant"])))
    for step, record in steps:
        config = record.config
        about = {**config, "benchmark": config["benchmark"]["name"]}
        about["level"] = config.get("level", {}).get("value")
        key = tuple(about[name] for name in _ASKED)
        found.setdefault(key, {})[config["seed"]] = answers_of(facts.folders[step])
    result = []
    for key, by_seed in found.items():
        first, _ = next(iter(by_seed.values()))
        if any(list(right) != list(first) for right, _ in by_seed.values()):
            raise InputError(
                f"students of {key[3]} traces of different seeds answered different problems",
                "evaluate them again",
            )
        total = {id_: sum(right[id_] for right, _ in by_seed.values()) for id_ in first}
        result.append((key, (total, sum(answers for _, answers in by_seed.values())), sorted(by_seed)))
    return result
