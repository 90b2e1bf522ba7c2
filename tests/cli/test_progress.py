from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from support import NANO, hubkit

from hubkit.cli.progress import Display, Pace
from hubkit.recipe.graph import Step
from hubkit.recipe.pipeline import State


def test_the_estimated_end_follows_the_pace_of_the_last_minutes() -> None:
    pace = Pace()
    assert pace.left_s(900_000, 1_000_000, 0.0) is None  # a resumed step begins where it was
    assert pace.left_s(901_000, 1_000_000, 10.0) == pytest.approx(990)
    assert pace.left_s(901_100, 1_000_000, 320.0) is None  # nothing that is recent enough to compare with
    assert pace.left_s(901_200, 1_000_000, 330.0) == pytest.approx(9880)
    assert pace.left_s(901_200, 1_000_000, 330.0) == pytest.approx(9880)


def test_progress_is_a_json_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    state = State(Step("raw", "raw/sage", "hubkit.traces.variants.raw:run", {}), "ready", "key")
    with Display("tiny", 1, as_json=True) as display:
        display.on_event("start", state, {})
        for done in range(1, 100):
            info = {
                "step": "raw/sage",
                "done": done,
                "total": 100,
                "time": 0.0,
                "age_s": 0.1,
                "kept": done // 2,
            }
            display.on_event("progress", state, info | {"failed": 0})
    start, *lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert start["event"] == "start"
    assert lines == [
        {"event": "progress", "step": "raw/sage", "done": 1, "total": 100, "failed": 0, "kept_share": 0.0}
    ]


def test_a_bar_says_the_same() -> None:
    state = State(Step("traces", "traces/sage/0", "hubkit.traces.origins.teacher:run", {}), "ready", "key")
    display = Display("tiny", 1, as_json=False)
    display.on_event("start", state, {})
    told = {"tokens_per_s": 5120, "prompt_tokens_per_s": 310, "in_flight": 256, "failed": 2, "kept": 20}
    display.on_event("progress", state, {"done": 40, "total": 100, "time": 0.0} | told)
    assert display._progress.tasks[-1].fields["info"] == (
        "5120 tok/s out, 310 tok/s in, 256 in flight, 2 failed, kept 50%"
    )


@pytest.mark.parametrize("width", [200, 140, 80, 60, 40])
def test_names_of_steps_are_whole_at_any_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = [
        "compress/nano-teacher/nano-compressor/0",
        "student/s-[bold]-compressed-nano-compressor-lora-seed1",
    ]
    display = Display("compress-distill-with-a-long-name", 130, as_json=False)
    told = {"tokens_per_s": 5120.4, "prompt_tokens_per_s": 310.0, "in_flight": 256, "failed": 2, "kept": 20}
    for name in names:
        state = State(Step("student", name, "hubkit.students.sft:run", {}), "ready", "key")
        display.on_event("start", state, {})
        display.on_event("progress", state, {"done": 4000, "total": 10000, "time": 0.0} | told)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(display._progress.get_renderable())
    lines = console.export_text().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    # Where a name is wider than the terminal it folds. Times stand at the right.
    text = "".join(re.sub(r" +[0-9-]:[0-9-]{2}:[0-9-]{2} *$", "", line).strip() for line in lines)
    for name in [*names, "compress-distill-with-a-long-name"]:
        assert name in text
    assert "5,120" in text


def test_a_run_tells_scripts_how_far_it_is(tmp_path: Path) -> None:
    small = ["--set", "problems.train.size=12", "--set", "teachers.0.samples=1"]
    done = hubkit("recipe", "run", str(NANO), *small, "--until", "traces", "--out", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    events = [line["event"] for line in lines]
    assert events.count("done") == 3 and "progress" in events
    for line in lines:
        if line["event"] == "progress":
            assert line["done"] <= line["total"] and line["step"].split("/")[0] in ("problems", "traces")
