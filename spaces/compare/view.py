"""What a visitor looks at, and which problems, students and traces fit it.

View(p="test/p7", show="raw", variant=["raw", "compressed-x"])  <->  ?p=test/p7&show=raw&variant=raw~compressed-x
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow.compute as pc
from data import Evaluations, Traces

PER_PAGE = 25
"""Problems, or traces, of one page of a list."""
TOGETHER = 6
"""Students that are shown together, unless more differ in the variant alone."""

SHOW = {
    "all": "All problems",
    "disagree": "Students shown disagree",
    "raw": "Raw right, compressed wrong",
    "compressed": "Compressed right, raw wrong",
    "wrong": "All wrong",
    "right": "All right",
    "saving": "Largest saving, both right",
}
SORT = {
    "order": "As in the benchmark",
    "fewest": "Fewest right first",
    "most": "Most right first",
    "long": "Longest outputs first",
    "short": "Shortest outputs first",
    "saving": "Most tokens saved first",
}


@dataclass
class View:
    """What a visitor looks at in the first tab. Its fields are the address's names."""

    p: str = ""
    set: int = 0
    """Of students: there may be too many to show together. (`page` in an address is gradio's own.)"""
    answer: int = 0
    """Of several to a problem."""
    q: str = ""
    show: str = "all"
    sort: str = "order"
    benchmark: list[str] = field(default_factory=list)
    base: list[str] = field(default_factory=list)
    variant: list[str] = field(default_factory=list)
    level: list[str] = field(default_factory=list)
    method: list[str] = field(default_factory=list)
    seed: list[str] = field(default_factory=list)
    teacher: list[str] = field(default_factory=list)
    students: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    least: float | None = None
    most: float | None = None

    @classmethod
    def of(cls, given: tuple[Any, ...]) -> View:
        """From the values of the page's components, in the order of the fields."""
        view = cls(*given)
        view.q = (view.q or "").strip()[:200]
        # An empty number box says 0 once it is on the page.
        view.least, view.most = view.least or None, view.most or None
        return view

    def values(self) -> list[Any]:
        return [getattr(self, part.name) for part in fields(self)]

    @classmethod
    def read(cls, query: dict[str, str], allowed: dict[str, list[str]]) -> View:
        """From an address; what the release does not have is left out."""
        view = cls(p=query.get("p", ""), q=query.get("q", "")[:200])
        view.show = query["show"] if query.get("show") in SHOW else "all"
        view.sort = query["sort"] if query.get("sort") in SORT else "order"
        for name in ("set", "answer"):
            if re.fullmatch(r"[0-9]{1,4}", query.get(name, "")):
                setattr(view, name, int(query[name]))
        for name, values in allowed.items():
            setattr(view, name, [v for v in query.get(name, "").split("~") if v in values])
        for name in ("least", "most"):
            try:
                value = float(query.get(name, ""))
                setattr(view, name, value if value and math.isfinite(value) else None)
            except ValueError:
                pass
        return view

    def address(self) -> dict[str, str]:
        """Name -> text, empty for what is as at the start."""
        start = View()
        texts = {}
        for part in fields(self):
            value = getattr(self, part.name)
            plain = "~".join(value) if isinstance(value, list) else "" if value is None else f"{value}"
            texts[part.name] = "" if value == getattr(start, part.name) else plain
        return texts


def chosen_students(data: Evaluations, view: View) -> list[int]:
    """The students that the filters leave; untrained bases only where asked for."""
    found = []
    for number, name in enumerate(data.names):
        row = data.students[name]
        variant = row["variant"] or "untrained"
        if view.students:
            if name in view.students:
                found.append(number)
            continue
        if not view.variant and row["variant"] is None and len(data.names) > 1:
            continue
        wanted = (
            (view.base, row["base"]),
            (view.variant, variant),
            (view.level, row.get("level")),
            (view.method, row["method"]),
            (view.seed, None if row["seed"] is None else str(row["seed"])),
            (view.teacher, row["teacher"]),
        )
        if all(not allowed or value in allowed or value is None for allowed, value in wanted):
            found.append(number)
    return found


