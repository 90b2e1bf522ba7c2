"""A step carried out by a script that Slurm would run, beside the same step on this machine's workers."""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
import warm
from pydantic import ValidationError

from hubkit.engines.kept import kept_engine
from hubkit.errors import GateError
from hubkit.executors import StepCall
from hubkit.executors.call import error_from_json, execute
from hubkit.executors.local import LocalExecutor
from hubkit.executors.slurm import script
from hubkit.recipe.runtime import Resources, Run
from hubkit.store import Record, StepContext, Store

PROBLEMS = [{"problem": f"{n} + {n} =", "answer": str(2 * n)} for n in range(20)]


def problems(root: Path, name: str, source: Path) -> StepCall:
    config = {"source": "file", "path": source.name, "verifier": "math"}
    return StepCall(
        function="hubkit.problems.problems:run",
        step=f"problems/{name}",
        kind="problems",
        version=1,
        key=f"{name:0<64}",
        config=config,
        runtime={"device": "cpu", "threads": 1},
        inputs={},
        folders={},
        models={},
        paths={"source": source},
        root=root,
    )


def contamination(root: Path, train: str, test: str) -> StepCall:
    call = problems(root, "x", root / "x")
    folders = {side: root / "steps" / "problems" / name / f"{name:0<16}" for side, name in
               (("training/problems/train", train), ("test", test))}  # fmt: skip
    values = call.__dict__ | {
        "function": "hubkit.problems.contamination:run",
        "step": "contamination",
        "kind": "contamination",
        "key": "c" * 64,
        "config": {},
        "folders": folders,
        "paths": {},
    }
    return StepCall(**values)


def keeps(context: StepContext) -> None:
    """Leaves 400 MiB in a cycle, as a trainer does."""
    import torch

    cycle: list[object] = [torch.ones(100 << 20)]
    cycle.append(cycle)


class Opened:
    """As the vllm engine, a process with a GPU: open until it is closed."""

    now: ClassVar[list[str]] = []

    def __enter__(self) -> Opened:
        self.now.append("open")
        return self

    def __exit__(self, *_: object) -> None:
        self.now.clear()


def evaluates(context: StepContext) -> None:
    with kept_engine("a student", Opened, keep=True):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("executor", ["ray", "worker"])
def test_an_engine_that_was_kept_ends_before_its_gpu_is_given_away(
    executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next benchmark is another process, and vLLM does not start where the GPU's memory is taken."""
    module = importlib.import_module(f"hubkit.executors.{executor}")
    monkeypatch.setattr(module, "prepare_process", lambda: None)  # this one has other work after it
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    call = replace(problems(tmp_path, "a", tmp_path), function=f"{__name__}:evaluates", paths={})
    call = replace(call, kind="evaluation")
    if executor == "ray":
        assert "record" in module._carry_out(call)
    else:
        (tmp_path / "0.json").write_text(call.to_json())
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["worker", "0"])
        module.main()
    assert Opened.now == []


def test_a_step_leaves_no_memory_behind(tmp_path: Path) -> None:
    import torch

    torch.ones(1)
    call = replace(problems(tmp_path, "a", tmp_path), function=f"{__name__}:keeps", paths={})
    gc.collect()
    before = psutil.Process().memory_info().rss
    gc.disable()  # it may come at any time, or after hours
    try:
        execute(call)
        left = psutil.Process().memory_info().rss - before
    finally:
        gc.enable()
    assert left < 200 << 20


SHAPES = """
from hubkit.executors.call import prepare_process
prepare_process()
import psutil, torch
torch.set_num_threads(1)
weights = torch.zeros(576, 576).bfloat16()
before = psutil.Process().memory_info().rss
for rows in range(101, 700, 2):
    made = torch.zeros(rows, 576).bfloat16() @ weights
    made @ weights.t(), made.t() @ made
print(psutil.Process().memory_info().rss - before)
"""


