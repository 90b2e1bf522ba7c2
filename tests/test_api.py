"""The Python API: what `import hubkit` gives, used as its documentation says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compressing import save_classifier
from support import MODELS

import hubkit
from hubkit.api import _write_raw
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import InputError
from hubkit.stages.step import pinned_tokenizer
from hubkit.traces.lengths import count_tokens

PROBLEM = "State the final answer to the following arithmetic problem: 47 + 38 - 12 ="
REASONING = (
    "I need to work out 47 + 38 - 12. First 47 + 38. The ones are 7 + 8 = 15, the tens are 4 + 3 = 7, so 47 + 38 = 85. "
    "Wait, let me check: 85 - 38 = 47. Good. Then 85 - 12 = 73. Wait, let me check: 73 + 12 = 85. Good."
)


def traces(number: int = 2) -> list[dict[str, str]]:
    return [
        {"problem": PROBLEM, "answer": "73", "reasoning": REASONING, "solution": "The answer is \\boxed{73}."}
        for _ in range(number)
    ]


def test_all_that_is_named_is_there_and_nothing_else() -> None:
    assert set(hubkit.__all__) == set(hubkit._HOMES)
    for name in hubkit.__all__:
        assert callable(getattr(hubkit, name))
    with pytest.raises(AttributeError):
        hubkit.nothing_of_this_name  # noqa: B018


def test_an_answer_is_verified_and_a_span_is_split() -> None:
    assert hubkit.verify("So it is \\boxed{\\frac12}.", answer="0.5").correct
    assert [v.correct for v in hubkit.verify(["\\boxed{1}", "\\boxed{2}"], answer="2")] == [False, True]
    reasoning, solution, *_ = hubkit.split("<think>47 + 38 = 85</think>85.")
    assert (reasoning, solution) == ("47 + 38 = 85", "85.")


def test_traces_are_cut_to_a_length_in_the_form_they_came() -> None:
    import datasets

    tokenizer = MODELS / "student-s"
    cut = hubkit.truncate(traces(), tokens=[10, 20], tokenizer=tokenizer)
    assert [row["reasoning_tokens"] for row in cut] == [10, 20]
    assert count_tokens(tokenizer, [row["reasoning"] for row in cut]) == [10, 20]
    assert REASONING.startswith(cut[0]["reasoning"]) and cut[0]["solution"] == "The answer is \\boxed{73}."
    assert hubkit.count_tokens(cut, tokenizer=tokenizer) == [10, 20]
    dataset = hubkit.truncate(datasets.Dataset.from_list(traces()), tokens=10, tokenizer=tokenizer)
    assert isinstance(dataset, datasets.Dataset) and dataset["reasoning_tokens"][:] == [10, 10]
    with pytest.raises(InputError, match="trace 1 has no"):
        hubkit.truncate([*traces(1), {"problem": "2 + 2"}], tokens=1, tokenizer=tokenizer)
    same = [{"id": 7, "problem": "x", "reasoning": text} for text in ("one two three", "four five six")]
    cut = hubkit.truncate(same, tokens=1, tokenizer=tokenizer)
    assert [row["reasoning"][:1] for row in cut] == ["o", "f"] and {row["id"] for row in cut} == {7}
    with pytest.raises(InputError, match="-1 is no number of tokens"):
        hubkit.truncate(same, tokens=-1, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["text"], "trace 0 is a str"),
        ([{"messages": [{"role": "user", "content": "2 + 2?"}]}], "does not end with an assistant's message"),
        ([{"messages": [{"role": "assistant", "content": {}}]}], "trace 0: column 'messages'"),
        ([{"problem": "x", "reasoning": "a\ud83d"}], "trace 0: half a character at 1 of its reasoning"),
        ([{"problem": "x", "reasoning": "a", "solution": None}], "trace 0 has no solution"),
    ],
)
def test_traces_that_cannot_be_read_are_named(rows: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hubkit.truncate(rows, tokens=1, tokenizer=MODELS / "student-s")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"answer": "74"}, "trace 1 has the id .* of trace 0, and another answer"),
        ({"id": "a", "problem": "x"}, None),
        ({"verifier": "none"}, "no verifier is called 'none'"),
        ({"sample": "first"}, "its sample 'first' is no number"),
        ({"correct": "yes"}, "values of another type"),
    ],
)
def test_traces_to_be_compressed_agree_on_their_problems(
    tmp_path: Path, more: dict[str, Any], message: str | None
) -> None:
    rows = [traces(1)[0], traces(1)[0] | {"id": None} | more]
    tokenizer = pinned_tokenizer(MODELS / "student-s")
    if message is None:
        assert len({row["id"] for row in _write_raw(rows, tmp_path, tokenizer)}) == 2
        return
    with pytest.raises(InputError, match=message):
        _write_raw(rows, tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("prune-steps", {"by": "answer", "ratio": 0.5, "solution": "final-line"}),
        ("prune-steps", {"by": "surprisal", "ratio": 0.5}),
        ("prune-tokens", {"ratio": 0.5, "reserve": ["="], "solution": "shorten"}),
    ],
)
def test_every_kind_of_compressor_is_to_be_had_with_its_settings(
    kind: str, settings: dict[str, object], tmp_path: Path
) -> None:
    model = MODELS / "teacher"
    if kind == "prune-tokens":
        model = tmp_path / "lingua"
        save_classifier(model, "bert")
    given = [trace | {"solution": f"I add and take away.\n\n{trace['solution']}"} for trace in traces()]
    short = hubkit.compress(given, model=model, kind=kind, tokenizer=MODELS / "student-s", **settings)
    assert len(short) == 2
    for row in short:
        assert 0.25 < row["ratio"] < 0.75 and row["reasoning_tokens"] == round(
            row["ratio"] * row["raw_reasoning_tokens"]
        )
        ended = f"<think>\n{row['reasoning']}\n</think>\n\n{row['solution']}"
        assert row["messages"][-1]["content"] == ended and "\\boxed{73}" in row["solution"]
        assert ("I add" in row["solution"]) == ("solution" not in settings) or settings[
            "solution"
        ] == "shorten"
    told = {"prune-steps": "surprise", "prune-tokens": "by"}[kind]
    with pytest.raises(InputError, match=told):
        hubkit.compress(given, model=model, kind=kind, **settings | {told: "x"})


def test_what_a_kind_does_not_have_is_refused_in_one_line() -> None:
    model = MODELS / "teacher"
    for kind, settings, message in (
        ("prune-words", {}, "no kind 'prune-words'"),
        ("prune-steps", {}, "ratio"),
        ("prune-steps", {"by": "answer", "ratio": 0.5, "prompt": "x"}, "has no prompt"),
        ("rewrite", {"chunk_tokens": 9}, "{before}"),
        ("prune", {"prompt": "Shorten it."}, "{reasoning}"),
    ):
        with pytest.raises(InputError) as caught:
            hubkit.compress(traces(), model=model, kind=kind, **settings)  # type: ignore[arg-type]
        assert message in caught.value.message, caught.value.message
    with pytest.raises(InputError, match="loads its model itself"):
        hubkit.compress(
            traces(),
            model=model,
            kind="prune-steps",
            tokenizer=model,
            by="answer",
            ratio=0.5,
            engine=EngineRuntime(engine="openai", endpoint="http://x/v1"),
        )


def test_a_model_compresses_traces_and_a_second_call_asks_nothing(tmp_path: Path) -> None:
    rejected: list[dict[str, object]] = []
    arguments = {
        "model": MODELS / "compressor",
        "prompt": (MODELS.parent / "prompts" / "compress.md").read_text().strip(),
        "max_tokens": 120,
        "engine": EngineRuntime(engine="transformers", batch_size=8),
        "folder": tmp_path,
        "on_rejected": rejected.append,
    }
    short = hubkit.compress(traces(), **arguments)
    assert len(short) + len(rejected) == 2 and short
    for row in short:
        assert row["reasoning_tokens"] < row["raw_reasoning_tokens"] and 0 < row["ratio"] < 1
        assert row["messages"][-1]["content"].startswith(f"<think>\n{row['reasoning']}\n</think>")
    folders = sorted((tmp_path / "steps").rglob("record.json"))
    assert hubkit.compress(traces(), **arguments) == short
    assert sorted((tmp_path / "steps").rglob("record.json")) == folders
    with pytest.raises(InputError, match="give `tokenizer`"):
        hubkit.compress(
            traces(), model="served", engine=EngineRuntime(engine="openai", endpoint="http://x/v1")
        )
