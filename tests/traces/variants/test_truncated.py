from __future__ import annotations

import random
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import MODELS, ROOT

from hubkit.errors import InputError
from hubkit.records import read_rows, write_rows
from hubkit.store import StepContext, Store
from hubkit.traces.cut import REACH, cut, cut_batch
from hubkit.traces.lengths import count_tokens, length_metrics, token_counts
from hubkit.traces.variants import VARIANTS
from hubkit.traces.variants.truncated import run

sys.path.insert(0, str(ROOT / "recipes" / "nano-models"))
import corpus


def traces(number: int) -> list[str]:
    rng = random.Random(7)
    return [corpus.reasoning(rng, corpus.draw_sum(rng)) for _ in range(number)]


@cache
def tokenizer(kind: str) -> Any:
    """nano: the shipped one. words, whole: byte-level BPE that merges within words, or across everything."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if kind == "nano":
        return AutoTokenizer.from_pretrained(MODELS / "student-s")
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "words")
    core.decoder = decoders.ByteLevel()
    texts = [*traces(200), "déjà vu, naïve façade; ½ of 日本語 and 😀😀 emoji", "aaaa bbbb  cccc   "]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1200, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core)


KINDS = ["nano", "words", "whole"]


def length(kind: str, text: str) -> int:
    return len(tokenizer(kind)(text, add_special_tokens=False)["input_ids"])


def cut_alone(kind: str, text: str, budget: int) -> str:
    """What `cut` promises, without its haste: the whole text tokenised, one candidate at a time."""
    offsets = tokenizer(kind)(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    if len(offsets) <= budget:
        return text
    best = ""
    for place in [
        budget,
        *range(budget + 1, min(budget + REACH + 1, len(offsets))),
        *range(budget - 1, 0, -1),
    ]:
        candidate = text[: offsets[place - 1][1]]
        tokens = length(kind, candidate)
        if tokens == budget:
            return candidate
        if tokens < budget:
            best = max(best, candidate, key=len)
            if place < budget - REACH:
                break
    # Within a token, such as one of a letter and its accent.
    for end in range(len(best) + 1, min(len(best) + 1 + 4 * REACH, len(text) + 1)):
        if length(kind, text[:end]) > budget:
            break
        best = text[:end]
    return best


TEXTS = st.one_of(
    st.text(min_size=1, max_size=80),
    st.text(alphabet="ab é日😀\n 0+-,", min_size=1, max_size=80),
    st.sampled_from(traces(20)),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=150)
@given(text=TEXTS, budget=st.integers(1, 60))
@example(text="aÀ", budget=1)
def test_a_cut_is_a_beginning_within_the_budget(kind: str, text: str, budget: int) -> None:
    short = cut(tokenizer(kind), text, budget)
    assert text.startswith(short)
    assert length(kind, short) <= budget
    assert short == cut_alone(kind, text, budget)


@pytest.mark.parametrize("kind", KINDS)
def test_many_at_once_are_cut_as_each_alone_and_counted(kind: str) -> None:
    texts = [*traces(60), "x" * 3000 + " 1 2 3" * 50, "1 2 3 " * 500 + "word " * 900]
    budgets = [1 + (7 * i) % 120 for i in range(len(texts))]
    lengths = [length(kind, text) for text in texts]
    cuts = cut_batch(tokenizer(kind), texts, budgets, lengths)
    for text, budget, (short, tokens) in zip(texts, budgets, cuts, strict=True):
        assert short == cut_alone(kind, text, budget)
        assert tokens == length(kind, short)


def test_traces_are_cut_to_exactly_the_budget() -> None:
    text = "We need to add 47 + 38 first: 7 + 8 = 15, write 5 and carry 1; then 4 + 3 + 1 = 8, so it is 85."
    for budget in range(1, length("nano", text)):
        assert length("nano", cut(tokenizer("nano"), text, budget)) == budget
    assert cut(tokenizer("nano"), text, 1000) == text


def row(sample: int, reasoning: str, tokens: int, **more: Any) -> dict[str, Any]:
    size = length("nano", reasoning)
    text = dict.fromkeys(("source", "problem", "answer", "solution", "teacher", "verifier"), "x")
    lengths = {"reasoning_chars": len(reasoning), "raw_reasoning_chars": len(reasoning)}
    tokens_of = {"reasoning_tokens": tokens, "raw_reasoning_tokens": size, "ratio": tokens / size}
    flags = {"id": "p", "sample": sample, "messages": [], "correct": True, "finish_reason": "stop"}
    return {**text, **flags, **lengths, **tokens_of, "reasoning": reasoning, **more}


def test_the_step_cuts_each_trace_to_its_compressed_length(tmp_path: Path) -> None:
    texts = traces(5)
    raw = [row(i, text, length("nano", text)) for i, text in enumerate(texts)]
    kept = [
        row(i, texts[i], budget, compressor="c", prompt_sha="s") for i, budget in ((0, 9), (2, 31), (3, 500))
    ]
    write_rows(tmp_path / "raw" / "data.parquet", raw, VARIANTS["raw"].schema)
    store = Store(tmp_path)

    def write(context: StepContext) -> None:
        context.count("kept", write_rows(context.out / "data.parquet", kept, VARIANTS["compressed"].schema))

    short = StepContext("compressed/t/c", {}, {}, {}, {}, tmp_path / "o", tmp_path / "w")
    store.run(short, "compressed", 1, "k" * 64, {}, write)
    folders = {"raw": tmp_path / "raw", "compressed": store.folder("compressed/t/c", "k" * 64)}
    models = {"tokenizer": {"model": str(MODELS / "student-s"), "revision": ""}}
    context = StepContext("truncated/t/c", {}, {}, folders, models, tmp_path / "out", tmp_path)
    run(context)
    rows = list(read_rows(tmp_path / "out" / "data.parquet"))
    assert [(r["sample"], r["budget_tokens"], r["matched_to"]) for r in rows] == [
        (0, 9, "c"),
        (2, 31, "c"),
        (3, 500, "c"),
    ]
    assert [r["reasoning_tokens"] for r in rows] == [9, 31, length("nano", texts[3])]
    assert all(texts[r["sample"]].startswith(r["reasoning"]) for r in rows)
    assert context.counts == {"kept": 3}
    expected = length_metrics(rows)
    sums = (expected["reasoning_tokens"] + 3) / (expected["raw_reasoning_tokens"] + 3)
    told = {"solution_tokens": 3, "raw_solution_tokens": 3, "ratio_response": sums}
    assert context.metrics == expected | told

    write_rows(tmp_path / "raw" / "data.parquet", raw[::-1], VARIANTS["raw"].schema)
    with pytest.raises(InputError, match="raw's order"):
        run(StepContext("truncated/t/c", {}, {}, folders, models, tmp_path / "out", tmp_path))


def test_tokens_are_counted_as_the_tokenizer_counts_them() -> None:
    texts = [*traces(30), "", "é日😀"]
    assert count_tokens(MODELS / "student-s", texts, batch=7) == [length("nano", text) for text in texts]


def test_a_tokenizer_of_bytes_is_cut_between_characters() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = [("<unk>", 0.0), ("▁", -2.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256))]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    loaded = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    text = "世界" * 6
    (whole,) = token_counts(loaded, [text])
    assert whole == 37, "a metaspace and three bytes a character"
    for budget, best in ((7, 7), (8, 7), (10, 10), (36, 34)):
        assert cut_batch(loaded, [text], [budget], [whole]) == [(text[: (best - 1) // 3], best)]
