"""Students side by side: what they thought and answered, how accurate and how long they are.

    {"student": "s-raw-full", "problem": "47 + 38 = ?", "output": "<think>…</think>85", "correct": true, …}
        -> one card beside the cards of the other students for the same problem

Runs as a Space and locally. The evaluations are named by release.json beside this file, or by the environment
variable HUBKIT_EVALS; HF_ENDPOINT chooses the Hub. Everything from a dataset or a model is escaped before it is
shown. It imports nothing of hubkit, so that the Space needs these three files alone.
"""

from __future__ import annotations

import functools
import html
import json
import math
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

Row = dict[str, Any]

MOST_LIVE = 4
"""Students that answer a visitor's own problem together: each is a model in memory."""
LONGEST_QUESTION = 4_000
COLOURS = {"raw": "#0072b2", "compressed": "#d55e00", "truncated": "#009e73", "untrained": "#7d8590"}

CSS = """
.gradio-container { max-width: 1280px !important; margin: auto; }
.side {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: .9rem;
  align-items: start;
}
.card {
  border: 1px solid var(--border-color-primary); border-top: 4px solid var(--accent); border-radius:
  10px; padding: .8rem .9rem; background: var(--block-background-fill); min-width: 0;
}
.card h3 { margin: 0 0 .1rem; font-size: 1rem; overflow-wrap: anywhere; }
.card .meta, .note { color: var(--body-text-color); opacity: .75; font-size: .84rem; }
.card details { margin-top: .6rem; }
.card summary { cursor: pointer; font-size: .82rem; color: var(--body-text-color); opacity: .75; }
.text {
  white-space: pre-wrap; overflow-wrap: anywhere; font: .82rem/1.5 ui-monospace, SFMono-Regular,
  monospace; max-height: 22rem; overflow-y: auto; margin: .3rem 0 0; padding: .6rem; border-radius: 6px;
  background: var(--background-fill-secondary);
}
.solution { border-left: 3px solid var(--accent); }
.badge {
  display: inline-block; margin: .35rem .3rem 0 0; padding: .05rem .5rem; border-radius: 99px;
  font-size: .78rem; font-weight: 600; background: var(--background-fill-secondary); color:
  var(--body-text-color);
}
.badge.yes { background: #1a7f37; color: #fff; }
.badge.no { background: #b42318; color: #fff; }
.badge.cut { background: #9a6700; color: #fff; }
.question {
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 1.05rem; padding: .9rem 1rem;
  border-radius: 10px; border: 1px solid var(--border-color-primary); background: var(--block-background-fill);
}
.answer { margin-top: .5rem; font-size: .88rem; opacity: .8; }
.scroll { overflow-x: auto; }
table.results {
  border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums;
}
table.results th, table.results td {
  padding: .4rem .6rem; text-align: right; white-space: nowrap; border: 0;
  border-bottom: 1px solid var(--border-color-primary);
}
table.results th:first-child, table.results td:first-child { text-align: left; }
.dot {
  display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em; background:
  var(--accent);
}
svg.plot {
  width: 100%; max-width: 52rem; height: auto; display: block; margin: 0 auto .5rem; font-family:
  inherit;
}
svg.plot text { fill: var(--body-text-color); opacity: .75; font-size: 12px; }
svg.plot .grid { stroke: var(--border-color-primary); }
"""


def esc(value: Any) -> str:
    """Text for HTML. gr.HTML also reads ${…} and {{…}} as templates, so those characters are escaped too."""
    text = html.escape(str(value))
    return "".join(f"&#{ord(c)};" if c in "${}`\\" else c for c in text)


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


