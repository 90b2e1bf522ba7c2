"""A release to look at: what compression removed from the traces, and what the students made of it.

    outputs  {"student": "s-raw-full", "id": "p7", "problem": "47 + 38 = ?", "output": "<think>…</think>85", …}
    raw      {"id": "p7", "sample": 0, "reasoning": "I add the tens: …", "reasoning_tokens": 212, …}
        -> a table of problems with a mark for each student; their outputs side by side; a trace beside its
           compressed and truncated forms; a blind vote; the results; the students themselves, to be asked

Runs as a Space and locally. release.json beside this file names the datasets, or HUBKIT_EVALS the evaluations alone;
HF_ENDPOINT chooses the Hub. HUBKIT_VOTES names a dataset to keep votes in, with a HF_TOKEN that may write to it.
It imports nothing of hubkit, so the Space needs these three files alone: that is why styles, script and page stand
in one file. Everything from a dataset or a model goes through `esc` before it becomes HTML.
"""

from __future__ import annotations

import base64
import difflib
import functools
import html
import json
import math
import os
import random
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

if os.environ.get(
    "SPACES_ZERO_GPU"
):  # the package is there on such hardware alone, and must come before torch
    import spaces

import gradio as gr
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Row = dict[str, Any]

MOST_LIVE = 4
"""Students that answer a visitor's own problem together: each is a model in memory."""
LONGEST_QUESTION = 4_000
MOST_TOKENS = 4_096
LONGEST_TEXT = 60_000
"""Characters of one output or trace that are shown; the export has the whole."""
PER_PAGE = 25
EXACT_WORDS = 2_000
"""Traces longer than this are aligned by their rarer words first, which takes a fraction of the time."""

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

CSS = """
.gradio-container { max-width: 1320px !important; width: 100% !important; min-width: 0; margin: auto; }
.gradio-container > .main, .gradio-container .wrap, .gradio-container .tabs { min-width: 0; width: 100%; }
.gradio-container .column, .gradio-container .tabitem, .gradio-container .block, .gradio-container main,
.gradio-container .html-container, .gradio-container .form { min-width: 0 !important; max-width: 100%; }
.gradio-container, .gradio-container .prose { --soft: color-mix(in srgb, var(--body-text-color) 78%,
  var(--body-background-fill)); }
.sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.note, .meta { color: var(--soft); font-size: .86rem; margin: .3rem 0; }
.headline { font-size: 1.05rem; margin: .4rem 0 0; max-width: 62rem; }
.scroll { overflow: auto; border: 1px solid var(--border-color-primary); border-radius: 8px; }
.scroll:focus-visible, button:focus-visible, summary:focus-visible, [tabindex]:focus-visible { outline: 2px solid
  var(--color-accent); outline-offset: 1px; }
#list .scroll, #trace-list .scroll { max-height: 22rem; }
h1.title { margin: 0; font-size: 1.5rem; }
table.grid { border: 0 !important; border-collapse: separate; border-spacing: 0; width: 100%; font-size: .84rem;
  font-variant-numeric: tabular-nums; margin: 0; }
table.grid th, table.grid td { padding: .3rem .5rem; text-align: right; white-space: nowrap; border: 0;
  border-bottom: 1px solid var(--border-color-primary); background: var(--block-background-fill); color:
  var(--body-text-color); }
table.grid thead th { position: sticky; top: 0; z-index: 2; font-weight: 500; font-size: .76rem; line-height:
  1.25; vertical-align: bottom; white-space: normal; overflow-wrap: anywhere; min-width: 4.4rem; max-width: 8rem; }
table.grid th:first-child, table.grid td:first-child { position: sticky; left: 0; z-index: 1; text-align: left; }
table.grid thead th:first-child { z-index: 3; }
table.grid tr[aria-current] td { background: color-mix(in srgb, var(--color-accent) 14%,
  var(--block-background-fill)); }
table.grid button { all: unset; cursor: pointer; box-sizing: border-box; }
table.grid button:focus-visible { outline: 2px solid var(--color-accent); }
.pick { display: block; width: clamp(9rem, 34vw, 26rem); overflow: hidden; text-overflow: ellipsis; white-space:
  nowrap; }
.pick:hover { text-decoration: underline; }
.mark { display: inline-block; width: .7em; height: .7em; margin-right: .35em; border-radius: 50%; border: 2px
  solid var(--accent); background: var(--accent); box-sizing: border-box; }
.mark.square { border-radius: 0; } .mark.diamond { border-radius: 0; transform: rotate(45deg) scale(.85); }
  .mark.hollow { background: transparent; }
.dot { display: inline-block; width: .72em; height: .72em; margin-right: .3em; border-radius: 50%; background:
  #1a7f37; vertical-align: -.04em; }
.dot.no { background: none; border: 2px solid #c6362a; box-sizing: border-box; } .dark .dot { background: #3fb950;
  } .dark .dot.no { background: none; border-color: #ff7b72; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: .8rem;
  align-items: start; }
.card { border: 1px solid var(--border-color-primary); border-top: 4px solid var(--accent); border-radius: 10px;
  padding: .7rem .85rem; background: var(--block-background-fill); min-width: 0; }
.card h3 { margin: 0; font-size: .98rem; overflow-wrap: anywhere; }
.card summary { cursor: pointer; font-size: .82rem; color: var(--soft); margin-top: .5rem; }
.bar { height: 5px; border-radius: 3px; background: var(--accent); margin: .45rem 0 .1rem; min-width: 3px; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font: .82rem/1.55 ui-monospace, SFMono-Regular, monospace;
  max-height: 24rem; overflow: auto; margin: .3rem 0 0; padding: .6rem; border-radius: 6px; background:
  var(--background-fill-secondary); color: var(--body-text-color); }
.text .katex { font-size: 1.12em; white-space: normal; }
.solution { border-left: 3px solid var(--accent); }
.badge { display: inline-block; margin: .35rem .3rem 0 0; padding: .05rem .5rem; border-radius: 99px; font-size:
  .78rem; font-weight: 600; background: var(--background-fill-secondary); color: var(--body-text-color); }
.badge.yes { background: #1a7f37; color: #fff; } .badge.no { background: #b42318; color: #fff; } .badge.cut {
  background: #8a5c00; color: #fff; }
.question { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 1.05rem; padding: .8rem 1rem; margin: 0 0
  .5rem; border-radius: 10px; border: 1px solid var(--border-color-primary); background:
  var(--block-background-fill); max-height: 18rem; overflow: auto; }
.dropped { color: var(--soft); text-decoration: line-through; text-decoration-color: color-mix(in srgb,
  var(--soft) 55%, transparent); opacity: .85; }
.rewritten { background: color-mix(in srgb, #d55e00 26%, transparent); border-radius: 3px; box-decoration-break:
  clone; }
.now { outline: 2px solid var(--color-accent); outline-offset: 1px; border-radius: 3px; }
.figure img { width: 100%; max-width: 60rem; display: block; margin: .3rem auto; }
.figure .on-dark { display: none; } .dark .figure .on-dark { display: block; } .dark .figure .on-light { display:
  none; }
.pager { display: flex; gap: .5rem; align-items: center; flex-wrap: wrap; margin: .35rem 0; }
.pager button { font-size: .84rem !important; font-weight: 500 !important; border-radius: 6px;
  border: 1px solid var(--border-color-primary); padding: .15rem .6rem;
  background: var(--button-secondary-background-fill); color: var(--button-secondary-text-color); cursor: pointer; }
.pager button:disabled { opacity: .45; cursor: default; }
.hide { display: none !important; }
@media (max-width: 640px) {
  #tabs .tab-wrapper button { padding: 0 .5rem; font-size: .84rem; }
  .gradio-container { padding: .5rem !important; } .text { max-height: 16rem; } .side {
  grid-template-columns: 1fr; } }
"""

