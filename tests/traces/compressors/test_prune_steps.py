"""Pruning of steps: what a step is worth, counted again without any of the shortcuts, and which steps stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from compressing import TOKENIZER, compressing, outcome, real_traces
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import save_tiny_model

from hubkit.errors import InputError
from hubkit.records import read_rows
from hubkit.traces.compressors import COMPRESSORS, prune_steps, scorers
from hubkit.traces.compressors.scored import kept_pieces
from hubkit.traces.compressors.scorers import CausalScorer
from hubkit.traces.lengths import count_tokens
from hubkit.traces.steps import chunks, final_line, owners, steps_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One token a byte, so that what a step's tokens are is plain; its context holds seven of the eight traces."""
    return save_tiny_model(tmp_path_factory.mktemp("scorer"), max_position_embeddings=1900)


def config(**more: Any) -> dict[str, Any]:
    given = {"kind": "prune-steps", "name": "c", "model": "org/m", "ratio": 0.4, "by": "surprisal"} | more
    return COMPRESSORS["prune-steps"].model_validate(given).identity()


STEPS = ["First 47 + 38. ", "Let me see.\n\n", "The ones are 15. ", "So 85."]
ROW = {
    "id": "x",
    "sample": 0,
    "problem": "What is 47 + 38?",
    "answer": "85",
    "solution": "It is \\boxed{85}.",
}


def logits_of(folder: Path, text: str) -> tuple[Any, Any]:
    """(token ids, log-probabilities before each), straight from transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(folder)(**ids).logits
    return ids["input_ids"][0], torch.log_softmax(logits[0].float(), -1)


PROMPT = f"<|im_start|>user\n{ROW['problem']}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("room", [scorers.LOGITS, 700])
def test_entropy_and_surprisal_are_those_of_the_whole_logits(
    room: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "LOGITS", room)
    from transformers import AutoTokenizer

    before = len(AutoTokenizer.from_pretrained(model)(PROMPT, add_special_tokens=False)["input_ids"])
    ids, logs = logits_of(model, PROMPT + "".join(STEPS))
    entropy = -(logs.exp() * logs).sum(-1)
    surprisal = -logs[:-1].gather(-1, ids[1:, None])[:, 0]
    at, expected = before, {"entropy": [], "surprisal": []}  # type: ignore[var-annotated]
    for step in STEPS:
        expected["entropy"].append(float(entropy[at - 1 : at - 1 + len(step)].sum()))
        expected["surprisal"].append(float(surprisal[at - 1 : at - 1 + len(step)].mean()))
        at += len(step)
    long = ROW | {"problem": "What? " * 90}
    for by, values in expected.items():
        with CausalScorer(model, by, "cpu") as scorer:
            alone = scorer.scores([(ROW, STEPS)])
            beside = scorer.scores([(long, STEPS * 3), (ROW, STEPS)])
        assert alone[0] == pytest.approx(values, rel=1e-4)
        assert beside[1] == pytest.approx(values, rel=1e-4), "padding changes nothing"


def test_a_step_is_worth_what_the_answer_loses_without_it(model: Path) -> None:
    def surprisal_of_answer(steps: list[str]) -> float:
        ids, logs = logits_of(model, PROMPT + "".join(steps) + "\n\nThe final answer is \\boxed{85}")
        return float(-logs[:-1].gather(-1, ids[1:, None])[-3:].mean())

    whole = surprisal_of_answer(STEPS)
    expected = [surprisal_of_answer(STEPS[:i] + STEPS[i + 1 :]) - whole for i in range(4)]
    with CausalScorer(model, "answer", "cpu") as scorer:
        assert scorer.scores([(ROW, STEPS)])[0] == pytest.approx(expected, abs=1e-4)


def test_logits_that_are_capped_after_the_head_are_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "gemma2", final_logit_softcapping=1.0, query_pre_attn_scalar=12)
    with pytest.raises(InputError, match="changes its logits"), CausalScorer(folder, "entropy", "cpu"):
        pass


@pytest.mark.parametrize("by", ["answer", "entropy", "surprisal"])
def test_whole_steps_of_real_traces_are_left_out_down_to_the_length(
    by: str, model: Path, tmp_path: Path
) -> None:
    step = compressing(tmp_path, config(by=by), model=model)
    prune_steps.run(step)
    kept, rejected = outcome(step)
    raw = {row["id"]: row for row in real_traces()}
    assert len(kept) == 7 and {row["reason"] for row in rejected.values()} == {"too_long"}
    assert step.counts == {"kept": 7, "dropped_too_long": 1}
    for id, row in kept.items():
        steps = steps_of(raw[id]["reasoning"])
        longest = max(count_tokens(TOKENIZER, steps))
        left = iter(step.strip() for step in steps)
        assert all(found.strip() in left for found in steps_of(row["reasoning"])), (
            "steps of the trace, in order"
        )
        assert abs(row["reasoning_tokens"] - 0.4 * row["raw_reasoning_tokens"]) <= longest / 2 + 2
        assert row["solution"] == raw[id]["solution"] and row["prompt_sha"] is None
    if by == "surprisal":
        first = (step.out / "data.parquet").read_bytes()
        prune_steps.run(step)
        assert (step.out / "data.parquet").read_bytes() == first


def test_scores_that_were_made_are_not_made_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the first traces: the rest alone is scored."""
    seen: list[str] = []
    scores = CausalScorer.scores

    def watched(self: CausalScorer, traces: Any) -> Any:
        if len(seen) >= 3:
            raise KeyboardInterrupt
        seen.extend(row["id"] for row, _ in traces)
        return scores(self, traces)

    monkeypatch.setattr("hubkit.traces.compressors.scored.TOGETHER", 3)
    step = compressing(tmp_path, config(), model=model)
    with monkeypatch.context() as patched:
        patched.setattr(CausalScorer, "scores", watched)
        with pytest.raises(KeyboardInterrupt):
            prune_steps.run(step)
    again: list[str] = []

    def counted(self: CausalScorer, traces: Any) -> Any:
        again.extend(row["id"] for row, _ in traces)
        return scores(self, traces)

    monkeypatch.setattr(CausalScorer, "scores", counted)
    step.counts.clear()
    prune_steps.run(step)
    assert seen == [row["id"] for row in real_traces()[:3]] and not set(seen) & set(again)
    whole = (
        compressing(tmp_path / "other", config(), model=model)
        if (tmp_path / "other").mkdir() is None
        else step
    )
    prune_steps.run(whole)
    assert list(read_rows(step.out / "data.parquet")) == list(read_rows(whole.out / "data.parquet"))


