"""HTML of the results: the figure, a table that sorts, means over seeds, paired tests."""

from __future__ import annotations

import base64
from typing import Any

from cards import label, mark
from data import Evaluations, Row, called
from text import esc, note, percent

Cell = tuple[str, Any]
"""HTML, and what a column sorts by."""


def figure(data: Evaluations, headline: str) -> str:
    """The published figure, drawn for light and dark, wide and narrow; as images, so nothing in it can run."""

    def source(name: str) -> str:
        return "data:image/svg+xml;base64," + base64.b64encode(data.figures[name]).decode()

    if len(data.figures) < 4:
        return ""
    pictures = "".join(
        f'<picture class="on-{theme}"><source media="(max-width: 640px)" srcset="{source(f"{theme}-narrow")}">'
        f'<img alt="Accuracy against mean output tokens. {esc(headline)}" src="{source(theme)}"></picture>'
        for theme in ("light", "dark")
    )
    return f'<div class="figure">{pictures}</div>'


def grid(heads: list[str], rows: list[list[Cell]]) -> str:
    """A table that sorts by its heads."""
    words = [any(isinstance(row[n][1], str) for row in rows) for n in range(len(heads))]
    left = [' class="words"' if is_text else "" for is_text in words]
    top = "".join(
        f'<th scope="col"{style}><button data-sort>{esc(name)}</button></th>'
        for name, style in zip(heads, left, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td{style} data-v="{esc("" if v is None else v)}">{cell}</td>'
            for (cell, v), style in zip(row, left, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    table = f'<table class="grid"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(heads[0])}">{table}</div>'


def results_page(data: Evaluations) -> str:
    several = len({r["benchmark"] for r in data.results}) > 1
    parts = [figure(data, data.report.get("headline", "")), _students(data, several)]
    if data.report.get("over_seeds"):
        parts += ["<h2>Over seeds</h2>", _over_seeds(data, several)]
    if data.report.get("tests"):
        parts += [
            "<h2>Can they be told apart?</h2>",
            *_of_seeds(data, several),
            _tests(data, data.report["tests"], several),
            note(
                "McNemar’s exact test on the same problems, corrected for the number of tests; intervals for paired "
                "proportions. A large p says that these problems do not tell the two apart, not that they are equal."
            ),
        ]
    if data.report.get("levels"):
        parts += [
            "<h2>Does it do as it is asked?</h2>",
            _levels(data, several),
            note(
                "One student that learned several forms of the traces, each under a level of effort, asked at two of "
                "them. Shorter on: the share of problems whose answer has fewer tokens at the short level, with "
                "Wilson’s interval."
            ),
        ]
    return "".join(parts)


def _at(name: str, level: str | None) -> str:
    return called({"student": name, "level": level})


def _levels(data: Evaluations, several: bool) -> str:
    """How mixtures answer at two of their levels of effort."""
    rows: list[list[Cell]] = [
        [
            _text(v["student"]),
            *([_text(v["benchmark"])] if several else []),
            _text(f"{v['short']} for {v['long']}"),
            (f"{v['mean_output_tokens_short']:,.1f} for {v['mean_output_tokens_long']:,.1f}", v["length"]),
            (percent(v["shorter"]), v["shorter"]),
            (f"{percent(v['shorter_low'])} to {percent(v['shorter_high'])}", v["shorter_low"]),
            (f"{percent(v['accuracy_short'])} for {percent(v['accuracy_long'])}", v["accuracy_short"]),
            (f"{100 * v['difference']:+.1f} points", v["difference"]),
            (f"{100 * v['ci_low']:+.1f} to {100 * v['ci_high']:+.1f}", v["ci_low"]),
            (f"{v['p_holm']:.3g}", v["p_holm"]),
        ]
        for v in data.report["levels"]
    ]
    heads = [
        "student",
        *(["benchmark"] if several else []),
        "level",
        "output tokens",
        "shorter on",
        "95 % CI",
    ]
    return grid([*heads, "accuracy", "difference", "95 % CI", "p, Holm"], rows)


def _text(value: Any) -> Cell:
    return esc(value), value


def _teacher(data: Evaluations, row: Row) -> str:
    """Whose traces a row's students learned from, where there are several teachers."""
    several = len({r["teacher"] for r in data.results} - {None}) > 1
    return f"of {row['teacher']}" if several and row.get("teacher") else ""


def _students(data: Evaluations, several: bool) -> str:
    seeds = len({r["seed"] for r in data.results} - {None}) > 1
    sampled = any(r.get("samples") for r in data.results)  # several answers to each problem
    rows: list[list[Cell]] = []
    for r in data.results:
        seed = f"seed {r['seed']}" if seeds and r["seed"] is not None else ""
        what = _at(label(data, r["variant"]), r.get("level"))
        name = " ".join(p for p in (r["base"], what, r["method"], _teacher(data, r), seed) if p)
        trained = "–" if r["train_tokens"] is None else f"{r['train_tokens']:,}"
        rows.append(
            [
                (f'<span title="{esc(r["student"])}">{mark(data, r)}{esc(name)}</span>', name),
                *([_text(r["benchmark"])] if several else []),
                (percent(r["accuracy"]), r["accuracy"]),
                (f"{100 * r['ci_low']:.1f} to {percent(r['ci_high'])}", r["ci_low"]),
                *([(percent(r[name]), r[name]) for name in ("pass_at_k", "maj_at_k")] if sampled else []),
                (f"{r['mean_output_tokens']:,.1f}", r["mean_output_tokens"]),
                (percent(r["output_tokens_of_raw"], 0), r["output_tokens_of_raw"]),
                (percent(r["cut_share"]), r["cut_share"]),
                (f"{r['accuracy_per_1000_tokens']:.3f}", r["accuracy_per_1000_tokens"]),
                (trained, r["train_tokens"]),
                (percent(r["train_tokens_of_raw"], 0), r["train_tokens_of_raw"]),
            ]
        )
    heads = ["student", *(["benchmark"] if several else []), "accuracy", "95 % CI"]
    heads += ["pass@k", "maj@k"] if sampled else []
    heads += [
        "output tokens",
        "of raw",
        "cut off",
        "accuracy per 1,000 tokens",
        "training tokens",
        "of raw's",
    ]
    return grid(heads, rows)


def _over_seeds(data: Evaluations, several: bool) -> str:
    rows: list[list[Cell]] = [
        [
            _text(
                f"{g['base']} {_at(label(data, g['variant']), g.get('level'))} {g['method']} "
                f"{_teacher(data, g)}".strip()
            ),
            *([_text(g["benchmark"])] if several else []),
            _text(g["seeds"]),
            (percent(g["accuracy"]), g["accuracy"]),
            (f"{100 * g['ci_low']:.1f} to {percent(g['ci_high'])}", g["ci_low"])
            if "ci_low" in g
            else _text("–"),
            (f"{100 * g['accuracy_min']:.1f} to {percent(g['accuracy_max'])}", g["accuracy_min"]),
            (f"{g['mean_output_tokens']:,.1f}", g["mean_output_tokens"]),
        ]
        for g in data.report["over_seeds"]
    ]
    heads = [
        "mean over seeds",
        *(["benchmark"] if several else []),
        "seeds",
        "accuracy",
        "95 % CI",
        "range",
        "output tokens",
    ]
    return grid(heads, rows)


def _of_seeds(data: Evaluations, several: bool) -> list[str]:
    """Nothing for one seed, or an older release."""
    tests = data.report.get("seed_tests")
    if not tests:
        return []
    return [
        _tests(data, tests, several),
        note(
            "Fisher’s randomisation test of the right answers that the students of all seeds gave to each problem, "
            "corrected for the number of tests in this table. Seed by seed:"
        ),
    ]


def _tests(data: Evaluations, tests: list[dict[str, Any]], several: bool) -> str:
    rows: list[list[Cell]] = []
    for t in tests:
        low, high = t.get("ci_low"), t.get("ci_high")  # an older release has none
        between = "–" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"
        rows.append(
            [
                _text(
                    f"{_at(label(data, t['a']), t.get('a_level'))} – {_at(label(data, t['b']), t.get('b_level'))}"
                ),
                _text(
                    f"{t['base']} {t['method']} {_teacher(data, t)}".strip()
                    + ", "
                    + (f"{t['seeds']} seeds" if t["seed"] is None else f"seed {t['seed']}")
                ),
                *([_text(t["benchmark"])] if several else []),
                (f"{100 * t['difference']:+.1f} points", t["difference"]),
                (between, low),
                _text(t["only_a"]),
                _text(t["only_b"]),
                (f"{t['p_holm']:.3g}", t["p_holm"]),
            ]
        )
    heads = ["compared", "students", *(["benchmark"] if several else []), "difference", "95 % CI"]
    return grid([*heads, "only first right", "only second right", "p, Holm"], rows)