JS = """
window.compare = {
  link(changes) {  // what is looked at stands in the address, so that it can be reloaded and shared
    const at = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(changes)) value ? at.set(name, value) : at.delete(name);
    history.replaceState(null, '', at.size ? '?' + at : location.pathname);
  },
  tab(name) {  // the page selects one itself when it opens: that must not rewrite the address
    if (compare.ready) compare.link({tab: name});
  },
  open() {
    const name = new URLSearchParams(location.search).get('tab');
    compare.ready = true;
    const tabs = [...document.querySelectorAll('#tabs .tab-wrapper button:not([tabindex="-1"])')];
    tabs.find(e => e.textContent.trim().toLowerCase() === name)?.click();
  },
  follow(element) {
    const state = element.querySelector('[data-state]');
    if (state) compare.link(JSON.parse(state.dataset.state));
    const scroll = element.querySelector('.scroll'), row = element.querySelector('tr[aria-current]');
    if (scroll && row) scroll.scrollTop = row.offsetTop - scroll.clientHeight / 2;
  },
  theme() {
    const dark = document.body.classList.toggle('dark');
    compare.link({__theme: dark ? 'dark' : 'light'});
  },
  step(move) {  // from one step of the raw trace to the next, and to where it went in the others
    const root = document.querySelector('#trace'), parts = [...root.querySelectorAll('.raw [data-step]')];
    const steps = [...new Set(parts.map(part => part.dataset.step))];
    if (!steps.length) return;
    const at = steps.indexOf(root.dataset.at), next = steps[Math.min(Math.max(at + move, 0), steps.length - 1)];
    root.dataset.at = next;
    root.querySelectorAll('.now').forEach(e => e.classList.remove('now'));
    for (const pane of root.querySelectorAll('.text')) {
      const found = [...pane.querySelectorAll(`[data-step="${next}"]`)];
      found.forEach(e => e.classList.add('now'));
      const top = element => element.getBoundingClientRect().top;
      if (found.length) pane.scrollTop += top(found[0]) - top(pane) - pane.clientHeight / 3;
    }
    root.querySelector('#step-at').textContent = `step ${steps.indexOf(next) + 1} of ${steps.length}`;
  },
  sort(button) {
    const cell = button.closest('th'), table = button.closest('table');
    const up = cell.getAttribute('aria-sort') !== 'ascending';
    table.querySelectorAll('th').forEach(th => th.removeAttribute('aria-sort'));
    cell.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const key = row => row.cells[cell.cellIndex].dataset.v ?? row.cells[cell.cellIndex].textContent;
    const order = (a, b) => isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => up ? order(a, b) : order(b, a)));
  },
  save(name, data, type) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([data], {type}));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  },
  async png(selector, name) {  // the page's own HTML, drawn by the browser; nothing is sent anywhere
    const from = document.querySelector(selector), box = from.getBoundingClientRect(), copy = from.cloneNode(true);
    copy.querySelectorAll('details').forEach((d, i) => d.open = from.querySelectorAll('details')[i].open);
    let rules = '';
    for (const sheet of document.styleSheets)
      for (const rule of sheet.cssRules) if (!/^@(font-face|import)/.test(rule.cssText)) rules += rule.cssText;
    const page = document.createElement('div');
    page.className = document.body.className + ' ' + document.querySelector('.gradio-container').className;
    page.style.cssText = 'background: var(--body-background-fill); color: var(--body-text-color); padding: 12px;' +
      'max-width: none !important; font-family: system-ui, sans-serif';
    const style = document.createElement('style');
    style.textContent = rules + '.text,.scroll{max-height:none!important}';
    page.append(style, copy);
    const probe = page.cloneNode(true);  // the whole height, without the scroll boxes
    probe.style.cssText += `;position:absolute;left:-99999px;width:${box.width}px`;
    document.body.append(probe);
    const width = Math.ceil(box.width), height = Math.min(Math.ceil(probe.scrollHeight) + 24, 12000);
    probe.remove();
    const body = new XMLSerializer().serializeToString(page);
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">` +
      `<foreignObject width="100%" height="100%">${body}</foreignObject></svg>`;
    const image = new Image();
    image.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(svg);
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = 2 * width; canvas.height = 2 * height;
    const draw = canvas.getContext('2d');
    draw.scale(2, 2);
    draw.drawImage(image, 0, 0);
    canvas.toBlob(blob => compare.save(name, blob, 'image/png'), 'image/png');
  },
};
document.addEventListener('keydown', event => {
  const own = 'input, textarea, select, [role=tab], [role=slider], [role=listbox], .scroll, .text';
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(own)) return;
  const seen = selector => { const e = document.querySelector(selector); return e && e.offsetParent ? e : null; };
  const move = {ArrowLeft: '.previous', ArrowRight: '.next'}[event.key];
  const button = move && (seen(`#compare-move ${move}`) || seen(`#trace-move ${move}`));
  if (button) { event.preventDefault(); button.click(); }
  if ((event.key === 'j' || event.key === 'k') && seen('#trace')) compare.step(event.key === 'j' ? 1 : -1);
});
document.addEventListener('click', event => {
  const sort = event.target.closest('[data-sort]'), step = event.target.closest('[data-move]');
  if (sort) compare.sort(sort);
  if (step) compare.step(Number(step.dataset.move));
});
"""
LIST_JS = """
element.addEventListener('click', event => {
  const hit = event.target.closest('[data-key], [data-page]');
  if (hit) trigger('select', {key: hit.dataset.key ?? null, page: hit.dataset.page ?? null});
});
watch('value', () => compare.follow(element));
"""
# KaTeX comes with gr.Markdown, which looks for it only where a delimiter stands unescaped: this one.
MATHS = "<!--$$ $$-->"
DELIMITERS = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]
# Pandoc's rule for what is no price: no space inside, no digit after.
DOLLARS = re.compile(r"(?<![\\$])\$(?![\s$])([^$\n]{1,2000}?)(?<![\s\\])\$(?![\d$])")
DELIMITED = re.compile(r"(\\\(.*?\\\)|\\\[.*?\\\]|\$\$.*?\$\$)", re.DOTALL)
BOXED = re.compile(r"\\boxed\{(?:[^{}]|\{[^{}]*\})*\}")


def esc(value: Any) -> str:
    """Text for HTML, in one line. gr.HTML reads ${…} and {{…}} as templates, gr.Markdown %%%…%%% and blank lines."""
    text = html.escape(str(value))
    return "".join(f"&#{ord(c)};" if c in "${}`\\%\n\r" else c for c in text)


def shown(text: str, maths: bool = True) -> str:
    """An output's or trace's text, no longer than a page bears; maths in the delimiters that KaTeX looks for."""
    cut = text[:LONGEST_TEXT]
    more = f" … ({len(text) - len(cut):,} more characters)" if len(cut) < len(text) else ""
    if maths:
        cut = DOLLARS.sub(r"\\(\1\\)", cut)
        parts = DELIMITED.split(cut)  # every second one is maths already
        cut = "".join(part if n % 2 else BOXED.sub(r"\\(\g<0>\\)", part) for n, part in enumerate(parts))
    return esc(cut) + more


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


# What is published: release.json, the evaluations, the traces.


def settings() -> Row:
    """release.json, as publishing wrote it; HUBKIT_EVALS alone is enough to read evaluations."""
    path = Path(os.environ.get("HUBKIT_RELEASE") or Path(__file__).with_name("release.json"))
    found: Row = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    name = os.environ.get("HUBKIT_EVALS")
    if name and name != found.get("evals"):
        found = {"evals": name}
    if not found.get("evals"):
        raise SystemExit(
            "no evaluations to show: set HUBKIT_EVALS=org/name-evals, or put release.json beside app.py"
        )
    return found


GREY = "#7d8590"
"""Of bases, and of what release.json does not say."""


def variant_table(release: Row, results: Iterable[Row]) -> dict[str, Row]:
    """Variant name -> its kind, colour and label, as release.json says; bases stand under "base".

    A Space that is given the evaluations alone takes kinds from their rows, and shows them without their colours.
    """
    table: dict[str, Row] = {row["name"]: row for row in release.get("variants", [])}
    for row in results:
        name = row["variant"] or "base"
        kind = row.get("kind") or name
        own = {
            "name": name,
            "kind": kind,
            "compressor": row.get("compressor"),
            "label": row["variant"] or "untrained",
        }
        table.setdefault(name, own | {"colour": GREY})
    kinds = [row["kind"] for row in table.values()]
    for row in table.values():
        if kinds.count(row["kind"]) == 1 and row["kind"] != "base":
            row["label"] = row["kind"]
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", str(row.get("colour"))):
            row["colour"] = GREY
    return table


