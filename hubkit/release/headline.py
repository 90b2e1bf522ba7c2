"""The result of a release in one sentence, computed from its results.

    students and paired tests of results.json
        -> "Students of compressed traces answer in 22 % of the tokens of raw ones; accuracy −2.3 to +4.0 points,
            and no test tells the two apart. Cut to the same length instead: −83.7 to −68.0 points."

Terminal, report, cards and Space show the same sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hubkit.release.results import peers
from hubkit.traces.variants import VARIANTS, Variant

__all__ = ["headline"]

_LEVEL: Final = 0.05
"""Significance level: two accuracies differ if Holm's corrected p is below it."""


def headline(
    rows: Sequence[Mapping[str, Any]],
    tests: Sequence[Mapping[str, Any]],
    levels: Sequence[Mapping[str, Any]] = (),
) -> str:
    """One sentence per compressor, and one per two levels of mixtures; "" for a release that has neither a compressed
    student beside a raw one nor a mixture.

    `rows` and `levels` are those of `student_rows` and `obedience`, `tests` those of `paired_tests` and `seed_tests`;
    the latter count where students have several seeds. A pair is two students that differ in the variant alone;
    differences are points of accuracy against the raw one.
    """
    raw = {peers(row): row for row in rows if row["variant"] == "raw"}
    told = {(peers(test), test["a"], test["b"]): test["p_holm"] < _LEVEL for test in tests}
    pairs: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for row in rows:
        if row["kind"] and row["variant"] != "raw" and peers(row) in raw:
            pairs.setdefault(row["variant"], []).append((raw[peers(row)], row))
    short = [name for name, found in pairs.items() if VARIANTS[found[0][1]["kind"]].compressed]
    sentences = []
    for name in short:
        shares = [
            b["mean_output_tokens"] / a["mean_output_tokens"]
            for a, b in pairs[name]
            if a["mean_output_tokens"]
        ]
        who = "compressed traces" if len(short) == 1 else f"{name} traces"
        tested = dict.fromkeys(
            next(
                ((key, "raw", name) for key in (_all_seeds(b), peers(b)) if (key, "raw", name) in told), None
            )
            for _, b in pairs[name]
        )
        known = [told[pair] for pair in tested if pair]
        sentence = f"Students of {who} answer in {_range(shares)} % of the tokens of raw ones"
        sentence += f"; accuracy {_points(pairs[name])}"
        if known:
            sentence += f", {_told(known)}"
        sentences.append(sentence)
        controls = {
            kind: found
            for kind, row in VARIANTS.items()
            for other, found in pairs.items()
            if row.matched and other == Variant(kind, pairs[name][0][1]["compressor"] or "").name
        }
        if [*controls] == ["truncated"]:
            sentences.append(f"Cut to the same length instead: {_points(controls['truncated'])}")
        elif controls:
            found = ", ".join(f"{kind} {_points(pair)}" for kind, pair in controls.items())
            sentences.append(f"At the same length by other means: {found}")
    asked: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for level in levels:
        asked.setdefault((level["variant"], level["short"], level["long"]), []).append(level)
    for (name, short_, long), found_ in asked.items():
        who = "One student" if len({variant for variant, _, _ in asked}) == 1 else f"One student ({name})"
        told_apart = [level["p_holm"] < _LEVEL for level in found_]
        sentences.append(
            f"{who} asked for {short_} effort answers in {_range([v['length'] or 0 for v in found_])} % "
            f"of the tokens it takes at {long}, shorter on {_range([v['shorter'] for v in found_])} % of the "
            f"problems; accuracy {_range([v['difference'] for v in found_], 1, signed=True)} points, "
            f"{_told(told_apart)}"
        )
    return " ".join(f"{sentence}." for sentence in sentences)


def _all_seeds(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return peers({**row, "seed": None})


def _told(known: Sequence[bool]) -> str:
    if not any(known):
        return (
            "and no test tells the two apart" if len(known) > 1 else "and the test does not tell them apart"
        )
    return f"and no difference told apart in {known.count(False)} of {len(known)} pairs"


def _points(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    return f"{_range([b['accuracy'] - a['accuracy'] for a, b in pairs], 1, signed=True)} points"


def _range(values: Sequence[float], digits: int = 0, signed: bool = False) -> str:
    """Shares as percents, [0.22, 0.25] -> "22 to 25"; one number where both ends read the same."""
    ends = [f"{100 * value:{'+' if signed else ''}.{digits}f}" for value in (min(values), max(values))]
    ends = [end.replace("-", "−") for end in ends]
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)
