"""What training would refuse, or do without effect, is told before the run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from students_support import LORA, SFT, context, rows
from support import MODELS

from hubkit.errors import RecipeError
from hubkit.store import CheckContext
from hubkit.students import preflight, student


def checked(sft: dict[str, Any], lora: dict[str, Any] | None = None, **runtime: Any) -> None:
    preflight.check(
        CheckContext(
            step="student/a",
            config={"sft": SFT | sft, "lora": lora},
            runtime={"device": "cpu", "accelerate": {}} | runtime,
            models={"base": {"model": str(MODELS / "student-s"), "revision": ""}},
            problems=set(),
            inputs=set(),
            here=True,
        )
    )


@pytest.mark.parametrize(
    "sft",
    [
        {},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        {"optim": "adafactor", "warmup_steps": 3},
        {"loss_type": "dft", "gradient_checkpointing": True},
    ],
)
def test_arguments_that_go_together_pass(sft: dict[str, Any]) -> None:
    checked(sft)


def test_more_processes_than_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RecipeError, match=r"num_processes is 2, and one GPU can be seen"):
        preflight._check_processes(2, "cuda")
    preflight._check_processes(1, "cuda")
    preflight._check_processes(2, "cpu")


def test_gpus_that_all_workers_would_take_are_told() -> None:
    """accelerate puts gpu_ids in place of the GPUs that a worker was given."""
    checked({}, accelerate={"num_processes": 1, "gpu_ids": "0"})
    checked({}, accelerate={"num_processes": 1, "gpu_ids": "all"}, workers=2)
    with pytest.raises(RecipeError, match=r"gpu_ids is 0, and each of run\.workers: 2 would take"):
        checked({}, accelerate={"num_processes": 1, "gpu_ids": 0}, workers=2)


@pytest.mark.parametrize("device", ["cuda:1", "mps", "xpu:0"])
def test_a_device_that_training_would_not_take_is_told(device: str, tmp_path: Path) -> None:
    """It took the first GPU whatever the number, and asked a GPU of CUDA for its memory whatever the kind."""
    with pytest.raises(RecipeError, match=f"run.device is {device}, and students") as told:
        checked({}, device=device)
    assert "CUDA_VISIBLE_DEVICES" in told.value.remedy
    step = context(tmp_path, rows())
    step.runtime["device"] = device
    with pytest.raises(RecipeError, match=r"run\.device"):
        student.run(step)


def test_a_student_that_asked_a_cluster_for_gpus_does_not_train_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    step = context(tmp_path, rows())
    step.runtime |= {"device": "auto", "gpus": 2}
    with pytest.raises(RecipeError, match="asks for gpus: 2, and torch sees none on this node") as told:
        student.run(step)
    assert "run.device: cpu" in told.value.remedy


@pytest.mark.parametrize(
    ("sft", "told"),
    [
        ({"optim": "adamw_bnb_8bit"}, "bitsandbytes|bnb"),
        ({"optim": "apollo_adamw"}, "apollo"),
        ({"optim": "no-such"}, "no-such"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr"),
        ({"lr_scheduler_type": "sideways"}, "sideways"),
        ({"lr_scheduler_kwargs": {"min_lr_rate": 0.1}}, "min_lr_rate"),
        ({"use_liger_kernel": True}, "liger_kernel"),
    ],
)
def test_arguments_that_clash_are_told(sft: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=f"sft.*({told})"):
        checked(sft)


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        ({"target_modules": ["query_key_value"]}, "query_key_value"),
        ({"layers_to_transform": [99], "target_modules": ["q_proj"]}, "[Tt]arget modules|layers"),
    ],
)
def test_adapters_that_reach_nothing_are_told(lora: dict[str, Any], told: str) -> None:
    checked({}, LORA)
    with pytest.raises(RecipeError, match=f"lora: .*({told})"):
        checked({}, LORA | lora)


def test_narrow_weights_without_their_optimizer_or_of_an_adapter_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchao" else found(name))
    with pytest.raises(RecipeError, match="torchao is not installed"):
        checked({"weights": "bfloat16"})
    with pytest.raises(RecipeError, match="trains an adapter"):
        checked({"weights": "bfloat16"}, LORA)


@pytest.mark.parametrize("name", ["flash_attention_2", "no-such-attention"])
def test_attention_that_does_not_run_here_is_told(name: str) -> None:
    checked({}, attention="sdpa")
    with pytest.raises(RecipeError, match=f"run.attention: {name} does not run here"):
        checked({}, attention=name)
