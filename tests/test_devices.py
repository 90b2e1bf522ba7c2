"""GPUs that are shared out to workers, and one that torch does not see. No test needs a GPU: the driver's files and
torch's answers are given."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from support import NANO

from hubkit import devices
from hubkit.errors import RecipeError
from hubkit.executors.local import LocalExecutor
from hubkit.recipe import preflight
from hubkit.recipe.file import load_recipe
from hubkit.recipe.pipeline import status
from hubkit.recipe.plan import make_plan
from hubkit.store import Store
from hubkit.students import preflight as students


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(devices, "NODES", (str(tmp_path / "nvidia0"),))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def four(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5,6")


def test_workers_have_their_own_gpus(four: None) -> None:
    assert devices.gpus_of_workers(2, "auto") == [["3", "4"], ["5", "6"]]
    assert devices.gpus_of_workers(3, "cuda") == [["3"], ["4"], ["5", "6"]]
    six = devices.gpus_of_workers(6, "auto")
    assert six == [["3"], ["4"], ["5"], ["6"], ["3"], ["4"]] and devices.workers_per_gpu(six) == 2
    for workers, device in [(1, "auto"), (2, "cpu"), (2, "cuda:1")]:
        assert devices.gpus_of_workers(workers, device) == []
    assert devices.workers_per_gpu([]) == 1


def test_without_a_driver_nothing_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "NODES", ())
    assert devices.gpus_of_workers(2, "auto") == [] and devices.unseen_gpu() == ""


def _seen() -> str:
    import time

    time.sleep(1)  # so that the pool starts another worker for the next
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all")


def test_each_worker_process_sees_its_share_alone(four: None) -> None:
    with LocalExecutor(2, "auto") as executor:
        found = [executor._pool.submit(_seen) for _ in range(2)]
        assert sorted(future.result() for future in found) == ["3,4", "5,6"]


@pytest.mark.parametrize(
    ("hidden", "cuda", "told"),
    [
        (None, None, "built without CUDA"),
        ("", "12.8", "CUDA_VISIBLE_DEVICES is ''"),
        (None, "12.8", "driver on your system is too old"),
    ],
)
def test_a_gpu_that_torch_does_not_see_is_told(
    driver: None, hidden: str | None, cuda: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warnings

    def available() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old (found 11040)")  # noqa: B028
        return False

    monkeypatch.setattr(torch.cuda, "is_available", available)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert told in devices.unseen_gpu()


def checked(tmp_path: Path, *values: str) -> None:
    plan = make_plan(load_recipe(NANO, list(values)), NANO, tmp_path)
    preflight._check_devices(plan, status(plan, Store(tmp_path)))


def test_a_run_says_before_it_begins_that_its_gpu_is_unused(
    driver: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It trained on the CPU without a word."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    checked(tmp_path, "run.device=auto")
    told = capsys.readouterr().err
    assert told.startswith("warning: run.device is auto, and steps run on the CPU") and told.count("\n") == 1
    assert "built without CUDA" in told
    checked(tmp_path, "run.device=cpu")
    assert capsys.readouterr().err == ""
    with pytest.raises(RecipeError, match=r"is cuda and torch sees no GPU \(this torch"):
        checked(tmp_path, "run.device=cuda")


def test_workers_that_share_a_gpu_are_told_and_what_they_cannot_share_is_refused(
    four: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All processes took the first GPU."""
    checked(tmp_path, "run.device=auto", "run.workers=4")
    assert capsys.readouterr().err == ""
    checked(tmp_path, "run.device=auto", "run.workers=8")
    assert "up to 2 steps share one" in capsys.readouterr().err
    engine = "run.engines.nano-teacher={engine: vllm, vllm: {tensor_parallel_size: 2}}"
    checked(tmp_path, "run.device=auto", "run.workers=2", engine)
    with pytest.raises(RecipeError, match=r"workers is 4, of which each has 1 of the GPUs.* takes 2"):
        checked(tmp_path, "run.device=auto", "run.workers=4", engine)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    students._check_processes(2, "cuda", 2)
    with pytest.raises(RecipeError, match=r"is 4, and 4 GPUs can be seen, which run\.workers: 2"):
        students._check_processes(4, "cuda", 2)


def test_students_on_a_shared_gpu_take_their_share_of_its_memory(
    four: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubkit.students import loading, memory

    seen: list[int] = []
    needs: Any = memory.Needs(0, 0, 0, 0, 0, 0, 0, 0, 1.0, 0.0)
    monkeypatch.setattr(memory, "reckon", lambda *_: needs)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 80)
    monkeypatch.setattr(memory, "whole_bytes", lambda device: 100)
    monkeypatch.setattr(memory, "check_fits", lambda step, needs, free, tokens: seen.append(free))
    for runtime in ({}, {"workers_per_gpu": 2}):
        context: Any = type(
            "Context", (), {"runtime": runtime, "config": {"sft": {}}, "metrics": {}, "step": "s"}
        )()
        loading._layout(context, tmp_path, cpu=False, narrow=True, longest=1)
    assert seen == [80, 50]