def download(repo: str, revision: str | None, name: str) -> bytes | None:
    """A small file of a dataset; None where it is not there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision)).read_bytes()
    except EntryNotFoundError:
        return None


class Evaluations:
    """What every student answered: small columns as matrices of problems x students, texts on disk."""

    def __init__(self, release: Row) -> None:
        from datasets import load_dataset

        evals, revision = release["evals"], release.get("revision")
        self.rows = load_dataset(evals, "outputs", split="test", revision=revision)
        self.results: list[Row] = list(load_dataset(evals, "results", split="test", revision=revision))
        self.report: Row = json.loads(download(evals, revision, "results.json") or "{}")
        self.figures = {
            name: found
            for name in ("light", "dark", "light-narrow", "dark-narrow")
            if (found := download(evals, revision, f"tradeoff-{name}.svg"))
        }
        self.students: dict[str, Row] = {}
        for row in self.results:
            self.students.setdefault(row["student"], row)
        self.names = list(self.students)
        self.variants = variant_table(release, self.students.values())

        keys = pc.binary_join_element_wise(self._column("benchmark"), self._column("id"), "/")
        encoded = keys.dictionary_encode()
        self.keys: list[str] = encoded.dictionary.to_pylist()
        problem = encoded.indices.to_numpy()
        place = {name: number for number, name in enumerate(self.names)}
        known = self._column("student").dictionary_encode()
        of = np.array([place.get(name, -1) for name in known.dictionary.to_pylist()])
        student = of[known.indices.to_numpy()]
        shape = (len(self.keys), len(self.names))
        self.row = np.full(shape, -1, np.int64)
        use = student >= 0
        if "sample" in self.rows.column_names:  # of several answers to a problem the first is shown
            use &= self._column("sample").to_numpy() == 0
        at = (problem[use], student[use])
        self.row[at] = np.flatnonzero(use)
        self.there = self.row >= 0
        self.correct = np.zeros(shape, bool)
        self.correct[at] = pc.fill_null(self._column("correct"), False).to_numpy(zero_copy_only=False)[use]
        self.tokens = np.zeros(shape, np.int32)
        self.tokens[at] = self._column("output_tokens").to_numpy()[use]
        # A problem's first row: outputs of one problem share its text.
        _, first = np.unique(problem, return_index=True)
        self.first = first
        self.texts = pa.array(self.rows.select(first)["problem"])
        alike = os.path.commonprefix(  # noqa: RUF071 (character by character is meant)
            [" ".join(text.split()) for text in self.texts.to_pylist()]
        )
        self.prefix = len(alike.rpartition(" ")[0]) + 1 if len(alike) > 20 and len(self.texts) > 1 else 0
        self.benchmark = [key.partition("/")[0] for key in self.keys]
        self.at = {key: number for number, key in enumerate(self.keys)}

    def _column(self, name: str) -> Any:
        return self.rows.data.column(name).combine_chunks()

    def brief(self, text: str) -> str:
        """A problem in one line, without the words that all problems begin with."""
        cut = " ".join(text.split())
        return "… " + cut[self.prefix :] if self.prefix and len(cut) > self.prefix else cut

    def kind(self, student: int) -> str:
        return str(self.variants[self.students[self.names[student]]["variant"] or "base"]["kind"])

    def pairs(self, students: list[int]) -> list[tuple[int, int]]:
        """(raw, compressed) students that differ in nothing else."""
        groups: dict[tuple[Any, ...], dict[str, list[int]]] = {}
        for number in students:
            row = self.students[self.names[number]]
            key = tuple(row[name] for name in ("teacher", "base", "method", "seed"))
            groups.setdefault(key, {}).setdefault(self.kind(number), []).append(number)
        return [
            (raw, other)
            for group in groups.values()
            for raw in group.get("raw", [])
            for other in group.get("compressed", [])
        ]

    def outputs(self, problem: int, students: list[int]) -> list[Row]:
        found = [int(self.row[problem, s]) for s in students if self.there[problem, s]]
        return [self.rows[index] for index in found]

    def problem(self, problem: int) -> Row:
        row: Row = self.rows[int(self.first[problem])]
        return row


@dataclass
class View:
    """What a visitor looks at in the first tab. Its fields are the address's names."""

    p: str = ""
    q: str = ""
    show: str = "all"
    sort: str = "order"
    benchmark: list[str] = field(default_factory=list)
    base: list[str] = field(default_factory=list)
    variant: list[str] = field(default_factory=list)
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
        return view

    def values(self) -> list[Any]:
        return [getattr(self, part.name) for part in fields(self)]

    @classmethod
    def read(cls, query: dict[str, str], allowed: dict[str, list[str]]) -> View:
        """From an address; what the release does not have is left out."""
        view = cls(p=query.get("p", ""), q=query.get("q", "")[:200])
        view.show = query["show"] if query.get("show") in SHOW else "all"
        view.sort = query["sort"] if query.get("sort") in SORT else "order"
        for name, values in allowed.items():
            setattr(view, name, [v for v in query.get(name, "").split("~") if v in values])
        for name in ("least", "most"):
            try:
                value = float(query.get(name, ""))
                setattr(view, name, value if math.isfinite(value) else None)
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
            (view.method, row["method"]),
            (view.seed, str(row["seed"])),
            (view.teacher, row["teacher"]),
        )
        if all(not allowed or value in allowed or value is None for allowed, value in wanted):
            found.append(number)
    return found


def find(data: Evaluations, view: View) -> tuple[list[int], list[int]]:
    """(problems in order, students): what the list shows. Only students that are shown count."""
    students = chosen_students(data, view)
    if not students:
        return [], []
    there, correct = data.there[:, students], data.correct[:, students]
    tokens = data.tokens[:, students]
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
            keep &= data.there[:, number] & (data.correct[:, number] == value)
    if view.least is not None:
        keep &= mean >= view.least
    if view.most is not None:
        keep &= mean <= view.most
    pairs = data.pairs(students)
    saved = np.zeros(len(data.keys))
    either = np.zeros((3, len(data.keys)), bool)
    for raw, short in pairs:
        both = data.there[:, raw] & data.there[:, short]
        a, b = data.correct[:, raw], data.correct[:, short]
        either |= np.stack([both & a & ~b, both & b & ~a, both & a & b])
        saved += np.where(both & a & b, data.tokens[:, raw].astype(float) - data.tokens[:, short], 0)
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


# From rows to HTML.


def mark(data: Evaluations, row: Row) -> str:
    """Colour: variant. Shape: method. Hollow: untrained."""
    variant = data.variants[row["variant"] or "base"]
    methods = list(dict.fromkeys(r["method"] for r in data.students.values() if r["method"]))
    shape = ("", " square", " diamond")[methods.index(row["method"]) % 3] if row["method"] else " hollow"
    return f'<span class="mark{shape}" style="--accent:{variant["colour"]}" aria-hidden="true"></span>'


def accent(data: Evaluations, variant: str | None) -> str:
    return str(data.variants.get(variant or "base", {}).get("colour", "#7d8590"))


def problem_list(data: Evaluations, view: View, page: int | None = None) -> str:
    """The table of problems: a dot and the tokens of each student. `page` None: the one with the problem."""
    found, students = find(data, view)
    current = data.at.get(view.p, -1)
    state = f"<span hidden data-state='{esc(json.dumps(view.address()))}'></span>"
    if not students:
        return f'{state}<p class="note">No student fits these filters.</p>'
    if not found:
        return f'{state}<p class="note">No problem fits these filters.</p>'
    pages = math.ceil(len(found) / PER_PAGE)
    if page is None:
        page = found.index(current) // PER_PAGE if current in found else 0
    page = min(max(page, 0), pages - 1)
    seeds = len({data.students[data.names[s]]["seed"] for s in students}) > 1
    teachers = len({data.students[data.names[s]]["teacher"] for s in students}) > 1
    heads = ""
    for number in students:
        row = data.students[data.names[number]]
        label = data.variants[row["variant"] or "base"]["label"]
        parts = [row["base"], label, row["method"] or "", f"seed {row['seed']}" if seeds else ""]
        lines = "<br>".join(esc(p) for p in [*parts, row["teacher"] if teachers else ""] if p)
        heads += f'<th scope="col" title="{esc(row["student"])}">{mark(data, row)}<br>{lines}</th>'
    body = ""
    for number in found[page * PER_PAGE : (page + 1) * PER_PAGE]:
        cells = ""
        for student in students:
            if not data.there[number, student]:
                cells += "<td>–</td>"
                continue
            right = data.correct[number, student]
            style, said = ("dot", "right") if right else ("dot no", "wrong")
            dot = f'<span class="{style}"></span><span class="sr">{said}, </span>'
            cells += f"<td>{dot}{data.tokens[number, student]:,}</td>"
        text = data.brief(data.texts[number].as_py())[:160]
        here = ' aria-current="true"' if number == current else ""
        name = f'<button class="pick" data-key="{esc(data.keys[number])}">{number + 1}. {esc(text)}</button>'
        body += f"<tr{here}><td>{name}</td>{cells}</tr>"
    note = f"{len(students)} students; ● right, ○ wrong, and the tokens of each output"
    return state + paged("problems", heads, body, page, len(found), note)