class Outputs:
    """The outputs of all students, read row by row from the dataset's files."""

    def __init__(self, evals: str, revision: str | None) -> None:
        from datasets import load_dataset

        self.rows = load_dataset(evals, "outputs", split="test", revision=revision)
        self.results: list[Row] = list(load_dataset(evals, "results", split="test", revision=revision))
        self.problems: dict[str, list[int]] = {}
        self.disagree: set[str] = set()
        keys = zip(self.rows["benchmark"], self.rows["id"], strict=True)
        for index, (benchmark, name) in enumerate(keys):
            self.problems.setdefault(f"{benchmark}/{name}", []).append(index)
        correct = list(self.rows["correct"])
        trained = [variant is not None for variant in self.rows["variant"]]
        for key, indices in self.problems.items():
            if len({correct[i] for i in indices if trained[i]}) > 1:
                self.disagree.add(key)

    def choices(self, only_disagree: bool) -> list[tuple[str, str]]:
        keys = [key for key in self.problems if not only_disagree or key in self.disagree]
        firsts = self.rows.select([self.problems[key][0] for key in keys])["problem"] if keys else []
        return [
            (f"{number}. {' '.join(text.split())[:90]}", key)
            for number, (key, text) in enumerate(zip(keys, firsts, strict=True), 1)
        ]

    def answers(self, key: str) -> list[Row]:
        return [self.rows[index] for index in self.problems.get(key, [])]


def split(output: str) -> tuple[str, str]:
    """Thinking text and solution of an output. A span that never closed has no solution."""
    head, closed, tail = output.partition("</think>")
    if closed:
        return head.replace("<think>", "", 1).strip(), tail.strip()
    if "<think>" in output:
        return output.partition("<think>")[2].strip(), ""
    return "", output.strip()


def colour(variant: str | None) -> str:
    return COLOURS.get((variant or "untrained").split("-")[0], COLOURS["untrained"])


def card(row: Row) -> str:
    """One student's output."""
    thinking, solution = split(row["output"])
    badges = ""
    if row.get("correct") is not None:
        badges += (
            '<span class="badge yes">correct</span>'
            if row["correct"]
            else '<span class="badge no">wrong</span>'
        )
    badges += f'<span class="badge">{esc(row["output_tokens"])} tokens</span>'
    if row["finish_reason"] == "length":
        badges += '<span class="badge cut">cut off</span>'
    about = " · ".join(
        esc(part) for part in (row["base"], row["variant"] or "untrained", row["method"]) if part
    )
    thought = (
        f'<details open><summary>thinking</summary><div class="text">{esc(thinking)}</div></details>'
        if thinking
        else ""
    )
    solved = esc(solution) if solution else "<em>no answer after the thinking</em>"
    return (
        f'<section class="card" style="--accent:{colour(row["variant"])}"><h3>{esc(row["student"])}</h3>'
        f'<div class="meta">{about}</div>{badges}{thought}<div class="text solution">{solved}</div></section>'
    )


def compare(
    outputs: Outputs, key: str | None, bases: list[str], variants: list[str], methods: list[str]
) -> str:
    """The chosen students' cards for one problem."""
    rows = outputs.answers(key or "")
    if not rows:
        return '<p class="note">Choose a problem.</p>'
    chosen = [
        row
        for row in rows
        if row["base"] in bases
        and (row["variant"] or "untrained") in variants
        and (row["method"] is None or row["method"] in methods)
    ]
    question = (
        f'<div class="question">{esc(rows[0]["problem"])}'
        f'<div class="answer">Known answer: <strong>{esc(rows[0]["answer"])}</strong></div></div>'
    )
    right = sum(bool(row["correct"]) for row in chosen)
    summary = f'<p class="note">{right} of {len(chosen)} shown are correct.</p>'
    cards = "".join(card(row) for row in chosen) or '<p class="note">No student fits this choice.</p>'
    return f'{question}{summary}<div class="side">{cards}</div>'


def results_table(rows: list[Row]) -> str:
    head = (
        "student",
        "benchmark",
        "accuracy",
        "95 % CI",
        "output tokens",
        "cut off",
        "accuracy per 1,000 tokens",
        "training tokens",
        "of raw",
    )

    def share(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f} %"

    body = ""
    for row in rows:
        cells = (
            row["benchmark"],
            share(row["accuracy"]),
            f"{share(row['ci_low'])} to {share(row['ci_high'])}",
            f"{row['mean_output_tokens']:,.1f}",
            share(row["cut_share"]),
            f"{row['accuracy_per_1000_tokens']:.3f}",
            "–" if row["train_tokens"] is None else f"{row['train_tokens']:,}",
            share(row["train_tokens_of_raw"]),
        )
        name = row["student"] if row["variant"] else f"{row['student']} (untrained)"
        first = f'<td style="--accent:{colour(row["variant"])}"><span class="dot"></span>{esc(name)}</td>'
        body += f"<tr>{first}{''.join(f'<td>{esc(cell)}</td>' for cell in cells)}</tr>"
    heads = "".join(f"<th>{esc(name)}</th>" for name in head)
    table = f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="results">{table}</table></div>'


