"""A teacher behind a real endpoint: what its answers become, and when it is not paid any longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openai_server import OpenAIServer

from hubkit.engines.settings import EngineRuntime
from hubkit.errors import EngineError, GateError, HubkitError
from hubkit.records import PROBLEM_SCHEMA, read_rows, write_rows
from hubkit.store import StepContext
from hubkit.traces.origins import teacher
from hubkit.traces.variants.raw import reject_reason


class Stubborn(OpenAIServer):
    """Says the same to every request."""

    def __init__(self, **message: Any) -> None:
        super().__init__()
        self._message = message

    def _answer(self, text: str) -> dict[str, Any]:
        self.answers.setdefault(text, self._message)
        return super()._answer(text)


def step(folder: Path, server: OpenAIServer, problems: int, **config: Any) -> StepContext:
    empty = dict.fromkeys(PROBLEM_SCHEMA.names, "")
    rows = [empty | {"id": f"p-{i}", "problem": f"{i}?", "verifier": "exact"} for i in range(problems)]
    write_rows(folder / "problems" / "problems.parquet", rows, PROBLEM_SCHEMA)
    engine = EngineRuntime(engine="openai", endpoint=server.endpoint, window=8, tries=1, timeout_s=20)
    made = StepContext(
        step="traces/t/0",
        config={
            "teacher": "t",
            "samples": 1,
            "system": "",
            "seed": 0,
            "shard": [0, 1],
            "sampling": {"max_tokens": 9},
        }
        | config,
        runtime={"engine": engine.model_dump(mode="json"), "device": "cpu", "threads": 1},
        inputs={"problems": folder / "problems"},
        models={"teacher": {"model": "org/m", "revision": "0" * 40}},
        out=folder / "out",
        work=folder / "work",
    )
    made.out.mkdir(exist_ok=True)
    made.work.mkdir(exist_ok=True)
    return made


@pytest.mark.parametrize(
    ("message", "error", "why", "remedy"),
    [
        ({"content": None}, GateError, "no thinking span", "reasoning model"),
        ({"content": "5"}, GateError, "no thinking span", "thinking: {open"),
        ({"content": "<think>a"}, GateError, "never ends", "max_tokens"),
        ({"content": "<think>a</think>"}, GateError, "nothing after the thinking span", "content"),
        ({"content": None, "reasoning": "a"}, GateError, "nothing after the thinking span", "content"),
        ({"content": "<think>a", "finish_reason": "length"}, GateError, "cut at max_tokens", "max_tokens"),
        ({"finish_reason": "repetition"}, GateError, "the server ended it: repetition", "finish reason"),
        ({"content": None, "refusal": "No."}, GateError, "the server ended it: refusal", "finish reason"),
        ({"content": 5}, EngineError, "content is not text", "engine"),
    ],
)
def test_answers_that_can_never_be_used_are_paid_for_32_times_at_most(
    tmp_path: Path, message: dict[str, Any], error: type[HubkitError], why: str, remedy: str
) -> None:
    with Stubborn(**message) as server:
        made = step(tmp_path, server, 120)
        with pytest.raises(error, match=why) as caught:
            teacher.run(made)
        assert remedy in caught.value.remedy
        assert len(server.requests) <= 32 + 2 * 8, "and those that were under way"


def test_one_useful_answer_among_the_first_is_enough(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        server.answers = {f"{i}?": {"content": None} for i in range(120) if i != 20}
        made = step(tmp_path, server, 120)
        teacher.run(made)
        assert len(server.requests) == 120
    reasons = [found and found[0] for found in map(reject_reason, read_rows(made.out / "traces.parquet"))]
    assert reasons.count(None) == 1 and reasons.count("no_thinking") == 119


def test_finish_reasons_are_counted_and_reject_a_trace_for_a_true_reason(tmp_path: Path) -> None:
    cases = {
        "0?": ({"finish_reason": "content_filter"}, "unfinished", "content_filter"),
        "1?": ({"finish_reason": None}, "unfinished", "unknown"),
        "2?": ({"content": "<think>a", "finish_reason": "stop"}, "unclosed", "never ends"),
        "3?": ({"content": "5"}, "no_thinking", "no thinking span"),
        "4?": ({"finish_reason": "length"}, "length", "max_tokens"),
    }
    with OpenAIServer() as server:
        server.answers = {text: message for text, (message, _, _) in cases.items()}
        made = step(tmp_path, server, 6)
        teacher.run(made)
    found = [reject_reason(trace) for trace in read_rows(made.out / "traces.parquet")]
    assert found[5] is None
    for reason, (_, name, detail) in zip(found, cases.values(), strict=False):
        assert reason and reason[0] == name and detail in reason[1]
    assert made.counts == {"content_filter": 1, "unknown": 1, "stop": 3, "length": 1, "traces": 6}


def test_what_a_teacher_writes_after_its_turn_is_left_out_and_counted(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        server.answers = {
            "0?": {"content": "<think>a</think>5<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n6"}
        }
        made = step(tmp_path, server, 3)
        teacher.run(made)
    first = next(iter(read_rows(made.out / "traces.parquet")))
    assert (first["reasoning"], first["solution"]) == ("a", "5")
    assert made.counts == {"stop": 3, "ran_on": 1, "traces": 3}


def test_a_recipes_own_marks_are_read(tmp_path: Path) -> None:
    with Stubborn(content="{{2 + 3}}5") as server:
        made = step(tmp_path, server, 3, thinking={"open": "{{", "close": "}}"})
        teacher.run(made)
    assert {(row["reasoning"], row["solution"]) for row in read_rows(made.out / "traces.parquet")} == {
        ("2 + 3", "5")
    }


def test_what_a_host_does_not_take_stands_in_the_record(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        server.refuses["seed"] = {"error": {"message": "Unknown parameter: 'seed'.", "param": "seed"}}
        made = step(tmp_path, server, 3)
        teacher.run(made)
    assert made.metrics["sent_otherwise"] == ["seed is not sent"]
