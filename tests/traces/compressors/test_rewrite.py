"""Rewriting of real traces: part by part, at a length, and together with the solution; by a server that has rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compressing import TOKENIZER, RuleServer, compressing, outcome, real_traces
from pydantic import ValidationError

from hubkit.section import Sampling
from hubkit.store import StepContext
from hubkit.traces.compressors import COMPRESSORS, prune, rewrite
from hubkit.traces.lengths import count_tokens, load_tokenizer
from hubkit.traces.steps import chunks, final_line, steps_of

WHOLE = "Shorten.\nProblem: {problem}\nReasoning:\n{reasoning}"
PARTS = "Shorten part {part} of {parts}.\nBefore:\n{before}\nReasoning:\n{reasoning}\nProblem: {problem}"
ANSWERS = {row["problem"]: row["answer"] for row in real_traces()}


def config(kind: str = "rewrite", prompt: str = WHOLE, **more: Any) -> dict[str, Any]:
    given = {
        "kind": kind,
        "name": "c",
        "model": "org/m",
        "prompt": prompt,
        "sampling": Sampling(max_tokens=900),
    }
    return COMPRESSORS[kind].model_validate(given | more).identity()


def run(folder: Path, rule: Callable[[str], str], made: dict[str, Any]) -> tuple[StepContext, RuleServer]:
    with RuleServer(rule) as server:
        step = compressing(folder, made, server.endpoint)
        (prune if made.get("kind") == "prune" else rewrite).run(step)
    return step, server


def test_a_long_trace_is_rewritten_part_by_part_and_the_whole_is_judged(tmp_path: Path) -> None:
    spoilt = real_traces()[1]["problem"]

    def rule(prompt: str) -> str:
        """The first step of each part; the box after the last part, a wrong one for one problem."""
        number, of = map(int, re.findall(r"part (\d+) of (\d+)", prompt)[0])
        reasoning = prompt.partition("Reasoning:\n")[2].rpartition("\nProblem:")[0]
        problem = prompt.rpartition("Problem: ")[2]
        answer = "4711" if problem == spoilt else ANSWERS[problem]
        return steps_of(reasoning)[0].strip() + (f"\n\\boxed{{{answer}}}" if number == of else "")

    step, server = run(tmp_path, rule, config(prompt=PARTS, chunk_tokens=150, attempts=2))
    kept, rejected = outcome(step)
    assert [row["problem"] for row in real_traces() if row["id"] in rejected] == [spoilt]
    assert step.counts == {"kept": 7, "dropped_wrong": 1, "retries": 1}
    tokenizer, asked = load_tokenizer(TOKENIZER), [r["messages"][-1]["content"] for r in server.requests]
    for row in real_traces():
        parts = chunks(tokenizer, row["reasoning"], 150)
        firsts = [steps_of(part)[0].strip() for part in parts]
        mine = [text for text in asked if text.endswith(f"Problem: {row['problem']}")]
        about = {"parts": len(parts), "problem": row["problem"]}
        expected = [
            PARTS.format(part=n + 1, before="\n\n".join(firsts[:n]), reasoning=part, **about)
            for n, part in enumerate(parts)
        ]
        assert len(parts) > 2
        assert mine == expected * (2 if row["problem"] == spoilt else 1), (
            "each beside what was made of those before"
        )
        if row["id"] in kept:
            assert kept[row["id"]]["reasoning"] == "\n\n".join(firsts)


def test_a_part_that_is_cut_off_ends_the_attempt(tmp_path: Path) -> None:
    class Cutting(RuleServer):
        def _answer(self, text: str) -> dict[str, Any]:
            made = super()._answer(text)
            if "part 2 of" in text:
                made["choices"][0]["finish_reason"] = "length"
            return made

    with Cutting(lambda prompt: "So.") as server:
        step = compressing(tmp_path, config(prompt=PARTS, chunk_tokens=150), server.endpoint)
        rewrite.run(step)
    assert step.counts == {"dropped_length": 8}
    assert not any("part 3 of" in request["messages"][-1]["content"] for request in server.requests)


def test_of_the_valid_attempts_the_one_nearest_to_the_length_is_taken(tmp_path: Path) -> None:
    """Attempts of 10, 60 and 30 words where 30 % are some 70 to 100: none is near, the second is nearest."""
    tries: dict[str, int] = {}

    def rule(prompt: str) -> str:
        words, problem = (
            re.findall(r"in (\d+) words", prompt)[0],
            prompt.partition("Problem: ")[2].partition("\n")[0],
        )
        tries[problem] = tries.get(problem, 0) + 1
        number = [0.1, 0.6, 0.3][(tries[problem] - 1) % 3] * int(words)
        return "so " * round(number) + f"\n\\boxed{{{ANSWERS[problem]}}}"

    prompt = "Shorten in {words} words.\nProblem: {problem}\nReasoning:\n{reasoning}"
    step, server = run(tmp_path, rule, config(prompt=prompt, ratio=0.3, attempts=3))
    kept, _ = outcome(step)
    assert len(kept) == 8 and len(server.requests) == 24
    asked = [request["messages"][-1]["content"] for request in server.requests]
    for row in real_traces():
        words = round(0.3 * len(row["reasoning"].split()))
        assert any(f"in {words} words" in text and row["problem"] in text for text in asked)
        made = kept[row["id"]]["reasoning"]
        attempts = [" ".join(["so"] * round(share * words)) for share in (0.1, 0.6, 0.3)]
        lengths = count_tokens(TOKENIZER, attempts)
        target = 0.3 * row["raw_reasoning_tokens"]
        nearest = min(zip(attempts, lengths, strict=True), key=lambda pair: abs(pair[1] - target))
        assert made == nearest[0]


def test_an_attempt_near_the_length_is_the_last(tmp_path: Path) -> None:
    def rule(prompt: str) -> str:
        row = next(row for row in real_traces() if row["problem"] in prompt)
        text, target = "", 0.5 * row["raw_reasoning_tokens"]
        while count_tokens(TOKENIZER, [text])[0] < target:
            text += " so"
        return f"{text.strip()}\n\\boxed{{{row['answer']}}}"

    step, server = run(tmp_path, rule, config(prompt=f"{{words}} words. {WHOLE}", ratio=0.5, attempts=3))
    assert step.counts == {"kept": 8, "retries": 0} and len(server.requests) == 8


def test_reasoning_and_solution_are_shortened_together_and_the_solution_is_judged(tmp_path: Path) -> None:
    first, second = (row["problem"] for row in real_traces()[:2])

    def rule(prompt: str) -> str:
        row = next(row for row in real_traces() if row["problem"] in prompt)
        short = steps_of(row["reasoning"])[0].strip()
        if row["problem"] == first:
            return f"{short}\n\\boxed{{{row['answer']}}}"
        box = "4711" if row["problem"] == second else row["answer"]
        return f"{short}\n\n**Solution:**\nIt is \\boxed{{{box}}}."

    prompt = f"{WHOLE}\nSolution given:\n{{solution}}"
    step, _ = run(tmp_path, rule, config(prompt=prompt, solution="shorten"))
    kept, rejected = outcome(step)
    raw = {row["id"]: row for row in real_traces()}
    assert step.counts == {"kept": 6, "dropped_no_solution": 1, "dropped_wrong": 1} and len(rejected) == 2
    for id, row in kept.items():
        assert row["solution"] == f"It is \\boxed{{{raw[id]['answer']}}}."
        assert row["messages"][1]["content"] == f"<think>\n{row['reasoning']}\n</think>\n\n{row['solution']}"
    assert step.metrics["solution_tokens"] == sum(
        count_tokens(TOKENIZER, [r["solution"] for r in kept.values()])
    )
    before = sum(count_tokens(TOKENIZER, [raw[id]["solution"] for id in kept]))
    assert step.metrics["raw_solution_tokens"] == before


def test_a_solution_is_cut_to_its_final_line_and_verified_again(tmp_path: Path) -> None:
    def rule(prompt: str) -> str:
        return f"So.\n\\boxed{{{ANSWERS[prompt.partition('Problem: ')[2].partition(chr(10))[0]]}}}"

    step, _ = run(tmp_path, rule, config(solution="final-line"))
    kept, _ = outcome(step)
    raw = {row["id"]: row for row in real_traces()}
    assert len(kept) == 8
    for id, row in kept.items():
        assert row["solution"] == final_line(raw[id]["solution"]) and "\\boxed" in row["solution"]
        assert len(row["solution"]) < len(raw[id]["solution"])


def test_a_pruned_solution_may_have_no_new_words(tmp_path: Path) -> None:
    def rule(prompt: str) -> str:
        row = next(row for row in real_traces() if row["problem"] in prompt)
        return f"{steps_of(row['reasoning'])[0]}\nSolution:\nIt is \\boxed{{{row['answer']}}}."

    prompt = f"{WHOLE}\nSolution given:\n{{solution}}"
    step, _ = run(tmp_path, rule, config("prune", prompt, solution="shorten"))
    assert step.counts == {"dropped_not_a_deletion": 8}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ratio": 0.2}, r"has no \{words\}"),
        ({"prompt": f"{{words}} {WHOLE}"}, r"has a \{words\}"),
        ({"solution": "shorten"}, r"has no \{solution\}"),
        ({"chunk_tokens": 100}, r"\{before\} in the prompt and `chunk_tokens` go together"),
        ({"prompt": PARTS}, r"\{before\} in the prompt and `chunk_tokens` go together"),
        ({"prompt": "Shorten."}, r"no \{reasoning\}"),
        ({"prompt": PARTS + "{solution}", "chunk_tokens": 9, "solution": "shorten"}, "use final-line"),
        ({"ratio": 1.5}, "less than 1"),
    ],
)
def test_keys_and_placeholders_go_together(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**{"prompt": WHOLE} | more)
