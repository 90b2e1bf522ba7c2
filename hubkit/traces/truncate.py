"""Truncation, the control: raw traces cut to the compressed length, problem by problem.

    raw {"id": "x", "sample": 0, "reasoning": "We need 47 + 38 - 12. …", "reasoning_tokens": 210, …} with a
    compressed trace of 31 tokens becomes {"reasoning": "We need 47 + 38 - 12. First", "reasoning_tokens":
    31, "budget_tokens": 31, "matched_to": "nano-compressor", …}: same tokens spent, no model's choice of
    which. (The paper's truncation ablation.)

A cut text does not always tokenise to the number of tokens it was cut at: a byte-level tokenizer can
merge differently at the new end, or the cut can fall inside a character. The cut is then moved to the
nearest text that has exactly the budget; where none exists the row says so by its own reasoning_tokens,
and `inexact` counts it.
"""

from __future__ import annotations

from typing import Any, Final

from hubkit.errors import GateError
from hubkit.records import VARIANT_SCHEMAS, messages_of, read_rows, write_rows
from hubkit.store import StepContext
from hubkit.traces.statistics import count_tokens, length_metrics

__all__ = ["VERSION", "cut", "run"]

VERSION: Final = 1


def cut(tokenizer: Any, text: str, budget: int) -> str:
    """The longest beginning of `text` that has `budget` tokens (or the nearest below that exists)."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    if len(offsets) <= budget:
        return text
    # Start at the budget's own boundary and look a little around it for a text that retokenises exactly.
    best = ""
    for place in [budget, *range(budget + 1, min(budget + 4, len(offsets))), *range(budget - 1, 0, -1)]:
        candidate = text[: offsets[place - 1][1]]
        length = len(tokenizer(candidate, add_special_tokens=False)["input_ids"])
        if length == budget:
            return candidate
        if length < budget:
            best = max(best, candidate, key=len)
            if place < budget - 3:
                break
    return best


def run(context: StepContext) -> None:
    """Write data.parquet: one row for every compressed one, in its order."""
    from transformers import AutoTokenizer

    folder = context.model("tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    raw = {(r["id"], r["sample"]): r for r in read_rows(context.inputs["raw"] / "data.parquet")}
    compressed = list(read_rows(context.inputs["compressed"] / "data.parquet"))
    rows: list[dict[str, Any]] = []
    for number, short in enumerate(compressed, 1):
        source = raw[short["id"], short["sample"]]
        text = cut(tokenizer, source["reasoning"], short["reasoning_tokens"])
        rows.append(
            source
            | {
                "reasoning": text,
                "messages": messages_of(source["problem"], text, source["solution"]),
                "reasoning_chars": len(text),
                "budget_tokens": short["reasoning_tokens"],
                "matched_to": short["compressor"],
            }
        )
        context.progress(number, len(compressed))
    for row, tokens in zip(rows, count_tokens(folder, [r["reasoning"] for r in rows]), strict=True):
        row["reasoning_tokens"] = tokens
        row["ratio"] = tokens / row["raw_reasoning_tokens"]
        context.count("kept")
        if tokens != min(row["budget_tokens"], row["raw_reasoning_tokens"]):
            context.count("inexact")
    if not rows:
        raise GateError(f"{context.step}: nothing to cut", "look at why the compressed traces were dropped")
    write_rows(context.out / "data.parquet", rows, VARIANT_SCHEMAS["truncated"])
    context.metrics.update(length_metrics(rows))
