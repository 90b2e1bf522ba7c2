from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hubkit.records import messages_of
from hubkit.traces.thinking import Thought, split

CASES = {
    "tags": ("<think>\n2 + 3\n</think>\n\nIt is 5.", None, ("2 + 3", "It is 5.", "closed")),
    "opened by the template": ("2 + 3\n</think>\nIt is 5.", None, ("2 + 3", "It is 5.", "closed")),
    "cut off": ("<think>\n2 + 3 is", None, ("2 + 3 is", "", "unclosed")),
    "cut off at once": ("<think>", None, ("", "", "unclosed")),
    "cut off after the span": ("<think>2 + 3</think>", None, ("2 + 3", "", "closed")),
    "none": ("It is 5.", None, ("", "It is 5.", "none")),
    "nothing": ("", None, ("", "", "none")),
    "thinking turned off": ("<think>\n\n</think>\n\nIt is 5.", None, ("", "It is 5.", "none")),
    "two spans": ("<think>a</think>b<think>c</think>d", None, ("a", "b<think>c</think>d", "closed")),
    "a tag that is spoken of": ("Write <think> first.", None, ("", "Write <think> first.", "none")),
    "field": ("It is 5.", "2 + 3", ("2 + 3", "It is 5.", "field")),
    "field, cut off": ("", "2 + 3 is", ("2 + 3 is", "", "field")),
    "field without content": ("It is 5.", " \n", ("", "It is 5.", "none")),
    "field and the same in tags": ("<think>2 + 3</think>It is 5.", "2 + 3", ("2 + 3", "It is 5.", "field")),
    "field and more in tags": ("<think>more</think>5", "2 + 3", ("2 + 3\nmore", "5", "field")),
    "field with a tag": ("5", "2 + 3</think>4", ("2 + 3 4", "5", "field")),
    "harmony": (
        "<|channel|>analysis<|message|>2 + 3<|end|><|start|>assistant<|channel|>final<|message|>It is 5.<|return|>",
        None,
        ("2 + 3", "It is 5.", "closed"),
    ),
    "harmony, opened by the template": (
        "2 + 3<|end|><|start|>assistant<|channel|>final<|message|>5",
        None,
        ("2 + 3", "5", "closed"),
    ),
    "harmony, cut off": ("<|channel|>analysis<|message|>2 + 3 is", None, ("2 + 3 is", "", "unclosed")),
    "harmony, cut off in a header": (
        "<|channel|>analysis<|message|>2 + 3<|end|><|start|>assistant<|channel|>",
        None,
        ("2 + 3", "", "unclosed"),
    ),
    "harmony with a call": (
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=functions.x "
        "<|constrain|>json<|message|>{}<|call|><|start|>assistant<|channel|>analysis<|message|>b<|end|>"
        "<|start|>assistant<|channel|>final<|message|>c",
        None,
        ("a\n{}\nb", "c", "closed"),
    ),
    "harmony without analysis": ("<|channel|>final<|message|>It is 5.", None, ("", "It is 5.", "none")),
    "harmony without its tokens": (
        "analysisWe add.assistantanalysis Again.assistantfinalIt is 5, says the assistant final.",
        None,
        ("We add.\nAgain.", "It is 5, says the assistant final.", "closed"),
    ),
    "harmony without its tokens, cut off": ("analysisWe add 2", None, ("We add 2", "", "unclosed")),
    "an analysis": ("analysis of the sum: 5", None, ("", "analysis of the sum: 5", "none")),
}


@pytest.mark.parametrize("case", CASES)
def test_forms(case: str) -> None:
    text, field, wanted = CASES[case]
    assert split(text, field) == Thought(*wanted)


MARKUP = [
    "<think>",
    "</think>",
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
]
WORDS = [
    "analysis",
    "assistant",
    "final",
    "commentary",
    "assistantfinal",
    "analysisWe",
    "\n\n",
    " ",
    "x",
    "<",
    "|>",
]
TEXTS = st.one_of(
    st.text(), st.lists(st.sampled_from(MARKUP + WORDS) | st.text(max_size=5), max_size=12).map("".join)
)
CONTENT = st.text(alphabet="abc 5\n+=.\u00e9\u4e16", max_size=30)
_MARKS = re.compile(r"</?think>|<\|(?:start|channel|message|end|return|call|constrain)\|>|\s+")
_NAMES = re.compile(r"assistant|analysis|final|commentary")


def bare(text: str) -> list[str]:
    """The signs of a text without markup and blanks, in no order: harmony's messages may be sorted."""
    return sorted(_NAMES.sub("", _MARKS.sub("", text)))


@settings(max_examples=300)
@given(TEXTS, st.none() | TEXTS)
@example("<think></think>" * 5000 + "x", None)
@example("a<think></thi</think>nk>b", "</thi</think>nk>")
def test_a_rendered_thought_splits_into_itself(text: str, field: str | None) -> None:
    thought = split(text, field)
    rendered = messages_of("", thought.reasoning, thought.solution)[-1]["content"]
    match thought.form:
        case "none":
            assert thought.reasoning == "" and split(rendered) == split(thought.solution) == thought
        case "unclosed":
            assert thought.solution == "" and split(f"<think>\n{thought.reasoning}") == thought
        case "closed" | "field":
            assert thought.reasoning and split(rendered) == thought._replace(form="closed")


@settings(max_examples=300)
@given(TEXTS)
def test_no_text_is_lost(text: str) -> None:
    thought = split(text)
    if "<|" in text:
        # A header is dropped with its channel; where all words are markup's or in a message, none is.
        text = re.sub(r"<\|(?:start|channel)\|>[^<]*", "", text)
        found = bare(thought.reasoning + thought.solution)
        for sign in set(bare(text)):
            assert found.count(sign) >= bare(text).count(sign)
    else:
        assert bare(thought.reasoning + thought.solution) == bare(text)


@given(CONTENT.filter(str.strip), CONTENT.filter(str.strip))
def test_all_ways_of_writing_a_thought_are_read_alike(reasoning: str, solution: str) -> None:
    wanted = (reasoning.strip(), solution.strip())
    for text, field in (
        (f"<think>\n{reasoning}\n</think>\n\n{solution}", None),
        (f"{reasoning}</think>{solution}", None),
        (solution, reasoning),
        (
            f"<|channel|>analysis<|message|>{reasoning}<|end|><|start|>assistant"
            f"<|channel|>final<|message|>{solution}<|return|>",
            None,
        ),
    ):
        thought = split(text, field)
        assert (thought.reasoning, thought.solution) == wanted
        assert thought.form in ("closed", "field")


@given(CONTENT, st.integers(0, 200))
def test_cut_anywhere_reasoning_is_never_taken_for_a_solution(reasoning: str, at: int) -> None:
    for whole in (
        f"<think>\n{reasoning}\n</think>\n\nIt is 5.",
        f"<|channel|>analysis<|message|>{reasoning}!<|end|><|start|>assistant<|channel|>final<|message|>It is 5.",
    ):
        place = max(at % len(whole), len("<|channel|>analysis<|message|>"))
        assert split(whole[:place]).solution in "It is 5."
