"""The nulls: what they keep is of the raw trace, as long as the compressed one, and the same every time."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support import MODELS

from hubkit.records import read_rows, write_rows
from hubkit.store import Record, StepContext
from hubkit.traces.lengths import count_tokens, load_tokenizer
from hubkit.traces.steps import steps_of
from hubkit.traces.variants import VARIANTS, last, random_steps, random_tokens, truncated
from hubkit.traces.variants.controls import Task, token_spans

TOKENIZER = MODELS / "student-s"
MODULES: dict[str, Any] = {
    "truncated": truncated,
    "last": last,
    "random-steps": random_steps,
    "random-tokens": random_tokens,
}


def trace(number: int) -> str:
    lines = [
        f"First {number} + {i} = {number + i}. Wait, let me check: {number + i} - {i} = {number}. Good."
        for i in range(9)
    ]
    return "I need to work it out.\n" + "\n".join(lines)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StepContext:
    texts = [trace(number) for number in range(11, 31)]
    lengths = count_tokens(TOKENIZER, texts)
    rows: list[dict[str, Any]] = []
    for number, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        row: dict[str, Any] = dict.fromkeys(VARIANTS["raw"].schema.names)
        rows.append(row | {
            "id": f"p{number}", "sample": 0, "problem": "?", "answer": "1", "reasoning": text, "solution": "1",
            "reasoning_tokens": length, "raw_reasoning_tokens": length, "reasoning_chars": len(text),
            "raw_reasoning_chars": len(text), "ratio": 1.0,
        })  # fmt: skip
    budgets = [17 + 5 * number for number in range(19)] + [lengths[19]]
    short = [row | {"reasoning_tokens": b, "compressor": "c"} for row, b in zip(rows, budgets, strict=True)]
    write_rows(tmp_path / "raw" / "data.parquet", rows, VARIANTS["raw"].schema)
    write_rows(tmp_path / "compressed" / "data.parquet", short, VARIANTS["compressed"].schema)
    record = Record.model_construct(counts={"kept": len(rows)})
    monkeypatch.setattr(StepContext, "record", lambda self, name: record)
    (tmp_path / "work").mkdir()
    return StepContext(
        step="null",
        config={"teacher": "t", "compressor": "c", "seed": 3},
        runtime={},
        inputs={name: tmp_path / name for name in ("raw", "compressed")},
        models={"tokenizer": {"model": str(TOKENIZER), "revision": ""}},
        out=tmp_path / "out",
        work=tmp_path / "work",
    )


@pytest.mark.parametrize("kind", MODULES)
def test_a_control_has_the_compressed_length_and_only_raw_text(kind: str, context: StepContext) -> None:
    MODULES[kind].run(context)
    made = list(read_rows(context.out / "data.parquet"))
    raw = list(read_rows(context.inputs["raw"] / "data.parquet"))
    budgets = [row["reasoning_tokens"] for row in read_rows(context.inputs["compressed"] / "data.parquet")]
    counted = count_tokens(TOKENIZER, [row["reasoning"] for row in made])
    assert [row["reasoning_tokens"] for row in made] == counted
    exact = sum(tokens == budget for tokens, budget in zip(counted, budgets, strict=True))
    assert exact + context.counts.get("inexact", 0) == 20 and exact >= 18
    assert all(
        tokens <= budget and tokens >= budget - 2 for tokens, budget in zip(counted, budgets, strict=True)
    )
    for before, after in zip(raw, made, strict=True):
        kept = iter(before["reasoning"])
        assert all(character in kept for character in after["reasoning"]), "characters stay in their order"
        assert after["matched_to"] == "c"
    assert made[19]["reasoning"] == raw[19]["reasoning"], "what is no longer stays whole"
    if kind == "last":
        assert all(b["reasoning"].endswith(a["reasoning"]) for b, a in zip(raw, made, strict=True))
    if kind.startswith("random"):
        assert not any(
            b["reasoning"].startswith(a["reasoning"]) for b, a in zip(raw[:19], made[:19], strict=True)
        )


@pytest.mark.parametrize("kind", ["random-steps", "random-tokens"])
def test_chance_is_the_recipes_seed(kind: str, context: StepContext) -> None:
    def texts(seed: int) -> list[str]:
        context.config["seed"] = seed
        MODULES[kind].run(context)
        return [row["reasoning"] for row in read_rows(context.out / "data.parquet")]

    assert texts(3) == texts(3) != texts(4)


@pytest.mark.parametrize("seed", range(5))
def test_characters_of_several_tokens_come_once(seed: int) -> None:
    text = "x → y ≤ √2, 因此 🙂 → z; " * 4
    loaded = load_tokenizer(TOKENIZER)
    spans = token_spans(loaded, [Task(text, 0, 0, Random(0))])[0]
    assert len(set(spans)) < len(spans)
    cut = random_tokens._thin(Task(text, len(spans) // 2, 0, Random(seed)), spans)
    left = iter(text)
    assert 0 < len(cut) < len(text) and all(character in left for character in cut)


def test_steps_are_sentences_and_lines_and_nothing_is_lost() -> None:
    text = "First 3.5 + 1. So 4.5!\n\nWait? No.\n- a list\n"
    steps = steps_of(text)
    assert "".join(steps) == text and [re.sub(r"\s+", " ", s).strip() for s in steps] == [
        "First 3.5 + 1.", "So 4.5!", "Wait?", "No.", "- a list",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", MODULES)
def test_where_solutions_were_shortened_the_nulls_are_too_and_their_answer_stays(
    kind: str, context: StepContext
) -> None:
    solutions = [
        "We take 11 and add. That is fine. It is 20.\n\nSo it has to be 20, as was said.\nThe answer is \\boxed{20}.",
        "One line: \\boxed{7}.",
    ]
    shorter = ["It is 20.\nThe answer is \\boxed{20}.", "\\boxed{7}"]

    def change(name: str, texts: list[str]) -> None:
        path = context.inputs[name] / "data.parquet"
        rows = [row | {"solution": texts[i % 2]} for i, row in enumerate(read_rows(path))]
        write_rows(path, rows, VARIANTS[name].schema)

    change("raw", solutions)
    MODULES[kind].run(context)
    before = list(read_rows(context.out / "data.parquet"))
    assert [row["solution"] for row in before[:2]] != solutions and context.counts["inexact_solution"] > 0
    context.counts.clear()
    context.metrics.clear()
    change("compressed", shorter)
    MODULES[kind].run(context)
    made = list(read_rows(context.out / "data.parquet"))
    lengths = count_tokens(TOKENIZER, [row["solution"] for row in made])
    budget = count_tokens(TOKENIZER, shorter)
    for number, row in enumerate(made):
        assert row["reasoning"] == before[number]["reasoning"], "the reasoning is cut as before"
        assert row["messages"][1]["content"].endswith(f"</think>\n\n{row['solution']}")
        if number % 2:
            assert row["solution"] == solutions[1], "nothing stands before its final line"
            continue
        body, _, final = row["solution"].rpartition("\n\n")
        assert final == "The answer is \\boxed{20}." and body
        assert abs(lengths[number] - budget[0]) <= 3
        words = iter(solutions[0].split())
        assert kind == "random-tokens" or all(word in words for word in body.split()[1:-1])
    assert context.metrics["solution_tokens"] == sum(lengths)
    assert context.metrics["raw_solution_tokens"] == 10 * sum(count_tokens(TOKENIZER, solutions))
    assert 0 < context.metrics["ratio_response"] < 1


def test_where_they_stayed_nothing_changes(context: StepContext) -> None:
    truncated.run(context)
    assert "inexact_solution" not in context.counts
    assert context.metrics["solution_tokens"] == context.metrics["raw_solution_tokens"] > 0
