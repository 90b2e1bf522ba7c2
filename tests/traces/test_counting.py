"""Counting word by word gives the library's own counts, or leaves a text to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import MODELS
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from hubkit.traces import lengths
from hubkit.traces.counting import WORTH_IT, word_counter
from hubkit.traces.lengths import load_tokenizer, plain_backend, token_counts

TOKENIZER = MODELS / "student-s"
# As Qwen's and others split: a regular expression, then bytes.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def library(tokenizer: Any, texts: list[str]) -> list[int]:
    encodings = plain_backend(tokenizer).encode_batch(texts, add_special_tokens=False)
    return [len(encoding.ids) for encoding in encodings]


@pytest.fixture(scope="module")
def qwen_like(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of Qwen's make with few merges, and an added token."""
    folder = tmp_path_factory.mktemp("qwen-like")
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("4", "7"), ("a", "n"), ("Ġ", "Ġ")]
    for merge in merges:
        vocabulary.setdefault("".join(merge), len(vocabulary))
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<think>"])
    inner.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    return load_tokenizer(folder)


@given(st.text())
def test_counts_are_the_librarys(qwen_like: Any, text: str) -> None:
    for tokenizer in (qwen_like, load_tokenizer(TOKENIZER)):
        counter = word_counter(tokenizer)
        assert counter is not None
        assert counter.count(text) in (None, library(tokenizer, [text])[0])


def test_ordinary_text_is_counted_and_the_rest_is_left(qwen_like: Any) -> None:
    counter = word_counter(qwen_like)
    assert counter is not None
    for text in ("We don't\n\n  need the 47 + $\\frac{1}{2}$ thing. ", "Größe ≤ 3 für 数学 — 😀", "", " \n"):
        assert counter.count(text) == library(qwen_like, [text])[0]
    assert counter.count("so <think> again") is None
    assert counter.count("e\u0301") is None  # not normalised


def test_batches_are_counted_as_the_library_does(qwen_like: Any) -> None:
    texts = [f"the {i} answer's " * 400 + ("<think>" if i % 3 else "\u0301") for i in range(40)]
    assert sum(map(len, texts)) > WORTH_IT
    assert token_counts(qwen_like, texts) == library(qwen_like, texts)


def test_a_tokenizer_that_differs_is_left_to_the_library(
    qwen_like: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = word_counter(qwen_like)
    assert counter is not None
    monkeypatch.setattr(lengths, "_DIFFER", set())
    monkeypatch.setattr(counter, "count", lambda text: 7)
    texts = ["the answer " * 1000] * 40
    assert token_counts(qwen_like, texts) == library(qwen_like, texts)
    assert lengths._DIFFER


def test_tokenizers_of_another_make_are_not_counted_by_words(tmp_path: Path) -> None:
    inner = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    assert word_counter(load_tokenizer(tmp_path)) is None
