"""HTML of the first two tabs: lists of problems and traces, students' outputs, a trace beside its shorter forms."""

from __future__ import annotations

import json
import math
from functools import lru_cache

from align import Part, marked, words
from data import Evaluations, Row, Traces, called
from text import LONGEST_TEXT, MATHS, ROOM, badge, bar, box, esc, maths, note, shown, split, verdict
from view import PER_PAGE, View, find, find_traces, most_answers, shown_students, student_sets


def mark(data: Evaluations, row: Row) -> str:
    """Colour: variant. Shape: method. Hollow: untrained."""
    methods = list(dict.fromkeys(r["method"] for r in data.students.values() if r["method"]))
    shape = ("", " square", " diamond")[methods.index(row["method"]) % 3] if row["method"] else " hollow"
    colour = accent(data, row["variant"])
    return f'<span class="mark{shape}" style="--accent:{colour}" aria-hidden="true"></span>'


def accent(data: Evaluations, variant: str | None) -> str:
    return str(data.variants.get(variant or "base", {}).get("colour", "#7d8590"))


def label(data: Evaluations, variant: str | None) -> str:
    """A variant's name, as short as this release allows."""
    return str(data.variants.get(variant or "base", {}).get("label", variant))


def state(values: dict[str, str]) -> str:
    """What the page puts into its address."""
    return f"<span hidden data-state='{esc(json.dumps(values))}'></span>"