def plot(rows: list[Row]) -> str:
    """Accuracy against mean output tokens (log scale), 95 % intervals, as SVG that follows the page's theme."""
    if not rows:
        return ""
    width, height, left, bottom, top = 760, 400, 56, 46, 16
    tokens = [max(row["mean_output_tokens"], 1.0) for row in rows]
    low, high = math.log10(min(tokens) * 0.8), math.log10(max(tokens) * 1.25)
    most = max(0.05, *(row["ci_high"] for row in rows)) * 1.05

    def x(value: float) -> float:
        return left + (math.log10(max(value, 1.0)) - low) / (high - low) * (width - left - 20)

    def y(value: float) -> float:
        return height - bottom - value / most * (height - bottom - top)

    parts = []
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if most / s <= 8)
    for number in range(int(most / step) + 1):
        at = y(number * step)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 20}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(
            f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{100 * number * step:.0f} %</text>'
        )
    ticks = [m * 10**e for e in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    for tick in ticks:
        if low <= math.log10(tick) <= high:
            parts.append(
                f'<text x="{x(tick):.1f}" y="{height - bottom + 18}" text-anchor="middle">{tick:,}</text>'
            )
    parts.append(
        f'<text x="{(left + width) / 2}" y="{height - 8}" text-anchor="middle">mean output tokens (log scale)</text>'
    )
    bases = list(dict.fromkeys(row["base"] for row in rows))
    for row, spent in zip(rows, tokens, strict=True):
        shade, at_x, at_y = colour(row["variant"]), x(spent), y(row["accuracy"])
        fill = "var(--background-fill-primary)" if row["method"] and "lora" in row["method"] else shade
        about = f"{row['student']}, {row['benchmark']}: {100 * row['accuracy']:.1f} %, {spent:.0f} tokens"
        line = f'x1="{at_x:.1f}" x2="{at_x:.1f}" y1="{y(row["ci_low"]):.1f}" y2="{y(row["ci_high"]):.1f}"'
        size = 5 + 2 * (bases.index(row["base"]) % 4)
        parts.append(
            f'<g><title>{esc(about)}</title><line {line} stroke="{shade}" stroke-width="1.5"/>'
            f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="{size}" fill="{fill}" stroke="{shade}" stroke-width="2"/></g>'
        )
    present = [
        name for name in COLOURS if any((r["variant"] or "untrained").split("-")[0] == name for r in rows)
    ]
    legend = "".join(
        f'<span style="--accent:{COLOURS[name]};margin-right:1rem"><span class="dot"></span>{name}</span>'
        for name in present
    )
    sizes = f"; larger circles are {esc(', '.join(bases[1:]))}" if len(bases) > 1 else ""
    return (
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Accuracy against mean output tokens">{"".join(parts)}</svg>'
        f'<p class="note" style="text-align:center">{legend}hollow: LoRA{sizes}</p>'
    )


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


_ONE_AT_A_TIME = threading.Lock()


def ask(release: Row, about: dict[str, Row], question: str, chosen: list[str]) -> Iterator[str]:
    """Let students answer a visitor's problem, greedily, one after the other; yields the cards so far."""
    import torch

    question = question.strip()[:LONGEST_QUESTION]
    chosen = [name for name in chosen if name in release["models"]][:MOST_LIVE]
    if not question or not chosen:
        yield '<p class="note">Write a problem and choose at least one student.</p>'
        return
    system = [{"role": "system", "content": release["system"]}] if release.get("system") else []
    messages = [*system, {"role": "user", "content": question}]
    limit = min(int(release.get("max_new_tokens", 512)), 2048)
    cards: list[str] = []
    for name in chosen:
        waiting = f'<p class="note">{esc(name)} is thinking …</p>'
        yield f'<div class="side">{"".join(cards)}{waiting}</div>'
        try:
            with _ONE_AT_A_TIME, torch.inference_mode():
                tokenizer, model = load_student(
                    release["models"][name], release.get("revisions", {}).get(name)
                )
                inputs = tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
                ).to(model.device)
                output = model.generate(**inputs, max_new_tokens=limit, do_sample=False)
        except (OSError, ValueError, RuntimeError) as error:
            cards.append(
                f'<section class="card"><h3>{esc(name)}</h3><p class="note">{esc(error)[:400]}</p></section>'
            )
            continue
        ids = output[0][inputs["input_ids"].shape[1] :]
        ended = bool(len(ids)) and int(ids[-1]) in _ends(model)
        row = {
            **about.get(name, {"base": "", "variant": None, "method": None}),
            "student": name,
            "output": tokenizer.decode(ids, skip_special_tokens=True),
            "output_tokens": len(ids),
            "finish_reason": "stop" if ended else "length",
            "correct": None,
        }
        cards.append(card(row))
    yield f'<div class="side">{"".join(cards)}</div>'