def student_sets(data: Evaluations, view: View) -> list[list[int]]:
    """The chosen students, some at a time; those that differ in the variant alone stay together."""
    sets: list[list[int]] = []
    for group in data.groups(chosen_students(data, view)):
        if sets and len(sets[-1]) + len(group) <= TOGETHER:
            sets[-1] += group
        else:
            sets.append(group)
    return sets


def shown_students(data: Evaluations, view: View) -> list[int]:
    """Those of the view's set, or of the last where there are fewer."""
    sets = student_sets(data, view)
    return sorted(sets[min(max(view.set, 0), len(sets) - 1)]) if sets else []


def most_answers(data: Evaluations, view: View) -> int:
    """To one problem, of the students shown."""
    return int(data.many[:, shown_students(data, view)].max(initial=0))


def settle(data: Evaluations, view: View) -> None:
    """A set of students or an answer that is not there becomes the last."""
    view.set = min(view.set, max(len(student_sets(data, view)) - 1, 0))
    view.answer = min(view.answer, max(most_answers(data, view) - 1, 0))


def find(data: Evaluations, view: View) -> tuple[list[int], list[int]]:
    """(problems in order, students): what the list shows. Only students that are shown count."""
    students = shown_students(data, view)
    if not students:
        return [], []
    every = data.answers(view.answer)
    there, correct, tokens = (m[:, students] for m in (every.there, every.correct, every.tokens))
    answered = there.sum(1)
    right = (correct & there).sum(1)
    mean = tokens.sum(1) / np.maximum(answered, 1)
    keep = answered > 0
    if view.benchmark:
        keep &= np.isin(np.array(data.benchmark), view.benchmark)
    if view.q:
        keep &= pc.match_substring(data.texts, view.q, ignore_case=True).to_numpy(zero_copy_only=False)
    for names, value in ((view.right, True), (view.wrong, False)):
        for name in names:
            number = data.names.index(name)
            keep &= every.there[:, number] & (every.correct[:, number] == value)
    if view.least is not None:
        keep &= mean >= view.least
    if view.most is not None:
        keep &= mean <= view.most
    saved = np.zeros(len(data.keys))
    either = np.zeros((3, len(data.keys)), bool)
    for raw, short in data.pairs(students):
        both = every.there[:, raw] & every.there[:, short]
        a, b = every.correct[:, raw], every.correct[:, short]
        either |= np.stack([both & a & ~b, both & b & ~a, both & a & b])
        saved += np.where(both & a & b, every.tokens[:, raw].astype(float) - every.tokens[:, short], 0)
    masks = {
        "disagree": (right > 0) & (right < answered),
        "raw": either[0],
        "compressed": either[1],
        "saving": either[2],
        "wrong": right == 0,
        "right": right == answered,
    }
    if view.show in masks:
        keep &= masks[view.show]
    by = "saving" if view.show == "saving" and view.sort == "order" else view.sort
    order = {"fewest": right, "most": -right, "long": -mean, "short": mean, "saving": -saved}.get(by)
    found = np.flatnonzero(keep)
    if order is not None:
        found = found[np.argsort(order[found], kind="stable")]
    return [int(number) for number in found], students


def find_traces(traces: Traces, config: str, text: str, sort: str) -> list[int]:
    """Traces that `config` has too, in the raw config's order, or by what `config` saved of them."""
    raw = traces.tokens["raw"]
    keep = np.ones(len(traces.keys), bool)
    if text.strip():
        found = pc.match_substring(traces.texts, text.strip(), ignore_case=True)
        keep &= found.to_numpy(zero_copy_only=False)
    if config in traces.configs and config != "raw":
        at = np.array([traces.at[config].get(key, -1) for key in traces.keys])
        keep &= at >= 0
        tokens = np.where(at >= 0, traces.tokens[config][at], 0)
        share = tokens / np.maximum(raw, 1)
        order = {"saved": tokens - raw, "share": share, "least": -share}.get(sort)
    else:
        order = -raw if sort != "order" else None
    found = np.flatnonzero(keep)
    return [int(n) for n in (found if order is None else found[np.argsort(order[found], kind="stable")])]
