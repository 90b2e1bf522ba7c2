"""Checks of a student's training before the run: arguments that clash, adapters that reach no layer, memory, missing
kernels."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any, Final

from hubkit.devices import gpus_of_workers, workers_per_gpu
from hubkit.errors import RecipeError, first_line
from hubkit.hub import download_tokenizer
from hubkit.precision import choose_precision
from hubkit.store import CheckContext
from hubkit.students import kernels, memory
from hubkit.students.loading import no_torchao, on_cpu
from hubkit.students.settings import training_arguments

__all__ = ["base_folder", "check"]

PACKAGES: Final = {"use_liger_kernel": "liger_kernel"}
"""Arguments of SFTConfig that need a package."""


def check(context: CheckContext) -> None:
    """Raise RecipeError if training would fail; print on stderr why it would be slow."""
    base, config = context.models["base"], context.config
    on_cpu(context.runtime["device"])
    # First: transformers does not report a broken torchao, and cannot be imported with it.
    if config["sft"].get("weights") == "bfloat16":
        _check_narrow_weights(config["lora"] is not None, context.here)
    _check_arguments(json.dumps(config["sft"], sort_keys=True), context.here)
    folder = base_folder(base["model"], base["revision"])
    if config["lora"] is None:
        _check_not_quantised(folder, Path(base["model"]).name)
    shape = memory.shape_in(folder, json.dumps(config["lora"], sort_keys=True))
    if shape is None:
        return
    if context.here:
        attention = context.runtime.get("attention", "auto")
        device = memory.device_of(context.runtime["device"])
        accelerate, workers = context.runtime.get("accelerate") or {}, context.runtime.get("workers", 1)
        _check_processes(accelerate.get("num_processes", 1), device, workers)
        if workers > 1 and str(accelerate.get("gpu_ids", "all")) != "all":
            raise RecipeError(
                f"run.accelerate.gpu_ids is {accelerate['gpu_ids']}, and each of run.workers: {workers} would take "
                "these GPUs",
                "leave gpu_ids out: each worker has its share of the GPUs; CUDA_VISIBLE_DEVICES says of which",
            )
        kernels.check_attention(attention, device, _is_narrow(context, device, shape))
        kernels.tell_attention(attention, device)
        kernels.check_linear(folder, device, Path(base["model"]).name)
    _check_memory(context, folder, shape)


@functools.cache  # a base has many students
def base_folder(model: str, revision: str) -> Path:
    """Returns a folder with a base's configuration and tokenizer, fetched without the weights if it is on the Hub."""
    return Path(model) if Path(model).is_dir() else download_tokenizer(model, revision)


def _check_processes(processes: int, device: str, workers: int = 1) -> None:
    """Raise RecipeError where a student's processes are more than the GPUs of its worker: each takes one."""
    import torch

    if device != "cuda" or processes == 1:
        return
    there = torch.cuda.device_count()
    if processes > max(1, there // workers):
        seen = "one GPU" if there == 1 else f"{there} GPUs"
        shared = f", which run.workers: {workers} share" if workers > 1 else ""
        raise RecipeError(
            f"run.accelerate.num_processes is {processes}, and {seen} can be seen{shared}",
            ("lower one of them" if shared else "lower it") + ", or see what CUDA_VISIBLE_DEVICES hides",
        )


def _check_not_quantised(folder: Path, name: str) -> None:
    given = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    if given:
        raise RecipeError(
            f"students of {name}: its weights are quantised ({given.get('quant_method', 'quantization_config')}), and "
            "full fine-tuning trains all of them",
            "take a base that is stored in bfloat16 or float32",
        )


def _check_narrow_weights(adapter: bool, here: bool) -> None:
    if adapter:
        raise RecipeError(
            "sft.weights says how all weights are held in training, and the method trains an adapter",
            "leave sft.weights out: an adapter is float32 on the base as it is stored",
        )
    if here and (why := kernels.why_not("torchao.optim")):
        raise no_torchao(why)


def _check_optimizer(arguments: Any) -> None:
    """Raise transformers' own error for an optimizer whose package is missing."""
    from transformers import Trainer

    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments)
    except ValueError as error:
        if "pass a model" not in str(error):  # those that look at its layers
            raise


@functools.cache  # a method has many students
def _check_arguments(given: str, here: bool) -> None:
    """Build the objects that TRL and transformers would: configuration, optimizer class, schedule."""
    import torch
    from transformers import get_scheduler
    from trl import SFTConfig

    sft = json.loads(given)
    for name, package in PACKAGES.items():
        if here and sft.get(name) and (why := kernels.why_not(package)):
            raise RecipeError(f"sft.{name}: {why}", f"install it, or leave sft.{name} out")
    arguments = training_arguments(sft) | {"bf16": False, "use_cpu": True, "report_to": "none"}
    try:
        with tempfile.TemporaryDirectory() as folder:
            made: Any = SFTConfig(output_dir=folder, **arguments)
        if here:
            _check_optimizer(made)
        weight = torch.nn.Parameter(torch.zeros(1))
        get_scheduler(
            made.lr_scheduler_type,
            optimizer=torch.optim.AdamW([weight], lr=made.learning_rate),
            num_warmup_steps=made.get_warmup_steps(100),
            num_training_steps=100,
            scheduler_specific_kwargs=made.lr_scheduler_kwargs,
        )
    except (ValueError, TypeError, ImportError, KeyError, AttributeError) as error:
        told = first_line(error, 300)
        raise RecipeError(f"sft: {told}", "change the method's sft") from None


def _is_narrow(context: CheckContext, device: str, shape: memory.Shape) -> bool:
    """Whether products will be bfloat16; taken for so on another machine."""
    given: bool | None = context.config["sft"].get("bf16")
    if given is not None:
        return given
    asked = context.runtime.get("precision", "auto")
    return not context.here or choose_precision(asked, device, shape.parameters) == "bfloat16"


def _check_memory(context: CheckContext, folder: Path, shape: memory.Shape) -> None:
    """Raise RecipeError if a student cannot fit on its device, as far as that is known."""
    config, runtime = context.config, context.runtime
    known = runtime.get("gpu_memory_gb")
    if not (context.here or known):
        return
    device = memory.device_of(runtime["device"]) if context.here else "cuda"
    free = memory.whole_bytes(device) if context.here else int(known or 0) * 10**9
    if context.here and device == "cuda":
        free //= workers_per_gpu(gpus_of_workers(runtime.get("workers", 1), runtime["device"]))
    narrow = _is_narrow(context, device, shape)
    # On a CPU rows may be far shorter than the limit: their memory is checked when they are there.
    tokens = config["sft"]["max_length"] if device == "cuda" else 1
    needs = memory.reckon(folder, config, runtime, narrow, device, tokens)
    if needs is not None:
        processes = (runtime.get("accelerate") or {}).get("num_processes", 1) if device == "cpu" else 1
        memory.check_fits(context.step, needs, free // processes, tokens)