def _ends(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends}


def build(release: Row, outputs: Outputs) -> gr.Blocks:
    """The page."""
    results = outputs.results
    bases = list(dict.fromkeys(row["base"] for row in results))
    variants = list(dict.fromkeys(row["variant"] or "untrained" for row in results))
    methods = list(dict.fromkeys(row["method"] for row in results if row["method"]))
    choices = outputs.choices(False)
    first = choices[0][1] if choices else None
    shown = [variant for variant in variants if variant != "untrained"] or variants
    name = release.get("recipe") or release["evals"]
    view: Callable[..., str] = functools.partial(compare, outputs)

    with gr.Blocks(title=f"{name}: students side by side", analytics_enabled=False) as page:
        gr.HTML(
            f"<h1 style='margin:0'>{esc(name)}: students side by side</h1>"
            f"<p class='note'>{esc(release.get('description', ''))} Outputs: {esc(release['evals'])}.</p>"
        )
        with gr.Tab("Compare"):
            with gr.Row():
                problem = gr.Dropdown(choices, value=first, label="Problem", scale=5, elem_id="problem")
                another = gr.Button("Random problem", scale=1, min_width=100, elem_id="another")
            with gr.Row():
                disagree = gr.Checkbox(False, label="Only problems on which students disagree")
                base = gr.CheckboxGroup(bases, value=bases, label="Base")
                variant = gr.CheckboxGroup(variants, value=shown, label="Variant", elem_id="variant")
                method = gr.CheckboxGroup(methods, value=methods, label="Method")
            wanted = [problem, base, variant, method]
            side = gr.HTML(view(first, bases, shown, methods), elem_id="side")
            gr.on([problem.change, base.change, variant.change, method.change], view, wanted, side)

            def narrow(only: bool) -> Any:
                found = outputs.choices(only)
                return gr.Dropdown(choices=found, value=found[0][1] if found else None)

            disagree.change(narrow, disagree, problem)

            def pick(only: bool) -> str | None:
                keys = [key for key in outputs.problems if not only or key in outputs.disagree]
                return random.choice(keys) if keys else None  # noqa: S311

            another.click(pick, disagree, problem)
        with gr.Tab("Results"):
            gr.HTML(plot(results) + results_table(results), elem_id="results")
        if release.get("models"):
            about = {row["student"]: row for row in results}
            students = [student for student in about if student in release["models"]]
            with gr.Tab("Ask your own"):
                gr.HTML(
                    "<p class='note'>The students load from the Hub and answer here, one after the other. They know "
                    "only the kind of problem that they were trained on.</p>"
                )
                start = "" if first is None else outputs.answers(first)[0]["problem"]
                question = gr.Textbox(
                    start, label="Problem", lines=3, max_length=LONGEST_QUESTION, elem_id="question"
                )
                who = gr.Dropdown(
                    students,
                    value=[student for student in students if about[student]["variant"]][:2],
                    multiselect=True,
                    max_choices=MOST_LIVE,
                    label=f"Students (at most {MOST_LIVE})",
                )
                go = gr.Button("Answer", variant="primary", elem_id="go")
                live = gr.HTML(elem_id="live")
                go.click(functools.partial(ask, release, about), [question, who], live, concurrency_limit=1)
    return page


def main() -> None:
    release = settings()
    page = build(release, Outputs(release["evals"], release.get("revision")))
    # A Space sets GRADIO_SERVER_NAME; anywhere else the page is for this machine alone.
    page.launch(
        server_name=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        share=False,
        css=CSS,
        # Named fonts would be fetched from a font service.
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        footer_links=[],
        quiet=True,
    )


if __name__ == "__main__":
    main()
