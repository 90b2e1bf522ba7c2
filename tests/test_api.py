"""The Python API: what `import hubkit` gives, used as its documentation says."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import MODELS

import hubkit
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import InputError
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
