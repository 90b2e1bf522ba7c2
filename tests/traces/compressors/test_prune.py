"""Pruning by a language model: what a reply may be, and what becomes of one that does more than leave words out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from compressing import RuleServer, compressing, outcome, real_traces
from hypothesis import given
from hypothesis import strategies as st

from hubkit.section import Sampling
from hubkit.traces.compressors import COMPRESSORS, prune
from hubkit.traces.compressors.prune import added_word
from hubkit.traces.compressors.replies import strip_answer

PROMPT = "Leave words out.\nProblem: {problem}\nReasoning:\n{reasoning}"


def config(**more: Any) -> dict[str, Any]:
    made = COMPRESSORS["prune"].model_validate(
        {"kind": "prune", "name": "c", "model": "org/m", "prompt": PROMPT, "sampling": Sampling(max_tokens=900)}
        | more
    )  # fmt: skip
    return made.identity()


def every_second_paragraph(prompt: str) -> str:
    """What an obedient model replies: the answer's box is the teacher's."""
    reasoning = prompt.partition("Reasoning:\n")[2]
    row = next(row for row in real_traces() if row["reasoning"] == reasoning)
    kept = "\n\n".join(re.split(r"\n\n", reasoning)[::2])
    return f"{kept}\n\\boxed{{{row['answer']}}}"


def test_what_is_kept_are_words_of_the_trace_and_no_others(tmp_path: Path) -> None:
    added = real_traces()[3]["problem"]

    def rule(prompt: str) -> str:
        reply = every_second_paragraph(prompt)
        return reply.replace(" the ", " this ", 1) if added in prompt else reply

    with RuleServer(rule) as server:
        step = compressing(tmp_path, config(attempts=2), server.endpoint)
        prune.run(step)
    kept, rejected = outcome(step)
    raw = {row["id"]: row for row in real_traces()}
    assert list(rejected) == ["math-335"] and len(kept) == 7
    assert rejected["math-335"]["reason"] == "not_a_deletion"
    assert rejected["math-335"]["detail"] == "the trace does not go on with 'this'"
    assert step.counts == {"kept": 7, "dropped_not_a_deletion": 1, "retries": 1}
    for id, row in kept.items():
        paragraphs = raw[id]["reasoning"].split("\n\n")
        assert row["reasoning"] == "\n\n".join(paragraphs[::2]).strip()
        assert row["solution"] == raw[id]["solution"] and 0 < row["ratio"] < 1


def test_a_reply_with_the_wrong_answer_is_no_pruning(tmp_path: Path) -> None:
    def rule(prompt: str) -> str:
        return every_second_paragraph(prompt).rpartition("\n")[0] + "\n\\boxed{4711}"

    with RuleServer(rule) as server:
        step = compressing(tmp_path, config(), server.endpoint)
        prune.run(step)
    assert step.counts == {"dropped_wrong": 8}


@given(st.lists(st.sampled_from(["the", "of", "47", "+", "=", "so"])), st.data())
def test_deletions_are_told_from_all_else(words: list[str], data: st.DataObject) -> None:
    left = [word for word in words if data.draw(st.booleans())]
    assert added_word(" ".join(words), "\n".join(left)) is None
    at = data.draw(st.integers(0, len(left)))
    assert added_word(" ".join(words), " ".join([*left[:at], "new", *left[at:]])) == "new"


@pytest.mark.parametrize(
    ("text", "short", "added"),
    [
        ("a b c", "c a", "a"),
        ("a b", "a b b", "b"),
        ("47 + 38", "4738", "4738"),
        ("47 + 38", "47+38", "47+38"),
        ("a\n\nb", "a b", None),
        ("a b", "", None),
    ],
)
def test_order_and_number_of_words_count(text: str, short: str, added: str | None) -> None:
    assert added_word(text, short) == added


def test_the_box_is_no_part_of_what_is_compared() -> None:
    assert strip_answer("47 + 38 = 85\n\\boxed{85}") == "47 + 38 = 85"
