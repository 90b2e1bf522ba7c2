"""The model and TRL's trainer for a student: which files are loaded, in which precision, with which arguments.

The policy of precision: weights, gradients and moments of full fine-tuning are float32, since at the learning rates of
fine-tuning most updates of bfloat16 weights round to zero; products are bfloat16 on devices where that is faster
(hubkit/precision.py). An adapter is float32; with bfloat16 products its base has the type in which it is stored.
`sft.weights: bfloat16` is for an optimizer that rounds stochastically (torchao).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hubkit.allocator import keep_freed
from hubkit.devices import unseen_gpu
from hubkit.engines.weights import load_model, read_config
from hubkit.errors import RecipeError, first_line
from hubkit.precision import choose_precision, parameter_count
from hubkit.store import StepContext
from hubkit.students import memory
from hubkit.students.adapters import uncovered
from hubkit.students.kernels import why_not
from hubkit.students.rows import TokenRows
from hubkit.students.settings import training_arguments
from hubkit.students.steps import Layout, total_steps
from hubkit.students.trainer import trainer_class

__all__ = [
    "examples_per_step",
    "keep_blocks_that_exist",
    "library_warnings",
    "make_saveable",
    "no_torchao",
    "on_cpu",
    "open_trainer",
    "rounding_optimizer",
]

TOKENS_PER_DEVICE: Final = 8192
"""Maximum tokens of a micro-batch if the recipe does not say and memory allows: more are not faster."""
ENOUGH: Final = 4096
"""Tokens of a micro-batch for which activations that are computed twice would cost more than a larger one gains."""


def examples_per_step(sft: dict[str, Any]) -> int:
    """Examples of one optimizer step, over all devices and processes."""
    return int(sft["per_device_train_batch_size"] * sft["gradient_accumulation_steps"])


def on_cpu(device: str) -> bool:
    """Whether a training with this `run.device` is on a CPU. Raises RecipeError for a device that it would not take."""
    import torch

    if not re.fullmatch(r"auto|cpu|cuda(:0)?", device):
        raise RecipeError(
            f"run.device is {device}, and students are trained on a CPU or on the first GPU that can be seen",
            "set run.device: auto; CUDA_VISIBLE_DEVICES says which GPU is the first",
        )
    return device == "cpu" or (device == "auto" and not torch.cuda.is_available())


def open_trainer(context: StepContext, base: Path, tokenizer: Any, rows: TokenRows) -> tuple[Any, Any]:
    """Returns TRL's trainer over prepared tokens, and the base's stored dtype, in which the student is written."""
    import torch
    from transformers import AutoModelForCausalLM, set_seed
    from trl import SFTConfig

    config, sft = context.config, dict(context.config["sft"])
    cpu = on_cpu(context.runtime["device"])
    if cpu and context.runtime["device"] == "auto" and (gpus := context.runtime.get("gpus")):
        why = unseen_gpu() or "no driver is there"
        raise RecipeError(
            f"{context.step}: run.resources.student asks for gpus: {gpus}, and torch sees none on this node ({why})",
            "install a torch for its GPUs, or set run.device: cpu",
        )
    set_seed(config["seed"])  # LoRA's initial weights are drawn before the trainer sets its own seed
    stored = read_config(base).dtype or torch.float32
    if sft.get("bf16") is None:
        asked = context.runtime.get("precision", "auto")
        sft["bf16"] = choose_precision(asked, "cpu" if cpu else "cuda", parameter_count(base)) == "bfloat16"
    context.metrics.update(
        precision="bfloat16" if sft["bf16"] else "float32", device="cpu" if cpu else "cuda"
    )
    narrow = sft.get("weights") == "bfloat16"
    sft = training_arguments(sft)
    if not config["lora"]:
        loaded = torch.bfloat16 if narrow else torch.float32
    else:
        # float16 has too small a range to compute in, and bfloat16 too few digits for its values.
        loaded = torch.bfloat16 if stored == torch.bfloat16 and sft["bf16"] else torch.float32
    model = load_model(AutoModelForCausalLM, base, dtype=loaded)
    make_saveable(model)
    keep_blocks_that_exist(model)
    layout, sft["gradient_checkpointing"] = _layout(
        context, base, cpu, bool(sft["bf16"]), max(rows.lengths, default=1)
    )
    per_step = examples_per_step(sft)
    total = total_steps(len(rows), per_step, sft["num_train_epochs"], sft.get("max_steps", -1))
    arguments = SFTConfig(
        # The balancing loss of a mixture of experts, a mean over a micro-batch, only if the recipe asks for it.
        **{"router_aux_loss_coef": 0.0}
        | sft
        | {"per_device_train_batch_size": per_step, "gradient_accumulation_steps": 1},
        output_dir=str(context.work / "checkpoints"),
        seed=config["seed"],
        data_seed=config["seed"],
        use_cpu=cpu,
        logging_steps=max(1, total // 50),
        save_steps=max(1, total),  # the last; others by time: watch.py
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    # Not what a file of `accelerate config` says, which the launcher puts into the environment.
    arguments.mixed_precision = "bf16" if sft["bf16"] else "no"
    if cpu and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        _shard_on_cpu()
    if arguments.n_gpu > 1:
        # Trainer would spread every step over all GPUs it sees.
        arguments._n_gpu = 1
    peft_config = None
    if config["lora"]:
        from peft import LoraConfig

        peft_config = LoraConfig(task_type="CAUSAL_LM", **config["lora"])
    try:
        trainer = trainer_class()(
            lengths=rows.lengths,
            forms=rows.forms,
            layout=layout,
            may_checkpoint=context.config["sft"].get("gradient_checkpointing") == "auto",
            model=model,
            args=arguments,
            train_dataset=rows.dataset,
            processing_class=tokenizer,
            peft_config=peft_config,
            **({"optimizer_cls_and_kwargs": rounding_optimizer(arguments)} if narrow else {}),
        )
    except (
        ValueError
    ) as error:  # what TRL and PEFT refuse: target modules that are not there, settings that clash
        told = first_line(error, 300)
        raise RecipeError(f"{context.step}: {told}", "change the method's sft or lora") from error
    if trainer.accelerator.is_fsdp2 and sft["bf16"]:
        # accelerate would have processes average gradients in what products are in. From there on they are float32.
        plugin = trainer.accelerator.state.fsdp_plugin
        policy = dataclasses.replace(plugin.mixed_precision_policy, reduce_dtype=torch.float32)
        plugin.mixed_precision_policy = policy
    if trainer.args.world_size > 1:  # all processes deal a step alike
        tokens = torch.tensor([trainer.layout.tokens], device=trainer.args.device)
        trainer.layout.tokens = int(trainer.accelerator.gather(tokens).min())
    if config["lora"] and sft["bf16"] and not config["lora"].get("lora_dropout"):
        # PEFT makes a float32 copy of every layer's input, of which autocast makes bfloat16 again.
        for module in trainer.model.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = False
    if config["lora"] and (bare := uncovered(trainer.model)):
        logging.getLogger("hubkit").warning(
            "sft.lora.target_modules leave these linear layers without an adapter: %s", ", ".join(bare)
        )
        context.metrics["lora_without"] = bare
    return trainer, stored


def no_torchao(why: str) -> RecipeError:
    """Returns the error if there is no optimizer for bfloat16 weights."""
    return RecipeError(
        f"sft.weights: bfloat16 needs an optimizer that rounds stochastically, and {why}",
        "pip install torchao, or leave sft.weights out: float32",
    )


def rounding_optimizer(arguments: Any) -> tuple[Any, dict[str, Any]]:
    """Returns AdamW with stochastic rounding of bfloat16 weights, so that small updates count on average.

    Raises RecipeError without torchao.
    """
    if why := why_not("torchao.optim"):
        raise no_torchao(why)
    import torch
    from torchao.optim import _AdamW

    class EagerAdamW(_AdamW):  # type: ignore[misc,unused-ignore]
        """On CPUs its compiled form needs a C++ compiler, and minutes for a small model."""

        def step(self, closure: Any = None) -> Any:
            with torch.compiler.set_stance("force_eager"):
                return super().step(closure)

    return _AdamW if arguments.device.type == "cuda" else EagerAdamW, {
        "lr": arguments.learning_rate,
        "betas": (arguments.adam_beta1, arguments.adam_beta2),
        "eps": arguments.adam_epsilon,
        "bf16_stochastic_round": True,
    }


def _shard_on_cpu() -> None:
    """Use FSDP on CPUs too, where accelerate silently leaves it out, so that each process would hold all weights."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    state = PartialState()
    if state.distributed_type == DistributedType.MULTI_CPU:
        # Read once, by AcceleratorState, which makes FSDP of it.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def _layout(context: StepContext, base: Path, cpu: bool, narrow: bool, longest: int) -> tuple[Layout, bool]:
    """Returns the layout, with as many tokens at once as memory allows, and whether activations are computed twice.

    Which layout is exact is looked at later (exact.py). Raises RecipeError if the longest row alone does not fit.
    """
    device, sft = "cpu" if cpu else "cuda", context.config["sft"]
    tokens = context.runtime.get("tokens_per_device")
    accelerate = context.runtime.get("accelerate") or {}
    checkpoints = bool(sft.get("gradient_checkpointing"))

    def needed(at_once: int, twice: bool = checkpoints) -> memory.Needs | None:
        config = context.config | {"sft": {**sft, "gradient_checkpointing": twice}}
        return memory.reckon(base, config, context.runtime, narrow, device, at_once)

    if needs := needed(longest):
        processes = accelerate.get("num_processes", 1) if cpu else 1
        free = memory.free_bytes(device) // processes
        if cpu:
            free = memory.share_of(context.runtime.get("workers", 1) * processes, free)
        elif (sharing := context.runtime.get("workers_per_gpu", 1)) > 1:
            free = min(free, memory.whole_bytes(device) // sharing)
        memory.check_fits(context.step, needs, free, longest)
        # Several processes have to do the same, whatever is free on the device of each.
        if sft.get("gradient_checkpointing") == "auto" and accelerate.get("num_processes", 1) == 1:
            once = needed(max(longest, tokens or ENOUGH), False)
            checkpoints = once is None or once.total > memory.SLACK * free
            needs = needed(longest, checkpoints) or needs
        tokens = tokens or memory.tokens_that_fit(needs, free, TOKENS_PER_DEVICE)
        reckoned = needed(max(tokens, longest), checkpoints)
        context.metrics["memory_bytes"] = reckoned.total if reckoned else None
        if cpu and reckoned and reckoned.total * memory.FRAGMENTS <= free:
            keep_freed()
    packed = context.runtime.get("layout", "auto") == "packed"
    return Layout(packed=packed, tokens=tokens or TOKENS_PER_DEVICE), checkpoints


def make_saveable(model: Any) -> None:
    """Fix a generation_config.json that transformers reads but refuses to write, as it does at every checkpoint.

    Often it has sampling parameters without do_sample, which is then set.
    """
    from transformers import GenerationConfig

    generation = model.generation_config
    for change in ({}, {"do_sample": True}):
        for name, value in change.items():
            setattr(generation, name, value)
        try:
            generation.validate(strict=True)
            return
        except (ValueError, TypeError) as error:
            reason = first_line(error)
    kept = {name: getattr(generation, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**kept)
    logging.getLogger("hubkit").warning(
        "the base's generation_config.json does not validate (%s); the student keeps its end tokens alone",
        reason,
    )


def keep_blocks_that_exist(model: Any) -> None:
    """Remove blocks that a model does not have from its list of blocks, by which FSDP shards.

    The text model of a multimodal family lists its vision blocks, and FSDP then refuses it.
    """
    there = {type(module).__name__ for module in model.modules()}
    model._no_split_modules = {name for name in model._no_split_modules or () if name in there}


@contextmanager
def library_warnings(step: str) -> Iterator[list[str]]:
    """Collect the warnings of libraries, each once, and print them on stderr at once."""
    import datasets
    import transformers

    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = " ".join(record.getMessage().split())[:500]
            if text not in lines and not any(part in text for part in HARMLESS):
                lines.append(text)
                if "RANK" not in os.environ:  # several processes write to a log; `launch` tells what they met
                    print(f"warning: {step}: {text}", file=sys.stderr)

    datasets.disable_progress_bars()
    transformers.logging.disable_progress_bar()
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_warning()
    transformers.logging.disable_default_handler()
    collect = Collect(logging.WARNING)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    logging.captureWarnings(True)
    for logger in loggers:
        logger.addHandler(collect)
    try:
        yield lines
    finally:
        for logger in loggers:
            logger.removeHandler(collect)
        logging.captureWarnings(False)
        transformers.logging.enable_default_handler()
        transformers.logging.set_verbosity(before)


LOGGERS: Final = ("transformers", "trl", "peft", "accelerate", "py.warnings", "hubkit", "fla", "torch")
HARMLESS: Final = (
    "have been updated accordingly",  # that pad_token_id of the model follows the tokenizer
    "lr_scheduler.step()",
    "mtime may not be reliable",  # checkpoints are ordered by their numbers then
    "use_reentrant",
    "resource_tracker",
    "DeprecationWarning",
    "FutureWarning",
)
"""Parts of warnings that say nothing about a student."""
