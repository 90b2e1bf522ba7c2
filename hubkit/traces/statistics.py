"""Lengths of traces: counted by the recipe's tokenizer, summed up for cards and reports."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["count_tokens", "length_metrics"]


def count_tokens(tokenizer: Path, texts: Sequence[str], batch: int = 1000) -> list[int]:
    """Tokens of each text without special tokens, by the tokenizer in a model folder."""
    loaded = _load(tokenizer)
    counts: list[int] = []
    for start in range(0, len(texts), batch):
        part = list(texts[start : start + batch])
        counts += [len(ids) for ids in loaded(part, add_special_tokens=False)["input_ids"]]
    return counts


@functools.lru_cache(maxsize=4)
def _load(tokenizer: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer)


def length_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a variant's record says of its lengths: sums, ratios to raw and quantiles.

    `ratio_tokens` and `ratio_chars` are ratios of the sums, as the paper reports its 8.6 % to 21.0 %.
    """
    names = ("reasoning_tokens", "reasoning_chars", "raw_reasoning_tokens", "raw_reasoning_chars")
    sums = {name: sum(row[name] for row in rows) for name in names}
    quantiles = {}
    for name in ("reasoning_tokens", "reasoning_chars"):
        values = np.array([row[name] for row in rows])
        quantiles[name] = {f"p{q}": float(np.percentile(values, q)) for q in (5, 50, 95)}
        quantiles[name]["mean"] = float(values.mean())
    return {
        "rows": len(rows),
        "problems": len({row["id"] for row in rows}),
        **sums,
        "ratio_tokens": sums["reasoning_tokens"] / max(1, sums["raw_reasoning_tokens"]),
        "ratio_chars": sums["reasoning_chars"] / max(1, sums["raw_reasoning_chars"]),
        "quantiles": quantiles,
    }