@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(-5, 5), st.booleans()), min_size=1),
    st.floats(0.01, 0.99),
)
def test_no_other_number_of_pieces_comes_nearer(pieces: list[tuple[int, float, bool]], ratio: float) -> None:
    lengths, scores, forced = map(list, zip(*pieces, strict=True))
    target = ratio * sum(lengths)
    stay = kept_pieces(lengths, scores, forced, target)
    assert any(stay) and all(kept for kept, must in zip(stay, forced, strict=True) if must)
    free = sorted((i for i in range(len(pieces)) if not forced[i]), key=lambda i: (-scores[i], i))
    chosen = [i for i in free if stay[i]]
    assert chosen == free[: len(chosen)], "those with the highest scores"
    base = sum(length for length, must in zip(lengths, forced, strict=True) if must)
    sums = [base + sum(lengths[i] for i in free[:n]) for n in range(0 if any(forced) else 1, len(free) + 1)]
    assert min(abs(total - target) for total in sums) == abs(
        sum(length for length, kept in zip(lengths, stay, strict=True) if kept) - target
    )


def test_chunks_are_the_text_and_end_where_steps_do() -> None:
    from hubkit.traces.lengths import load_tokenizer

    tokenizer = load_tokenizer(TOKENIZER)
    for row in real_traces():
        parts = chunks(tokenizer, row["reasoning"], 120)
        assert "".join(parts) == row["reasoning"] and len(parts) > 1
        steps = steps_of(row["reasoning"])
        assert [s for part in parts for s in steps_of(part)] == steps
        for part in parts:
            assert count_tokens(TOKENIZER, [part])[0] <= 122 or len(steps_of(part)) == 1


@pytest.mark.parametrize(
    ("solution", "line"),
    [
        ("It is so.\n\nThe answer is \\boxed{5}.\n\nAsk again!", "The answer is \\boxed{5}."),
        ("a \\boxed{1}\nb \\boxed{2}\n", "b \\boxed{2}"),
        ("Hence\n\\[\n\\boxed{\\begin{p}\n1\n\\end{p}}\n\\]", "\\boxed{\\begin{p}\n1\n\\end{p}}"),
        ("So x\n\n#### 18\n", "#### 18"),
        ("\\[\nx = 5\n\\]\n", "x = 5"),
        ("\\boxed{5", "\\boxed{5"),
        (" \n", ""),
    ],
)  # fmt: skip
def test_the_final_line_is_the_one_with_the_answer(solution: str, line: str) -> None:
    assert final_line(solution) == line


def test_a_token_belongs_to_the_piece_of_its_last_character() -> None:
    assert owners(["a b. ", "c"], [(0, 1), (1, 3), (3, 4), (4, 6)]) == [0, 0, 0, 1]


def test_scores_on_disk_are_json_lists(model: Path, tmp_path: Path) -> None:
    import sqlite3

    step = compressing(tmp_path, config(), model=model)
    prune_steps.run(step)
    rows = sqlite3.connect(step.work / "scores.sqlite").execute("SELECT id, scores FROM scores").fetchall()
    assert len(rows) == 8 and sum(not json.loads(scores) for _, scores in rows) == 1


def test_reasoning_and_solution_are_pruned_together_and_the_answer_stays(model: Path, tmp_path: Path) -> None:
    step = compressing(tmp_path, config(solution="shorten", ratio=0.5), model=model)
    prune_steps.run(step)
    kept, _ = outcome(step)
    raw = {row["id"]: row for row in real_traces()}
    assert len(kept) >= 5 and step.metrics["solution_tokens"] < step.metrics["raw_solution_tokens"]
    for id, row in kept.items():
        final = final_line(raw[id]["solution"])
        assert row["solution"].endswith(final)
        left = iter(s.strip() for s in steps_of(raw[id]["solution"]))
        assert all(s.strip() in left for s in steps_of(row["solution"]))
        before, after = (
            sum(count_tokens(TOKENIZER, [text["reasoning"], text["solution"]])) for text in (raw[id], row)
        )
        longest = max(count_tokens(TOKENIZER, steps_of(raw[id]["reasoning"] + "\n" + raw[id]["solution"])))
        assert abs(after - 0.5 * before) <= longest / 2 + 4


def test_a_final_line_is_all_that_is_left_of_the_solution(model: Path, tmp_path: Path) -> None:
    step = compressing(tmp_path, config(solution="final-line"), model=model)
    prune_steps.run(step)
    raw = {row["id"]: row for row in real_traces()}
    kept, _ = outcome(step)
    assert len(kept) == 7 and all(
        row["solution"] == final_line(raw[id]["solution"]) for id, row in kept.items()
    )