def problem_list(data: Evaluations, view: View, page: int | None = None) -> str:
    """The table of problems: a dot and the tokens of each student. `page` None: the one with the problem."""
    found, students = find(data, view)
    if not students:
        return state(view.address()) + note("No student fits these filters.")
    pager = pagers(data, view)
    if not found:
        return state(view.address()) + note("No problem fits these filters.") + pager
    current = data.at.get(view.p, -1)
    if page is None:
        page = found.index(current) // PER_PAGE if current in found else 0
    rows = [data.students[data.names[number]] for number in students]
    parts = ["base", "variant", "level", "method", "seed", "teacher"]
    differ = [name for name in parts if len({row.get(name) for row in rows}) > 1] or ["variant"]
    heads = ""
    for row in rows:
        said = {"variant": label(data, row["variant"]), "seed": f"seed {row['seed']}"}
        lines = "<br>".join(
            esc(said.get(name, row.get(name)))
            for name in differ
            if name == "variant" or row.get(name) is not None
        )
        heads += f'<th scope="col" title="{esc(called(row))}">{mark(data, row)}{lines}</th>'
    page = min(max(page, 0), (len(found) - 1) // PER_PAGE)
    body, every = "", data.answers(view.answer)
    for number in found[page * PER_PAGE : (page + 1) * PER_PAGE]:
        cells = ""
        for student in students:
            if not every.there[number, student]:
                cells += "<td>–</td>"
                continue
            style, said_ = ("dot", "right") if every.correct[number, student] else ("dot no", "wrong")
            dot = f'<span class="{style}"></span><span class="sr">{said_}, </span>'
            many = int(data.many[number, student])
            share = f" <span class='note'>{data.right[number, student]}/{many}</span>" if many > 1 else ""
            cells += f"<td>{dot}{every.tokens[number, student]:,}{share}</td>"
        text = data.brief(data.texts[number].as_py())[:160]
        body += listed(data.keys[number], f"{number + 1}. {text}", number == current) + f"{cells}</tr>"
    shared = [
        name for name in parts if name not in differ and rows[0].get(name) is not None and name != "variant"
    ]
    same = ", ".join(esc(f"seed {rows[0][n]}" if n == "seed" else rows[0][n]) for n in shared)
    about = "● right, ○ wrong, and the tokens of each output" + (f"; all: {same}" if same else "")
    if most_answers(data, view) > 1:
        about += "; how many of a student’s answers are right"
    return state(view.address()) + pager + paged("problems", heads, body, page, len(found), about)


def pagers(data: Evaluations, view: View) -> str:
    """Which of the chosen students, and of several answers to each problem, are shown; buttons to the others."""
    pages, many = student_sets(data, view), most_answers(data, view)
    html = ""
    if len(pages) > 1:
        at = min(max(view.set, 0), len(pages) - 1)
        first = sum(map(len, pages[:at])) + 1
        text = f"students {first}–{first + len(pages[at]) - 1} of {sum(map(len, pages))}"
        html += _pager("students", at, len(pages), text)
    if many > 1:
        html += _pager("answer", view.answer, many, f"answer {view.answer + 1} of {many} to each problem")
    return html


def _pager(what: str, at: int, of: int, text: str) -> str:
    buttons = "".join(
        f'<button data-{what}="{at + by}"{"" if 0 <= at + by < of else " disabled"}>{what.capitalize()} {word}</button>'
        for word, by in (("before", -1), ("after", 1))
    )
    said = f"{text}: their dots, and what the filters count"
    return f'<div class="pager {what}">{buttons}<span class="note">{said}</span></div>'


def listed(key: str, text: str, here: bool) -> str:
    """The first cell of a list's row, which chooses it; the row stays open for more cells."""
    current = ' aria-current="true"' if here else ""
    return f'<tr{current}><td><button class="pick" data-key="{esc(key)}">{esc(text)}</button></td>'


def paged(what: str, heads: str, body: str, page: int, found: int, about: str) -> str:
    """One page of a list, in a box that scrolls, and the buttons to the pages beside it."""
    first, last = page * PER_PAGE + 1, min((page + 1) * PER_PAGE, found)
    table = f'<tr><th scope="col">problem</th>{heads}</tr></thead><tbody>{body}</tbody></table>'
    buttons = "".join(
        f'<button data-page="{page + by}"{"" if possible else " disabled"}>{text}</button>'
        for text, by, possible in (("Earlier", -1, page > 0), ("Later", 1, last < found))
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{what}"><table class="grid"><thead>{table}</div>'
        f'<div class="pager"><span class="note">{first:,}–{last:,} of {found:,} {what}, {about}</span>{buttons}</div>'
    )


def question(row: Row) -> str:
    answer = f'<div class="note">Known answer: <strong>{shown(str(row["answer"]), 2000)}</strong></div>'
    return box("problem", shown(row["problem"], 20_000) + answer, "question")


def card(
    data: Evaluations,
    row: Row,
    longest: int = 0,
    limit: int = LONGEST_TEXT,
    name: str = "",
    badges: str = "",
    waiting: bool = False,
) -> str:
    """One student's output, in HTML of about `limit` characters. `name` hides who it is; `waiting`: more may come."""
    thinking, solution = split(row["output"])
    if row.get("correct") is not None and not name:
        badges = verdict(row["correct"]) + badges
    if not name:
        badges += badge(f"{esc(row['output_tokens'])} tokens")
    if row["finish_reason"] == "length":
        badges += badge("cut off", "cut")
    parts = (row["base"], label(data, row["variant"]), row.get("level"), row["method"])
    about = "" if name else " · ".join(esc(part) for part in parts if part)
    answer = (
        shown(solution, limit // 2)
        if solution
        else "…"
        if waiting
        else "<em>no answer after the thinking</em>"
    )
    thought = ""
    if thinking:
        left = max(limit - len(answer), limit // 2)
        text = box("thinking", shown(thinking, left))
        thought = f"<details open><summary>thinking</summary>{text}</details>"
    return (
        f'<section class="card" style="--accent:{"#7d8590" if name else accent(data, row["variant"])}">'
        f'<h3>{esc(name or called(row))}</h3><div class="meta">{about}</div>'
        f"{bar(row['output_tokens'], longest) if longest else ''}{badges}{thought}"
        f"{box('answer', answer, 'text solution')}</section>"
    )


def comparison(data: Evaluations, view: View) -> str:
    """The shown students' cards for one problem."""
    number = data.at.get(view.p)
    if number is None:
        return note("Choose a problem.")
    rows = data.outputs(number, shown_students(data, view), view.answer)
    right = sum(bool(row["correct"]) for row in rows)
    longest = max((row["output_tokens"] for row in rows), default=1) or 1
    limit = min(ROOM // max(len(rows), 1), LONGEST_TEXT)
    cards = "".join(
        card(data, row, longest, limit, badges=several(data, number, called(row))) for row in rows
    )
    cards = cards or note("No student fits.")
    count = f"{right} of {len(rows)} shown are right."
    if any(len(row["output"]) > limit for row in rows):
        count += " Long outputs are cut here: choose one student under Filters for more of it, or save all as JSON."
    return f'{MATHS}<div>{question(data.problem(number))}{note(count)}<div class="side">{cards}</div></div>'


def several(data: Evaluations, problem: int, student: str) -> str:
    """A badge that says how many of a student's answers are right; nothing where there is one."""
    at = (problem, data.names.index(student))
    return badge(f"{data.right[at]} of {data.many[at]} answers right") if data.many[at] > 1 else ""


# Traces: what compression removed.


def trace_list(
    data: Evaluations, traces: Traces, config: str, text: str, sort: str, key: str, page: int | None = None
) -> str:
    found = find_traces(traces, config, text, sort)
    if not found:
        return note("No trace fits.")
    place = {traces.keys[n]: k for k, n in enumerate(found)}
    page = place.get(key, 0) // PER_PAGE if page is None else page
    page = min(max(page, 0), math.ceil(len(found) / PER_PAGE) - 1)
    others = [name for name in traces.configs if name != "raw"]
    body = ""
    for number in found[page * PER_PAGE : (page + 1) * PER_PAGE]:
        name, raw = traces.keys[number], int(traces.tokens["raw"][number])
        cells = f"<td>{raw:,}</td>"
        for other in others:
            row = traces.at[other].get(name)
            own = None if row is None else int(traces.tokens[other][row])
            share = (
                "" if own is None else f"{own:,} <span class='note'>{100 * own / max(raw, 1):.0f} %</span>"
            )
            cells += f"<td>{share or '–'}</td>"
        text_ = data.brief(traces.texts[number].as_py())[:160]
        body += listed(name, f"{number + 1}. {text_}", name == key) + f"{cells}</tr>"
    heads = "".join(f'<th scope="col">{esc(label(data, n))}</th>' for n in ("raw", *others))
    return paged("traces", heads, body, page, len(found), "reasoning tokens and their share of raw’s")


@lru_cache(maxsize=256)
def aligned(raw: str, other: str) -> tuple[list[Part], list[Part]]:
    """Kept for those who step to and fro: half a second for the longest that is shown, a hundredth for most."""
    return marked(raw[:LONGEST_TEXT], other[:LONGEST_TEXT])


def parts_html(parts: list[Part], limit: int) -> str:
    """Kept words plain, dropped ones greyed, rewritten and new ones marked; the rest is counted from `limit` on."""
    found, length = [], 0
    for number, (kind, text, step) in enumerate(parts):
        span = f'<span class="{kind}" data-step="{step}">{esc(maths(text))}</span>'
        length += len(span)
        if length > limit and number:
            left = sum(len(text) for _, text, _ in parts[number:])
            return "".join(found) + f'<span class="note"> … {left:,} more characters</span>'
        found.append(span)
    return "".join(found)


def trace_view(data: Evaluations, traces: Traces, config: str, key: str) -> str:
    """A raw trace, what was made of it, and the same trace at that length by other means."""
    raw = traces.row("raw", key)
    if raw is None:
        return note("Choose a trace.")
    compressor = data.variants.get(config, {}).get("compressor")
    same = [
        n for n in traces.configs if compressor and data.variants.get(n, {}).get("compressor") == compressor
    ]
    forms = {"raw": raw}
    for name in (config, *same):
        row = traces.row(name, key)
        if row is not None:
            forms[name] = row
    longest = max(row["reasoning_tokens"] for row in forms.values())
    limit = ROOM // len(forms)
    panes = ""
    for name, row in forms.items():
        reasoning = row["reasoning"]
        left, right = aligned(
            raw["reasoning"], (forms.get(config, raw) if name == "raw" else row)["reasoning"]
        )
        text = parts_html(left if name == "raw" else right, limit * 3 // 4)
        if len(reasoning) < len(raw["reasoning"]) and raw["reasoning"].startswith(reasoning):
            gone = len(words(raw["reasoning"][len(reasoning) :]))
            text += badge(f"cut here: {gone:,} words dropped", "cut")
        share = 100 * row["reasoning_tokens"] / max(raw["reasoning_tokens"], 1)
        size = f"{row['reasoning_tokens']:,} tokens" + ("" if name == "raw" else f", {share:.0f} % of raw")
        panes += (
            f'<section class="card" style="--accent:{accent(data, name)}"><h3>{esc(name)}</h3>'
            f"{bar(row['reasoning_tokens'], longest)}{verdict(row['correct'])}"
            f"{badge(size)}"
            f"{box(f'reasoning, {name}', text, 'text raw' if name == 'raw' else 'text')}"
            f"{box(f'solution, {name}', shown(row['solution'], limit // 4), 'text solution')}</section>"
        )
    keys = (
        '<div class="pager"><button data-move="-1">Previous step (k)</button>'
        '<button data-move="1">Next step (j)</button><span class="note" id="step-at"></span>'
        '<span class="note">plain: kept; <span class="dropped">dropped</span>; '
        '<span class="rewritten">rewritten</span></span></div>'
    )
    return f'{MATHS}<div>{question(raw)}{keys}<div class="side">{panes}</div></div>'
