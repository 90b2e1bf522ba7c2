from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support import MODELS

from hubkit.traces.truncate import cut


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODELS / "student-s")


def length(text: str) -> int:
    return len(tokenizer()(text, add_special_tokens=False)["input_ids"])


@settings(deadline=None, max_examples=200)
@given(st.text(min_size=1, max_size=80), st.integers(1, 60))
def test_a_cut_is_a_beginning_within_the_budget(text: str, budget: int) -> None:
    short = cut(tokenizer(), text, budget)
    assert text.startswith(short)
    assert length(short) <= budget or (short == text and length(text) <= budget)


def test_traces_are_cut_to_exactly_the_budget() -> None:
    text = "We need to add 47 + 38 first: 7 + 8 = 15, write 5 and carry 1; then 4 + 3 + 1 = 8, so it is 85."
    for budget in range(1, length(text)):
        assert length(cut(tokenizer(), text, budget)) == budget
    assert cut(tokenizer(), text, 1000) == text
