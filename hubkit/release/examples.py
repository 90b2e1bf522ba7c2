"""Example traces for report and cards, which show how differently traces were compressed, with removed text marked.

the rows of all variants -> [{"what": "most shortened", "problem": "47 + 38 = ?", "traces": [
    {"variant": "raw", "tokens": 212, "parts": [("dropped", "I add the tens:", 0), …], …}, …]}, …]
"""

from __future__ import annotations

from typing import Any, Final

from hubkit.records import read_rows, read_table
from hubkit.release.align import marked
from hubkit.release.results import Facts
from hubkit.traces.variants import Variant

__all__ = ["examples"]

_LONGEST: Final = 6_000
"""Characters of a trace that the report shows."""
_AT: Final = {"most shortened": 0.02, "in the middle": 0.5, "least shortened": 0.98}
"""Title of an example, and its quantile of `ratio`."""


def examples(facts: Facts, teacher: str = "") -> list[dict[str, Any]]:
    """Returns traces of a teacher (default: the first) that every variant has, in all of them; [] without any."""
    teacher = teacher or next(iter(facts.teachers()), "")
    variants = facts.variants(teacher) if teacher else {}
    short = [variant for variant in variants if variant.row.compressed]
    paths = {variant: facts.folders[step] / variant.row.file for variant, step in variants.items()}
    keys = {variant: _keys(path) for variant, path in paths.items()}
    shared = set.intersection(*(set(found) for found in keys.values())) if keys else set()
    if not shared:
        return []
    ratios = keys[short[0] if short else next(iter(keys))]
    order = sorted(shared, key=lambda key: (ratios[key], key))
    chosen = {order[round(at * (len(order) - 1))]: what for what, at in _AT.items()}
    rows: dict[tuple[str, int], dict[Variant, dict[str, Any]]] = {key: {} for key in chosen}
    for variant, path in paths.items():
        left = set(chosen)
        for row in read_rows(path, batch=64):
            if (key := (row["id"], row["sample"])) in left:
                rows[key][variant] = row
                left.discard(key)
            if not left:
                break
    return [_example(what, rows[key], short) for key, what in chosen.items()]


def _keys(path: Any) -> dict[tuple[str, int], float]:
    table = read_table(path, ["id", "sample", "ratio"]).to_pydict()
    return dict(zip(zip(table["id"], table["sample"], strict=True), table["ratio"], strict=True))


def _example(what: str, rows: dict[Variant, dict[str, Any]], short: list[Variant]) -> dict[str, Any]:
    raw = rows[Variant("raw")]
    against = rows[short[0]] if short else raw
    traces = []
    for variant, row in rows.items():
        removed, added = marked(
            raw["reasoning"][:_LONGEST], (against if row is raw else row)["reasoning"][:_LONGEST]
        )
        traces.append(
            {
                "variant": variant.name,
                "kind": variant.kind,
                "tokens": row["reasoning_tokens"],
                "text": row["reasoning"],
                "ratio": row["ratio"],
                "parts": removed if row is raw else added,
                "longer": len(row["reasoning"]) > _LONGEST,
                "solution": row["solution"][:_LONGEST],
                "correct": row["correct"],
            }
        )
    about = {name: raw[name] for name in ("id", "sample", "problem", "answer")}
    return {"what": what, **about, "traces": traces}