def test_shapes_that_come_once_do_not_stay_in_memory() -> None:
    """As those of micro-batches: kept compiled, these 900 were 823 MB on a CPU with AMX, and 153 are left."""
    grown = int(warm.run("-c", SHAPES, cold=True).stdout)
    assert grown < 400e6


def test_a_step_without_a_number_of_threads_has_all_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 12)
    source = tmp_path / "problems.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in PROBLEMS))
    call = problems(tmp_path, "aa", source)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    record = execute(StepCall(**call.__dict__ | {"runtime": {"device": "cpu", "threads": None}}))
    assert record.runtime["threads"] == 12 and os.environ["OMP_NUM_THREADS"] == "12"


def test_a_task_makes_what_a_worker_makes_and_tells_what_it_tells(tmp_path: Path) -> None:
    source = tmp_path / 'a file; with "quotes".jsonl'
    source.write_text("\n".join(json.dumps(row) for row in PROBLEMS))
    here, there = tmp_path / "here", tmp_path / "there"
    with LocalExecutor(1) as executor:
        local = [executor.submit(problems(here, name, source)).result() for name in ("aa", "bb")]
        with pytest.raises(GateError) as told:
            executor.submit(contamination(here, "aa", "bb")).result()

    calls = [problems(there, "aa", source), problems(there, "bb", source), contamination(there, "aa", "bb")]
    for index, call in enumerate(calls):
        (tmp_path / f"{index}.json").write_text(call.to_json())
        assert StepCall.from_json(call.to_json()) == call
    text = script("hubkit-0000-problems", [call.step for call in calls], Resources())
    (tmp_path / "steps.sbatch").write_text(text)
    codes = []
    for index in range(len(calls)):
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(index)}
        done = subprocess.run(["bash", "steps.sbatch"], cwd=tmp_path, env=environment, capture_output=True)
        codes.append(done.returncode)
    assert codes == [0, 0, 1]
    remote = [Store(there).find(call.step, call.key) for call in calls[:2]]
    assert [same(record) for record in remote] == [same(record) for record in local]
    failed = error_from_json(json.loads((tmp_path / "2.error.json").read_text()))
    assert type(failed) is GateError and str(failed) == str(told.value)


def same(record: Record | None) -> object:
    """What a record says of a step's output: bytes and counts, not when and how fast."""
    assert record is not None
    return record.output, record.files, record.counts, record.metrics


def test_the_script_says_what_the_recipe_asks_for() -> None:
    asked = Resources(
        cpus=4, gpus=2, memory_gb=64, partition="gpu", account="lab", time="2-00:00:00", sbatch=["--qos=high"]
    )
    lines = script("hubkit-0001-traces", ["traces/sage/0", "traces/sage/1"], asked).splitlines()
    wanted = [
        "--array=0-1", "--cpus-per-task=4", "--gres=gpu:2", "--mem=64G", "--partition=gpu", "--account=lab",
        "--time=2-00:00:00", "--qos=high",
    ]  # fmt: skip
    assert {f"#SBATCH {option}" for option in wanted} <= set(lines)
    assert "#    1  traces/sage/1" in lines


@pytest.mark.parametrize(
    "asked",
    [
        {"partition": "gpu\ntouch /tmp/x"},
        {"account": "a b"},
        {"sbatch": ["--qos=high\ntouch /tmp/x"]},
        {"sbatch": ["touch /tmp/x"]},
        {"gpus": -1},
    ],
)
def test_no_resource_can_add_a_line_to_the_script(asked: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Resources.model_validate(asked)


def test_resources_are_by_kind_of_step() -> None:
    run = Run.model_validate({"resources": {"default": {"cpus": 2}, "traces": {"gpus": 1}}})
    assert (run.resources_of("traces").gpus, run.resources_of("raw").cpus) == (1, 2)
    assert Run().resources_of("raw") == Resources()
    with pytest.raises(ValidationError):
        Run.model_validate({"resources": {"trace": {"gpus": 1}}})