def paged(what: str, heads: str, body: str, page: int, found: int, note: str) -> str:
    """One page of a list, in a box that scrolls, and the buttons to the pages beside it."""
    first, last = page * PER_PAGE + 1, min((page + 1) * PER_PAGE, found)
    table = f'<tr><th scope="col">problem</th>{heads}</tr></thead><tbody>{body}</tbody></table>'
    buttons = "".join(
        f'<button data-page="{page + by}"{"" if possible else " disabled"}>{text}</button>'
        for text, by, possible in (("Earlier", -1, page > 0), ("Later", 1, last < found))
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{what}"><table class="grid"><thead>{table}</div>'
        f'<div class="pager"><span class="note">{first:,}–{last:,} of {found:,} {what}, {note}</span>{buttons}</div>'
    )


def split(output: str) -> tuple[str, str]:
    """Thinking text and solution of an output. A span that never closed has no solution."""
    head, closed, tail = output.partition("</think>")
    if closed:
        return head.replace("<think>", "", 1).strip(), tail.strip()
    if "<think>" in output:
        return output.partition("<think>")[2].strip(), ""
    return "", output.strip()


def card(
    data: Evaluations, row: Row, longest: int = 0, name: str = "", note: str = "", waiting: bool = False
) -> str:
    """One student's output. `name` hides who it is; `waiting`: more may come."""
    thinking, solution = split(row["output"])
    badges = note
    if row.get("correct") is not None and not name:
        badges += verdict(row["correct"])
    if not name:
        badges += f'<span class="badge">{esc(row["output_tokens"])} tokens</span>'
    if row["finish_reason"] == "length":
        badges += '<span class="badge cut">cut off</span>'
    label = data.variants.get(row["variant"] or "base", {}).get("label", row["variant"])
    about = "" if name else " · ".join(esc(part) for part in (row["base"], label, row["method"]) if part)
    thought = box("thinking", shown(thinking)) if thinking else ""
    if thought:
        thought = f"<details open><summary>thinking</summary>{thought}</details>"
    bar = (
        f'<div class="bar" style="width:{100 * row["output_tokens"] / longest:.1f}%"></div>'
        if longest
        else ""
    )
    solved = shown(solution) if solution else "…" if waiting else "<em>no answer after the thinking</em>"
    colour = "#7d8590" if name else accent(data, row["variant"])
    return (
        f'<section class="card" style="--accent:{colour}"><h3>{esc(name or row["student"])}</h3>'
        f'<div class="meta">{about}</div>{bar}{badges}{thought}'
        f"{box('answer', solved, 'text solution')}</section>"
    )


def box(label: str, content: str, style: str = "text") -> str:
    """A text that may be long: it scrolls, also by keyboard."""
    return f'<div class="{style}" tabindex="0" role="region" aria-label="{esc(label)}">{content}</div>'


def question(row: Row, maths: bool = True) -> str:
    answer = f'<div class="note">Known answer: <strong>{shown(str(row["answer"]), maths)}</strong></div>'
    return box("problem", shown(row["problem"], maths) + answer, "question")


def verdict(right: bool) -> str:
    style, said = ("yes", "right") if right else ("no", "wrong")
    return f'<span class="badge {style}">{said}</span>'


def comparison(data: Evaluations, view: View) -> str:
    """The chosen students' cards for one problem."""
    number = data.at.get(view.p)
    if number is None:
        return '<p class="note">Choose a problem.</p>'
    rows = data.outputs(number, chosen_students(data, view))
    right = sum(bool(row["correct"]) for row in rows)
    longest = max((row["output_tokens"] for row in rows), default=1) or 1
    cards = "".join(card(data, row, longest) for row in rows) or '<p class="note">No student fits.</p>'
    count = f'<p class="note">{right} of {len(rows)} shown are right.</p>'
    return f'{MATHS}<div>{question(data.problem(number))}{count}<div class="side">{cards}</div></div>'


# Traces: what compression removed.


class Traces:
    """The traces of one teacher, config by config, joined by (id, sample)."""

    def __init__(self, repo: str, revision: str | None) -> None:
        from datasets import get_dataset_config_names, load_dataset

        names = get_dataset_config_names(repo, revision=revision)
        self.configs = {name: load_dataset(repo, name, split="train", revision=revision) for name in names}
        self.at: dict[str, dict[str, int]] = {}
        for name, rows in self.configs.items():
            ids, samples = (rows.data.column(c).to_pylist() for c in ("id", "sample"))
            self.at[name] = {f"{i}/{s}": n for n, (i, s) in enumerate(zip(ids, samples, strict=True))}
        # Those of every config come first: they are what one wants to see.
        self.keys = list(self.at["raw"])
        self.texts = self.configs["raw"].data.column("problem").combine_chunks()
        self.tokens = self.configs["raw"].data.column("reasoning_tokens").to_numpy()

    def row(self, config: str, key: str) -> Row | None:
        number = self.at.get(config, {}).get(key)
        if number is None:
            return None
        row: Row = self.configs[config][number]
        return row


@functools.lru_cache(maxsize=8)
def traces_of(repo: str, revision: str | None) -> Traces:
    return Traces(repo, revision)


def find_traces(traces: Traces, config: str, text: str, sort: str) -> list[int]:
    """Traces in the raw config's order, or by what `config` saved of them."""
    keep = np.ones(len(traces.keys), bool)
    if text.strip():
        found = pc.match_substring(traces.texts, text.strip(), ignore_case=True)
        keep &= found.to_numpy(zero_copy_only=False)
    rows = traces.configs.get(config)
    if rows is not None and config != "raw":
        there = np.array([key in traces.at[config] for key in traces.keys])
        keep &= there
        tokens = np.zeros(len(traces.keys))
        own = rows.data.column("reasoning_tokens").to_numpy()
        tokens[there] = [own[traces.at[config][key]] for key in np.array(traces.keys)[there]]
        share = tokens / np.maximum(traces.tokens, 1)
        order = {"saved": tokens - traces.tokens, "share": share, "least": -share}.get(sort)
    else:
        order = -traces.tokens if sort != "order" else None
    found = np.flatnonzero(keep)
    return [int(n) for n in (found if order is None else found[np.argsort(order[found], kind="stable")])]


def words(text: str) -> list[str]:
    """Words, numbers and single signs, each with the space before it: joined they are the text."""
    return re.findall(r"\s*(?:\d+(?:\.\d+)?|[^\W\d]+|[^\w\s]|_)|\s+", text)


def step_numbers(parts: list[str]) -> list[int]:
    """The step of each word: a step ends with its line or its sentence."""
    numbers, step = [], 0
    for number, word in enumerate(parts):
        if number and (
            "\n" in word[: len(word) - len(word.lstrip())] or re.search(r"[.!?]$", parts[number - 1])
        ):
            step += 1
        numbers.append(step)
    return numbers


@functools.lru_cache(maxsize=256)
def aligned(raw: str, other: str) -> tuple[str, str]:
    """Both texts as HTML: kept words plain, dropped ones greyed, rewritten and new ones marked."""
    a, b = words(raw[:LONGEST_TEXT]), words(other[:LONGEST_TEXT])
    steps = step_numbers(a)
    matcher = difflib.SequenceMatcher(
        None,
        [w.strip() for w in a],
        [w.strip() for w in b],
        autojunk=max(len(a), len(b)) > EXACT_WORDS,
    )
    left: list[str] = []
    right: list[str] = []

    def put(out: list[str], parts: list[str], numbers: list[int], style: str) -> None:
        start = 0
        for end in range(1, len(parts) + 1):
            if end == len(parts) or numbers[end] != numbers[start]:
                text = esc("".join(parts[start:end]))
                out.append(f'<span class="{style}" data-step="{numbers[start]}">{text}</span>')
                start = end

    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if (
            tag == "equal"
            and not any(c.isalnum() for word in a[i:i_end] for c in word)
            and i
            and i_end < len(a)
        ):
            tag = "replace"  # a comma that both happen to have between other words is not kept text
        style = {"equal": "kept", "delete": "dropped"}.get(tag, "rewritten")
        put(left, a[i:i_end], steps[i:i_end], style)
        step = steps[min(i, len(steps) - 1)] if steps else 0
        put(right, b[j:j_end], steps[i:i_end] if tag == "equal" else [step] * (j_end - j), style)
    return "".join(left), "".join(right)


