"""Lengths of traces: counted by the recipe's tokenizer, summarised for cards and reports."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from hubkit.engines.weights import no_code
from hubkit.traces.counting import WORTH_IT, word_counter

__all__ = [
    "LENGTH_COLUMNS",
    "count_tokens",
    "length_metrics",
    "load_tokenizer",
    "plain_backend",
    "quartiles",
    "response_metrics",
    "token_counts",
    "tokenizer_threads",
]

_LENGTHS: Final = ("reasoning_tokens", "reasoning_chars", "raw_reasoning_tokens", "raw_reasoning_chars")
LENGTH_COLUMNS: Final = ["id", *_LENGTHS]
"""Columns that `length_metrics` reads."""


def count_tokens(tokenizer: Path, texts: Sequence[str], batch: int = 1000) -> list[int]:
    """Returns the tokens of each text without special tokens, by the tokenizer in a model folder."""
    loaded = load_tokenizer(tokenizer)
    counts: list[int] = []
    for start in range(0, len(texts), batch):
        counts += token_counts(loaded, texts[start : start + batch])
    return counts


def token_counts(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Returns the tokens of each text of one batch."""
    if not tokenizer.is_fast:
        return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    by_words = _by_words(tokenizer, texts) if sum(map(len, texts)) >= WORTH_IT else {}
    left = [text for place, text in enumerate(texts) if place not in by_words]
    # The backend is asked directly: only lengths are wanted.
    encodings = iter(plain_backend(tokenizer).encode_batch_fast(left, add_special_tokens=False))
    return [by_words[place] if place in by_words else len(next(encodings)) for place in range(len(texts))]


_DIFFER: Final[set[int]] = set()
"""Ids of tokenizers that cannot be counted word by word."""


def _by_words(tokenizer: Any, texts: Sequence[str]) -> dict[int, int]:
    """Place -> tokens, of the texts that can be counted word by word."""
    counter = word_counter(tokenizer)
    if counter is None or id(tokenizer) in _DIFFER:
        return {}
    counts = {place: n for place, text in enumerate(texts) if (n := counter.count(text)) is not None}
    if counts:
        # One of each batch is counted by the library, too.
        place = list(counts)[len(counts) // 2]
        looked_at = plain_backend(tokenizer).encode(texts[place], add_special_tokens=False)
        if len(looked_at) != counts[place]:
            _DIFFER.add(id(tokenizer))
            return {}
    return counts


def plain_backend(tokenizer: Any) -> Any:
    """Returns the Rust tokenizer, without truncation, padding and special tokens."""
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    return backend


@contextmanager
def tokenizer_threads(threads: int) -> Iterator[None]:
    """Let tokenizers use this many cores. The library reads the number of threads at its first call in a process, and
    at every call whether it may use them."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


@functools.lru_cache(maxsize=4)
def load_tokenizer(tokenizer: Path) -> Any:
    from transformers import AutoTokenizer

    no_code()
    return AutoTokenizer.from_pretrained(tokenizer)


def length_metrics(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the lengths of a variant for its record: sums, ratios to raw and quantiles.

    `ratio_tokens` and `ratio_chars` are ratios of the sums, as the paper reports its 8.6 % to 21.0 %; `ratio_quantiles`
    are those of the traces' own ratios of tokens.
    Of each row only the lengths are kept, so rows may be streamed.
    """
    ids: set[str] = set()

    def lengths() -> Iterable[tuple[int, ...]]:
        for row in rows:
            ids.add(row["id"])
            yield tuple(row[name] for name in _LENGTHS)

    table = np.fromiter(lengths(), dtype=(np.int64, len(_LENGTHS)))
    sums = dict(zip(_LENGTHS, table.sum(axis=0).tolist(), strict=True))
    shares = table[:, 0] / np.maximum(1, table[:, 2])
    quantiles = {}
    for column, name in enumerate(_LENGTHS[:2]):
        values = table[:, column]
        quantiles[name] = {f"p{q}": float(np.percentile(values, q)) for q in (5, 50, 95)}
        quantiles[name]["mean"] = float(values.mean())
    return {
        "rows": len(table),
        "problems": len(ids),
        **sums,
        "ratio_tokens": sums["reasoning_tokens"] / max(1, sums["raw_reasoning_tokens"]),
        "ratio_chars": sums["reasoning_chars"] / max(1, sums["raw_reasoning_chars"]),
        "ratio_quantiles": quartiles(shares),
        "quantiles": quantiles,
    }


def quartiles(values: Sequence[float] | np.ndarray[Any, Any]) -> dict[str, float]:
    """Returns p25, p50 and p75 of some values; empty if there are none."""
    return {f"p{q}": float(np.percentile(values, q)) for q in (25, 50, 75)} if len(values) else {}


def response_metrics(metrics: dict[str, Any]) -> None:
    """Add `ratio_response`, the ratio of whole responses, to metrics with their tokens, shortened and raw."""
    names = ("reasoning_tokens", "solution_tokens")
    if all(f"{raw}{name}" in metrics for name in names for raw in ("", "raw_")):
        short, raw = (sum(metrics[f"{of}{name}"] for name in names) for of in ("", "raw_"))
        metrics["ratio_response"] = short / max(1, raw)
