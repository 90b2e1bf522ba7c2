"""Asking the students: they load from the Hub and answer a visitor's problem side by side, token by token."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

if os.environ.get("SPACES_ZERO_GPU"):
    # The package is there on such hardware alone, and must come before torch.
    import spaces

import gradio as gr
from cards import card
from data import Evaluations, Row
from text import DELIMITERS, MATHS, badge, esc, note, split

MOST_LIVE = 4
"""Students that answer a visitor's own problem together: each is a model in memory."""
LONGEST_QUESTION = 4_000
LONGEST_NUMBER = 500
MOST_TOKENS = 4_096


@lru_cache(maxsize=MOST_LIVE)
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
        self,
        repo: str,
        revision: str | None,
        messages: list[Row],
        options: Row,
        stop: threading.Event,
        template: dict[str, str],
    ):
        super().__init__(daemon=True)
        self.repo, self.revision, self.messages, self.options, self.stop = (
            repo,
            revision,
            messages,
            options,
            stop,
        )
        self.template = template
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
                self.messages,
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
                **self.template,
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

    def row(self, about: Row) -> Row:
        text = self.tokenizer.decode(list(self.ids), skip_special_tokens=True) if self.ids else ""
        reason = "length" if self.cut and not self.state else "stop"
        got = {"output": self.opened + text, "output_tokens": len(self.ids), "finish_reason": reason}
        return {**about, "correct": None, **got}


NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
EXACT = re.compile(r"[+-]?(?:\d+(?:/\d+|\.\d*)?|\.\d+)(?:e[+-]?\d{1,3})?", re.IGNORECASE)
"""What is read as a number: a long exponent would be worked out digit by digit, while every visitor waits."""


def number_of(text: str) -> Fraction | None:
    plain = text.replace(",", "").strip().rstrip(".")
    if len(plain) > LONGEST_NUMBER or not EXACT.fullmatch(plain):
        return None
    try:
        return Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None


def same_answer(solution: str, known: str) -> bool | None:
    """Whether a solution ends in the known answer, as a number or as text; None where that cannot be told."""
    if not solution.strip() or not known.strip():
        return None
    boxed = re.findall(r"\\boxed\{([^{}]*)\}", solution)
    if len(boxed) < solution.count("\\boxed{"):  # \boxed{\frac{1}{2}}: only its verifier reads that
        return None
    wanted = number_of(known.strip(" $"))
    if wanted is not None:
        numbers = NUMBER.findall(boxed[-1] if boxed else solution)
        return number_of(numbers[-1]) == wanted if numbers else None
    last = boxed[-1] if boxed else solution.strip().splitlines()[-1]
    same = " ".join(known.casefold().split()).strip(" .$") == " ".join(last.casefold().split()).strip(" .$")
    return same or (False if boxed else None)  # in a sentence it may stand anywhere


def revision_of(release: Row, data: Evaluations, name: str) -> str | None:
    """The commit of the model that was evaluated under this name; None where release.json does not say."""
    student = data.students[name]["student"]
    return release.get("revisions", {}).get(student) or release.get("pinned", {}).get(student, {}).get(
        "revision"
    )


def repo_of(release: Row, data: Evaluations, name: str) -> str:
    """The model that answers under this name; "" where there is none."""
    about = data.students.get(name)
    return str(release["models"].get(about["student"], "")) if about else ""


def template_of(data: Evaluations, name: str) -> dict[str, str]:
    """What its chat template is given: the level of effort, of a mixture's student."""
    row = data.students[name]
    variable = data.variants[row["variant"] or "base"].get("variable")
    return {variable: row["level"]} if variable and row.get("level") else {}


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
    chosen = [name for name in chosen if repo_of(release, data, name)][:MOST_LIVE]
    if not text or not chosen:
        yield note("Write a problem and choose at least one student.")
        return
    system = [{"role": "system", "content": release["system"]}] if release.get("system") else []
    messages = [*system, {"role": "user", "content": text}]
    options: Row = {"max_new_tokens": int(min(max(limit, 1), MOST_TOKENS)), "do_sample": heat > 0}
    if heat > 0:
        options |= {"temperature": float(heat), "top_p": float(min(max(top_p, 0.01), 1)), "top_k": 0}
    stop = threading.Event()
    at_work = {
        name: Answer(
            repo_of(release, data, name),
            revision_of(release, data, name),
            messages,
            options,
            stop,
            template_of(data, name),
        )
        for name in chosen
    }

    def cards() -> str:
        parts = []
        for name, answer in at_work.items():
            row = answer.row(data.students[name])
            badges = badge(f"{answer.seconds:.1f} s")
            if answer.state:
                badges += badge(f"{esc(answer.state)} {esc(answer.error)}")
            else:
                found = same_answer(split(row["output"])[1], known)
                if found is not None:
                    said = "matches the known answer" if found else "is not the known answer"
                    badges += badge(said, "yes" if found else "no")
            parts.append(card(data, row, badges=badges, waiting=bool(answer.state)))
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


def seconds(text: str, known: str, chosen: list[str], heat: float, top_p: float, limit: float) -> int:
    """For how long a GPU is asked for: the less, the sooner it comes, and a visitor's day has few minutes."""
    return min(20 + int(min(max(limit, 1), MOST_TOKENS)) // 20, 120)


def asking(release: Row, data: Evaluations) -> Callable[..., Iterator[str]]:
    """`ask` over a release, for what a visitor sends.

    On ZeroGPU it runs in a process forked from this one, which has a GPU for the while. Arguments are pickled for
    it, so the release is none of them.
    """

    def answer(
        text: str, known: str, chosen: list[str], heat: float, top_p: float, limit: float
    ) -> Iterator[str]:
        yield from ask(release, data, text, known, chosen, heat, top_p, limit)

    return spaces.GPU(duration=seconds)(answer) if os.environ.get("SPACES_ZERO_GPU") else answer


def ask_tab(release: Row, data: Evaluations) -> None:
    kinds = ", ".join(dict.fromkeys(data.benchmark))
    gr.HTML(
        "<p class='note'>The students load from the Hub and answer here, side by side. They know only the kind of "
        f"problem that they were trained on ({esc(kinds)}); anything else gets an answer too, often a wrong one.</p>"
    )
    every = max(1, len(data.keys) // 6)
    samples = [data.problem(number) for number in range(0, len(data.keys), every)][:6]
    first = samples[0] if samples else {"problem": "", "answer": ""}
    students = [name for name in data.names if repo_of(release, data, name)]
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
            students,
            value=two,
            multiselect=True,
            max_choices=MOST_LIVE,
            label=label,
            scale=3,
            min_width=220,
            elem_id="who",
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
    asked = [own, known, who, heat, top_p, limit]
    running = gr.on(
        [go.click, own.submit],
        asking(release, data),
        asked,
        live,
        concurrency_limit=1,
        show_progress="hidden",
    )
    halt.click(None, cancels=[running])