def trace_list(
    data: Evaluations, traces: Traces, config: str, text: str, sort: str, key: str, page: int | None = None
) -> str:
    found = find_traces(traces, config, text, sort)
    address = {"t": key, "tc": config, "tq": text, "ts": "" if sort == "order" else sort}
    state = f"<span hidden data-state='{esc(json.dumps(address))}'></span>"
    if not found:
        return f'{state}<p class="note">No trace fits.</p>'
    place = {traces.keys[n]: k for k, n in enumerate(found)}
    pages = math.ceil(len(found) / PER_PAGE)
    page = place.get(key, 0) // PER_PAGE if page is None else page
    page = min(max(page, 0), pages - 1)
    others = [name for name in traces.configs if name != "raw"]
    body = ""
    for number in found[page * PER_PAGE : (page + 1) * PER_PAGE]:
        name, raw = traces.keys[number], int(traces.tokens[number])
        cells = f"<td>{raw:,}</td>"
        for other in others:
            row = traces.at[other].get(name)
            if row is None:
                cells += "<td>–</td>"
                continue
            own = traces.configs[other].data.column("reasoning_tokens")[row].as_py()
            cells += f"<td>{own:,} <span class='note'>{100 * own / max(raw, 1):.0f} %</span></td>"
        here = ' aria-current="true"' if name == key else ""
        label = data.brief(traces.texts[number].as_py())[:160]
        pick = f'<button class="pick" data-key="{esc(name)}">{number + 1}. {esc(label)}</button>'
        body += f"<tr{here}><td>{pick}</td>{cells}</tr>"
    heads = "".join(f'<th scope="col">{esc(name)}</th>' for name in ("raw", *others))
    return state + paged("traces", heads, body, page, len(found), "reasoning tokens and their share of raw’s")


def trace_view(data: Evaluations, traces: Traces, config: str, key: str) -> str:
    """A raw trace, what was made of it, and the same trace cut to that length."""
    raw = traces.row("raw", key)
    if raw is None:
        return '<p class="note">Choose a trace.</p>'
    compressor = data.variants.get(config, {}).get("compressor")
    same = [
        n for n in traces.configs if compressor and data.variants.get(n, {}).get("compressor") == compressor
    ]
    forms = [("raw", raw)]
    for name in dict.fromkeys((config, *same)):
        row = traces.row(name, key)
        if row is not None and name != "raw":
            forms.append((name, row))
    longest = max(row["reasoning_tokens"] for _, row in forms) or 1
    against = dict(forms).get(config, raw)
    panes = ""
    for name, row in forms:
        left, right = aligned(raw["reasoning"], (against if name == "raw" else row)["reasoning"])
        text = left if name == "raw" else right
        if (
            name != "raw"
            and len(row["reasoning"]) < len(raw["reasoning"])
            and raw["reasoning"].startswith(row["reasoning"])
        ):
            gone = len(words(raw["reasoning"][len(row["reasoning"]) :]))
            text += f'<span class="badge cut">cut here: {gone:,} words dropped</span>'
        share = 100 * row["reasoning_tokens"] / max(raw["reasoning_tokens"], 1)
        of = "" if name == "raw" else f", {share:.0f} % of raw"
        long = max(len(row["reasoning"]), len(raw["reasoning"])) > LONGEST_TEXT
        more = f'<p class="note">Only the first {LONGEST_TEXT:,} characters are shown.</p>' if long else ""
        panes += (
            f'<section class="card" style="--accent:{accent(data, name)}"><h3>{esc(name)}</h3>'
            f'<div class="bar" style="width:{100 * row["reasoning_tokens"] / longest:.1f}%"></div>'
            f'{verdict(row["correct"])}<span class="badge">{row["reasoning_tokens"]:,} tokens{of}</span>'
            f"{box(f'reasoning, {name}', text, 'text raw' if name == 'raw' else 'text')}{more}"
            f"{box(f'solution, {name}', shown(row['solution'], False), 'text solution')}</section>"
        )
    keys = (
        '<div class="pager"><button data-move="-1">Previous step (k)</button>'
        '<button data-move="1">Next step (j)</button><span class="note" id="step-at"></span>'
        '<span class="note">plain: kept; <span class="dropped">dropped</span>; '
        '<span class="rewritten">rewritten</span></span></div>'
    )
    return f'<div>{question(raw, False)}{keys}<div class="side">{panes}</div></div>'


# Results.


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


def grid(heads: list[str], rows: list[list[tuple[str, Any]]]) -> str:
    """A table that sorts by its heads. A cell is (HTML, value to sort by)."""
    top = "".join(f'<th scope="col"><button data-sort>{esc(name)}</button></th>' for name in heads)
    body = "".join(
        "<tr>"
        + "".join(f'<td data-v="{esc("" if v is None else v)}">{cell}</td>' for cell, v in row)
        + "</tr>"
        for row in rows
    )
    table = f'<table class="grid"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(heads[0])}">{table}</div>'


def results_page(data: Evaluations) -> str:
    headline = data.report.get("headline", "")
    rows: list[list[tuple[str, Any]]] = []
    for r in data.results:
        name = r["student"] if r["variant"] else f"{r['student']} (untrained)"
        numbers = [
            (percent(r["accuracy"]), r["accuracy"]),
            (f"{percent(r['ci_low'])} to {percent(r['ci_high'])}", r["ci_low"]),
            (f"{r['mean_output_tokens']:,.1f}", r["mean_output_tokens"]),
            (percent(r["output_tokens_of_raw"], 0), r["output_tokens_of_raw"]),
            (percent(r["cut_share"]), r["cut_share"]),
            (f"{r['accuracy_per_1000_tokens']:.3f}", r["accuracy_per_1000_tokens"]),
            ("–" if r["train_tokens"] is None else f"{r['train_tokens']:,}", r["train_tokens"]),
            (percent(r["train_tokens_of_raw"], 0), r["train_tokens_of_raw"]),
        ]
        rows.append([(mark(data, r) + esc(name), name), (esc(r["benchmark"]), r["benchmark"]), *numbers])
    heads = ["student", "benchmark", "accuracy", "95 % CI", "output tokens", "of raw", "cut off"]
    parts = [
        f'<p class="headline">{esc(headline)}</p>' if headline else "",
        figure(data, headline),
        grid([*heads, "accuracy per 1,000 tokens", "training tokens", "of raw's"], rows),
    ]
    if groups := data.report.get("over_seeds"):
        body = [
            [
                (esc(f"{g['base']} {g['variant']} {g['method']}"), f"{g['base']} {g['variant']}"),
                (esc(g["benchmark"]), g["benchmark"]),
                (esc(g["seeds"]), g["seeds"]),
                (percent(g["accuracy"]), g["accuracy"]),
                (f"{percent(g['accuracy_min'])} to {percent(g['accuracy_max'])}", g["accuracy_min"]),
                (f"{g['mean_output_tokens']:,.1f}", g["mean_output_tokens"]),
            ]
            for g in groups
        ]
        parts += [
            "<h2>Over seeds</h2>",
            grid(["mean over seeds", "benchmark", "seeds", "accuracy", "range", "output tokens"], body),
        ]
    if tests := data.report.get("tests"):
        body = [
            [
                (
                    esc(f"{t['base']} {t['method']}, seed {t['seed']}"),
                    f"{t['base']} {t['method']} {t['seed']}",
                ),
                (esc(t["benchmark"]), t["benchmark"]),
                (esc(f"{t['a']} – {t['b']}"), f"{t['a']} {t['b']}"),
                (f"{100 * t['difference']:+.1f} points", t["difference"]),
                (esc(t["only_a"]), t["only_a"]),
                (esc(t["only_b"]), t["only_b"]),
                (f"{t['p_holm']:.3g}", t["p_holm"]),
            ]
            for t in tests
        ]
        heads = [
            "students",
            "benchmark",
            "compared",
            "difference",
            "only first right",
            "only second right",
            "p, Holm",
        ]
        parts += [
            "<h2>Can they be told apart?</h2>",
            grid(heads, body),
            '<p class="note">McNemar’s exact test on the same problems, corrected for the number of tests. '
            "A large p says that these problems do not tell the two apart, not that they are equal.</p>",
        ]
    return "".join(parts)


# Asking the students.


@functools.lru_cache(maxsize=MOST_LIVE)
def load_student(repo: str, revision: str | None) -> tuple[Any, Any]:
    """Tokenizer and model from the Hub: safetensors only, none of the repo's code."""
    import torch
    from huggingface_hub import file_exists
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or max(1, (os.cpu_count() or 2) // 2))
    loader: Any = AutoModelForCausalLM
    if file_exists(repo, "adapter_config.json", revision=revision):
        from peft import AutoPeftModelForCausalLM

        loader = AutoPeftModelForCausalLM
    tokenizer = AutoTokenizer.from_pretrained(repo, revision=revision)
    model = loader.from_pretrained(repo, revision=revision, use_safetensors=True)
    return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


LOADING = threading.Lock()
"""One model at a time: transformers imports its modules when they are first asked for, which threads must not share."""


class Stopped(Exception):
    """The visitor left, or asked for something else."""


class Answer(threading.Thread):
    """One student at work. Reading its fields at any time shows how far it is."""

    def __init__(
        self, repo: str, revision: str | None, messages: list[Row], options: Row, stop: threading.Event
    ):
        super().__init__(daemon=True)
        self.repo, self.revision, self.messages, self.options, self.stop = (
            repo,
            revision,
            messages,
            options,
            stop,
        )
        self.state, self.error, self.opened = "loading the model …", "", ""
        self.ids: list[int] = []
        self.started: float | None = None
        self.seconds = 0.0
        self.tokenizer: Any = None
        self.cut = False
        self._prompt = True

    def run(self) -> None:
        import torch

        try:
            with LOADING:
                self.tokenizer, model = load_student(self.repo, self.revision)
            inputs = self.tokenizer.apply_chat_template(
                self.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            ).to(model.device)
            prompt = self.tokenizer.decode(inputs["input_ids"][0][-8:])
            self.opened = "<think>" if prompt.rstrip().endswith("<think>") else ""
            self.state, self.started = "answering …", time.monotonic()
            with torch.inference_mode():
                model.generate(**inputs, **self.options, streamer=self)
            ends = model.generation_config.eos_token_id
            ends = set(ends) if isinstance(ends, list) else {ends}
            self.cut = not self.ids or self.ids[-1] not in ends
            self.state = ""
        except Stopped:
            self.state = "stopped"
        except Exception as error:  # whatever a stranger's model does, the page goes on
            self.state, self.error = "failed", str(error)[:400]

    # What `generate` asks of a streamer.
    def put(self, value: Any) -> None:
        if self.stop.is_set():
            raise Stopped
        if self._prompt:
            self._prompt = False
            return
        self.ids += value.reshape(-1).tolist()
        self.seconds = time.monotonic() - (self.started or 0)

    def end(self) -> None:
        pass

    def row(self, name: str, about: Row) -> Row:
        text = self.tokenizer.decode(list(self.ids), skip_special_tokens=True) if self.ids else ""
        reason = "length" if self.cut and not self.state else "stop"
        got = {"output": self.opened + text, "output_tokens": len(self.ids), "finish_reason": reason}
        return {**about, "student": name, "correct": None, **got}


NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")


def number_of(text: str) -> Fraction | None:
    try:
        return Fraction(text.replace(",", "").strip().rstrip("."))
    except (ValueError, ZeroDivisionError):
        return None


def same_answer(solution: str, known: str) -> bool | None:
    """Whether a solution ends in the known answer, as a number or as text; None where it gives none."""
    if not solution.strip() or not known.strip():
        return None
    boxed = re.findall(r"\\boxed\{([^{}]*)\}", solution)
    wanted = number_of(known.strip(" $"))
    if wanted is not None:
        numbers = NUMBER.findall(boxed[-1] if boxed else solution)
        return bool(numbers) and number_of(numbers[-1]) == wanted
    last = boxed[-1] if boxed else solution.strip().splitlines()[-1]
    return " ".join(known.casefold().split()).strip(" .$") == " ".join(last.casefold().split()).strip(" .$")


def ask(
    release: Row,
    data: Evaluations,
    text: str,
    known: str,
    chosen: list[str],
    heat: float,
    top_p: float,
    limit: float,
) -> Iterator[str]:
    """Students answer a visitor's problem, all at once; yields their cards as the tokens come."""
    text = text.strip()[:LONGEST_QUESTION]
    chosen = [name for name in chosen if name in release["models"]][:MOST_LIVE]
    if not text or not chosen:
        yield '<p class="note">Write a problem and choose at least one student.</p>'
        return
    system = [{"role": "system", "content": release["system"]}] if release.get("system") else []
    messages = [*system, {"role": "user", "content": text}]
    options: Row = {"max_new_tokens": int(min(max(limit, 1), MOST_TOKENS)), "do_sample": heat > 0}
    if heat > 0:
        options |= {"temperature": float(heat), "top_p": float(min(max(top_p, 0.01), 1)), "top_k": 0}
    stop = threading.Event()
    revisions = release.get("revisions", {})
    at_work = {
        name: Answer(release["models"][name], revisions.get(name), messages, options, stop) for name in chosen
    }

    def cards() -> str:
        parts = []
        for name, answer in at_work.items():
            row = answer.row(name, data.students[name])
            pace = f'<span class="badge">{answer.seconds:.1f} s</span>'
            if answer.state:
                pace += f'<span class="badge">{esc(answer.state)} {esc(answer.error)}</span>'
            else:
                found = same_answer(split(row["output"])[1], known)
                if found is not None:
                    words_ = "matches the known answer" if found else "is not the known answer"
                    pace += f'<span class="badge {"yes" if found else "no"}">{words_}</span>'
            parts.append(card(data, row, note=pace, waiting=bool(answer.state)))
        return f'{MATHS}<div><div class="side">{"".join(parts)}</div></div>'

    try:
        for answer in at_work.values():
            answer.start()
        while any(answer.is_alive() for answer in at_work.values()):
            yield cards()
            time.sleep(0.15)
        yield cards()
    finally:
        stop.set()


if os.environ.get("SPACES_ZERO_GPU"):
    ask = spaces.GPU(duration=120)(ask)


# Blind votes.


@functools.lru_cache(maxsize=1)
def ballot_box() -> tuple[Path, threading.Lock] | None:
    """Where votes go: a dataset of the owner's, committed now and then. None where the owner names none."""
    name = os.environ.get("HUBKIT_VOTES")
    if not name:
        return None
    from huggingface_hub import CommitScheduler

    folder = Path(tempfile.mkdtemp(prefix="votes-"))
    minutes = float(os.environ.get("HUBKIT_VOTES_EVERY", "5"))
    scheduler = CommitScheduler(
        repo_id=name, repo_type="dataset", folder_path=folder, path_in_repo="data", every=minutes
    )
    # A file of this process alone: several replicas then never write the same one.
    return folder / f"votes-{os.getpid()}-{random.getrandbits(32):08x}.jsonl", scheduler.lock


def draw_pair(data: Evaluations, view: View) -> Row | None:
    """Two outputs of different variants to one problem, in random order."""
    found, students = find(data, view)
    for _ in range(50):
        if not found or len(students) < 2:
            return None
        problem = random.choice(found)  # noqa: S311
        a, b = random.sample(students, 2)
        if data.there[problem, a] and data.there[problem, b] and data.kind(a) != data.kind(b):
            return {"problem": data.keys[problem], "a": data.names[a], "b": data.names[b]}
    return None


def blind_view(data: Evaluations, pair: Row | None, vote: str = "") -> str:
    if pair is None:
        return '<p class="note">Two students of different variants are needed; widen the filters of the first tab.</p>'
    number = data.at[pair["problem"]]
    cards = ""
    for side in ("a", "b"):
        (row,) = data.outputs(number, [data.names.index(pair[side])])
        cards += card(data, row, name="" if vote else f"Student {side.upper()}")
    said = {"a": "You preferred A.", "b": "You preferred B.", "same": "You saw no difference."}.get(vote, "")
    note = f'<p class="note">{said}</p>' if said else ""
    return f'{MATHS}<div>{question(data.problem(number))}{note}<div class="side">{cards}</div></div>'


def cast(data: Evaluations, vote: str, pair: Row | None, tally: Row) -> tuple[str, Row | None, Row, str]:
    """Keep a vote, and show who was who."""
    if pair is None or pair.get("vote"):
        return blind_view(data, pair, (pair or {}).get("vote", "")), pair, tally, tally_text(tally)
    pair = pair | {"vote": vote}
    kinds = [str(data.students[pair[side]]["variant"] or "untrained") for side in ("a", "b")]
    tally = {key: dict(value) for key, value in tally.items()}
    for side, kind in zip(("a", "b"), kinds, strict=True):
        row = tally.setdefault(kind, {"won": 0, "same": 0, "lost": 0})
        row["same" if vote == "same" else "won" if vote == side else "lost"] += 1
    box = ballot_box()
    if box is not None:
        path, lock = box
        line = json.dumps({**pair, "variants": kinds, "time": int(time.time())})
        with lock, path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    return blind_view(data, pair, vote), pair, tally, tally_text(tally)


def tally_text(tally: Row) -> str:
    where = (
        "Votes are kept in a dataset of this Space's owner." if ballot_box() else "Votes stay in this window."
    )
    if not tally:
        return f'<p class="note">{where}</p>'
    rows = [[(esc(k), k), *((str(v[n]), v[n]) for n in ("won", "same", "lost"))] for k, v in tally.items()]
    return grid(["variant", "won", "no difference", "lost"], rows) + f'<p class="note">{where}</p>'


# The page: one function per tab. Each gives what an address sets in it: components, and their values for a query.

Opening = tuple[list[Any], Callable[[dict[str, str]], list[Any]]]
QUIET: Row = {"show_progress": "hidden", "trigger_mode": "always_last"}
EACH: Row = {"show_progress": "hidden", "trigger_mode": "multiple"}
"""For steps: each press of a key counts, also while the one before is on its way."""


def saver(button: Any, export: Callable[..., str], given: list[Any], name: str) -> None:
    """A button that saves text made here as a file of the visitor's."""
    text = gr.Textbox(visible=False)
    made = button.click(export, given, text, show_progress="hidden")
    made.then(None, text, js=f"t => compare.save('{name}', t, 'application/json')")


def buttons(elem_id: str, *labels: str) -> list[Any]:
    """Small buttons in a row; the arrow keys press .previous and .next."""
    with gr.Row(elem_id=elem_id):
        return [
            gr.Button(text, size="sm", min_width=90, elem_classes=re.sub(r"\W", "", text).lower())
            for text in labels
        ]


def filter_boxes(data: Evaluations) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """What chooses problems and students, by its name in the address; and the values that each may have."""
    students = list(data.students.values())
    allowed = {"benchmark": list(dict.fromkeys(data.benchmark))}
    for name in ("base", "variant", "method", "seed", "teacher"):
        allowed[name] = list(dict.fromkeys(str(row[name]) for row in students if row[name] is not None))
    if any(row["variant"] is None for row in students):
        allowed["variant"].append("untrained")
    boxes: dict[str, Any] = {"p": gr.State(data.keys[0] if data.keys else "")}
    with gr.Row():
        boxes["q"] = gr.Textbox(label="Search", scale=3, min_width=180, elem_id="search")
        for name, texts in (("show", SHOW), ("sort", SORT)):
            choices = [(text, key) for key, text in texts.items()]
            label = {"show": "Show", "sort": "Order"}[name]
            boxes[name] = gr.Dropdown(choices, value=choices[0][1], label=label, scale=2, min_width=180)
    with gr.Accordion("Filters", open=False):
        with gr.Row():
            for name, values in allowed.items():
                boxes[name] = gr.CheckboxGroup(
                    values, label=name.capitalize(), elem_id=f"filter-{name}", visible=len(values) > 1
                )
        with gr.Row():
            for name, label in (("students", "Only these students"), ("right", "Right"), ("wrong", "Wrong")):
                allowed[name] = data.names
                boxes[name] = gr.Dropdown(
                    data.names, value=[], multiselect=True, label=label, scale=2, min_width=190
                )
            boxes["least"] = gr.Number(None, label="Mean tokens from", min_width=110)
            boxes["most"] = gr.Number(None, label="to", min_width=110)
    return {part.name: boxes[part.name] for part in fields(View)}, allowed


def compare_tab(release: Row, data: Evaluations) -> tuple[list[Any], Opening]:
    """Problems, and what the students answered. Also gives the filters, which the blind votes use."""
    boxes, allowed = filter_boxes(data)
    chosen = list(boxes.values())
    start = View(p=data.keys[0] if data.keys else "")
    listing = gr.HTML(problem_list(data, start), elem_id="list", js_on_load=LIST_JS)
    back, on, lucky, as_json, as_png = buttons(
        "compare-move", "← Previous", "Next →", "Random", "Save JSON", "Save PNG"
    )
    side = gr.Markdown(
        comparison(data, start), elem_id="side", sanitize_html=False, latex_delimiters=DELIMITERS
    )
    seen = [boxes["p"], listing, side]

    def draw(view: View) -> list[Any]:
        """The problem that is shown stays where the filters still have it; else the first takes its place."""
        found, _ = find(data, view)
        if found and data.at.get(view.p) not in found:
            view.p = data.keys[found[0]]
        return [view.p, problem_list(data, view), comparison(data, view)]

    def move(by: int | None, *given: Any) -> list[Any]:
        view = View.of(given)
        found, _ = find(data, view)
        here = data.at.get(view.p, -1)
        if found and by is None:
            view.p = data.keys[random.choice(found)]  # noqa: S311
        elif here in found:
            view.p = data.keys[found[min(max(found.index(here) + (by or 0), 0), len(found) - 1)]]
        return draw(view)

    def select(event: gr.EventData, *given: Any) -> list[Any]:
        view, hit = View.of(given), event._data
        if hit.get("key") in data.at:
            view.p = hit["key"]
            return [view.p, problem_list(data, view), comparison(data, view)]
        return [gr.skip(), problem_list(data, view, int(hit.get("page") or 0)), gr.skip()]

    def export(*given: Any) -> str:
        view = View.of(given)
        found = data.outputs(data.at.get(view.p, 0), chosen_students(data, view))
        about = {"release": release.get("recipe"), "evals": release["evals"], "view": asdict(view)}
        return json.dumps({**about, "outputs": found}, indent=2, ensure_ascii=False)

    for box in chosen[1:]:
        # What is pasted is no `input` of a text box.
        (box.change if box is boxes["q"] else box.input)(
            lambda *given: draw(View.of(given)), chosen, seen, **QUIET
        )
    listing.select(select, chosen, seen, **EACH)
    for button, by in ((back, -1), (on, 1), (lucky, None)):
        button.click(functools.partial(move, by), chosen, seen, **EACH)
    saver(as_json, export, chosen, "comparison.json")
    as_png.click(None, js="() => compare.png('#side', 'comparison.png')")

    def opened(query: dict[str, str]) -> list[Any]:
        view = View.read(query, allowed)
        found, _ = find(data, view)
        if view.p not in data.at:
            view.p = data.keys[found[0]] if found else start.p
        return [*view.values(), problem_list(data, view), comparison(data, view)]

    return chosen, ([*chosen, listing, side], opened)


def traces_tab(tab: Any, release: Row, data: Evaluations) -> Opening:
    """Traces of the training problems. They load when the tab is opened first: they are the bulk of a release."""
    repos: dict[str, str] = release["traces"]
    first = next(iter(repos.values()))
    orders = {
        "order": "As published",
        "saved": "Most tokens saved",
        "share": "Shortest share of raw",
        "least": "Least compressed",
    }
    key = gr.State("")
    with gr.Row():
        repo = gr.Dropdown(
            list(repos.items()), value=first, label="Teacher", visible=len(repos) > 1, min_width=160
        )
        config = gr.Dropdown([], label="Against", allow_custom_value=True, min_width=220, elem_id="against")
        text = gr.Textbox(label="Search", scale=2, min_width=150)
        sort = gr.Dropdown([(v, k) for k, v in orders.items()], value="order", label="Order", min_width=180)
    listing = gr.HTML("<p class='note'>Loading the traces …</p>", elem_id="trace-list", js_on_load=LIST_JS)
    back, on, as_json, as_png = buttons("trace-move", "← Previous", "Next →", "Save JSON", "Save PNG")
    view = gr.HTML(elem_id="trace")
    asked = [key, repo, config, text, sort]
    seen = [key, config, listing, view]

    def load(name: str) -> Traces:
        name = name if name in repos.values() else first
        return traces_of(name, release.get("trace_revisions", {}).get(name))

    def draw(by: int, page: int | None, now: str, name: str, against: str, q: str, by_what: str) -> list[Any]:
        traces = load(name)
        others = [other for other in traces.configs if other != "raw"] or ["raw"]
        against = against if against in others else others[0]
        found = [traces.keys[number] for number in find_traces(traces, against, q or "", by_what)]
        if found and now not in found:
            now = found[0]
        elif found:
            now = found[min(max(found.index(now) + by, 0), len(found) - 1)]
        table = trace_list(data, traces, against, q or "", by_what, now, page)
        return [
            now,
            gr.Dropdown(choices=others, value=against),
            table,
            trace_view(data, traces, against, now),
        ]

    def select(event: gr.EventData, now: str, *rest: Any) -> list[Any]:
        page = event._data.get("page")
        return draw(0, None if page is None else int(page), event._data.get("key") or now, *rest)

    def export(now: str, name: str, *_: Any) -> str:
        traces = load(name)
        forms = {config: row for config in traces.configs if (row := traces.row(config, now))}
        return json.dumps({"dataset": name, "traces": forms}, indent=2, ensure_ascii=False)

    stay = functools.partial(draw, 0, None)
    tab.select(stay, asked, seen)
    for box in asked[1:]:
        (box.change if box is text else box.input)(stay, asked, seen, **QUIET)
    for button, by in ((back, -1), (on, 1)):
        button.click(functools.partial(draw, by, None), asked, seen, **EACH)
    listing.select(select, asked, seen, **EACH)
    saver(as_json, export, asked, "trace.json")
    as_png.click(None, js="() => compare.png('#trace', 'trace.png')")

    def opened(query: dict[str, str]) -> list[Any]:
        by_what = query.get("ts") if query.get("ts") in orders else "order"
        return [query.get("t", ""), query.get("tc", ""), query.get("tq", "")[:200], by_what]

    return [key, config, text, sort], opened


def blind_tab(tab: Any, data: Evaluations, chosen: list[Any]) -> None:
    gr.HTML(
        "<p class='note'>Two students answered the same problem. Which answer is better? Names, lengths and verdicts "
        "come after the vote. The first tab’s filters choose problems and students.</p>"
    )
    pair, tally = gr.State(None), gr.State({})
    with gr.Row():
        votes = {
            vote: gr.Button(text, min_width=110)
            for vote, text in (("a", "A is better"), ("same", "No difference"), ("b", "B is better"))
        }
        again = gr.Button("Next pair", variant="primary", min_width=110)
    blind = gr.Markdown(elem_id="blind", sanitize_html=False, latex_delimiters=DELIMITERS)
    score = gr.HTML(tally_text({}), elem_id="score")

    def next_pair(*given: Any) -> list[Any]:
        found = draw_pair(data, View.of(given))
        return [found, blind_view(data, found)]

    def first_pair(now: Row | None, *given: Any) -> list[Any]:
        return [gr.skip(), gr.skip()] if now else next_pair(*given)

    again.click(next_pair, chosen, [pair, blind], show_progress="hidden")
    tab.select(first_pair, [pair, *chosen], [pair, blind], show_progress="hidden")
    for vote, button in votes.items():
        count = functools.partial(cast, data, vote)
        button.click(count, [pair, tally], [blind, pair, tally, score], show_progress="hidden")


def ask_tab(release: Row, data: Evaluations) -> None:
    kinds = ", ".join(dict.fromkeys(data.benchmark))
    gr.HTML(
        "<p class='note'>The students load from the Hub and answer here, side by side. They know only the kind of "
        f"problem that they were trained on ({esc(kinds)}); anything else gets an answer too, often a wrong one.</p>"
    )
    every = max(1, len(data.keys) // 6)
    samples = [data.problem(number) for number in range(0, len(data.keys), every)][:6]
    first = samples[0] if samples else {"problem": "", "answer": ""}
    students = [name for name in data.names if name in release["models"]]
    pairs = data.pairs([data.names.index(name) for name in students])
    two = (
        [data.names[n] for n in pairs[0]]
        if pairs
        else [n for n in students if data.students[n]["variant"]][:2]
    )
    most = min(int(release.get("max_new_tokens", 512)), MOST_TOKENS)
    label = "Problem (Enter sends, Shift+Enter starts a line)"
    own = gr.Textbox(
        first["problem"], label=label, lines=1, max_lines=8, max_length=LONGEST_QUESTION, elem_id="question"
    )
    with gr.Row():
        known = gr.Textbox(first["answer"], label="Known answer, to check against", min_width=160)
        label = f"Students (at most {MOST_LIVE})"
        who = gr.Dropdown(
            students, value=two, multiselect=True, max_choices=MOST_LIVE, label=label, scale=3, min_width=220
        )
    with gr.Row():
        heat = gr.Slider(0, 1.5, value=0, step=0.05, label="Temperature (0: greedy)", min_width=140)
        top_p = gr.Slider(0.05, 1, value=1, step=0.05, label="top_p", min_width=140)
        limit = gr.Slider(1, max(most, 512), value=most, step=1, label="Max tokens", min_width=140)
    with gr.Row():
        go = gr.Button("Answer", variant="primary", elem_id="go", min_width=120)
        halt = gr.Button("Stop", min_width=120)
    live = gr.Markdown(elem_id="live", sanitize_html=False, latex_delimiters=DELIMITERS)
    gr.Examples(
        [[row["problem"], row["answer"]] for row in samples],
        [own, known],
        label="Problems of the benchmark, with their known answers",
        example_labels=[f"{data.brief(row['problem'])[:70]} ({row['answer'][:20]})" for row in samples],
    )
    answer = functools.partial(ask, release, data)
    asked = [own, known, who, heat, top_p, limit]
    running = gr.on([go.click, own.submit], answer, asked, live, concurrency_limit=1, show_progress="hidden")
    halt.click(None, cancels=[running])


def build(release: Row, data: Evaluations) -> gr.Blocks:
    """The page over one release."""
    title = f"{release.get('recipe') or release['evals']}: students side by side"
    openings: list[Opening] = []

    with gr.Blocks(title=title, analytics_enabled=False) as page:
        with gr.Row():
            gr.HTML(
                f"<h1 class='title'>{esc(title)}</h1><p class='note'>{esc(release.get('description', ''))}</p>"
                f"<p class='headline'>{esc(data.report.get('headline', ''))}</p>",
                min_width=200,
                scale=9,
            )
            theme = gr.Button("Light / dark", size="sm", scale=0, min_width=110)
            theme.click(None, js="() => compare.theme()")

        def tab(label: str) -> Any:
            name = label.lower()
            made = gr.Tab(label, id=name)
            made.select(None, js=f"() => compare.tab('{'' if name == 'compare' else name}')")
            return made

        with gr.Tabs(elem_id="tabs"):
            with tab("Compare"):
                chosen, opening = compare_tab(release, data)
                openings.append(opening)
            if release.get("traces"):
                with tab("Traces") as one:
                    openings.append(traces_tab(one, release, data))
            with tab("Results"):
                gr.HTML(results_page(data), elem_id="results")
                save = gr.Button("Save PNG", size="sm")
                save.click(None, js="() => compare.png('#results', 'results.png')")
            with tab("Blind") as one:
                blind_tab(one, data, chosen)
            if release.get("models"):
                with tab("Ask"):
                    ask_tab(release, data)

        def open_link(request: gr.Request) -> list[Any]:
            """The state that stands in the address; without one the page came with its start."""
            query = {k: v for k, v in dict(request.query_params).items() if not k.startswith("__")}
            if not query:
                return [gr.skip()] * len(set_by_link)
            return [value for _, opened in openings for value in opened(query)]

        set_by_link = [part for parts, _ in openings for part in parts]
        link = page.load(open_link, None, set_by_link, show_progress="hidden")
        link.then(None, js="() => compare.open()")  # a tab that opens looks at what was set
    return page


def main() -> None:
    release = settings()
    page = build(release, Evaluations(release))
    # A Space sets GRADIO_SERVER_NAME; anywhere else the page is for this machine alone.
    page.launch(
        server_name=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        share=False,
        css=CSS,
        head=f"<script>{JS}</script>",
        # Named fonts would be fetched from a font service.
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]).set(
            block_label_text_color="*neutral_800",
            block_title_text_color="*neutral_800",
            block_title_text_color_dark="*neutral_100",
            block_title_background_fill="none",
            block_title_background_fill_dark="none",
            block_title_padding="0",
            body_text_color_subdued="*neutral_600",
            body_text_color_subdued_dark="*neutral_300",
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_dark="*primary_600",
        ),
        footer_links=[],
        quiet=True,
    )


if __name__ == "__main__":
    main()
