"""Distillation: one student from one variant, by supervised fine-tuning with TRL.

    rows {"messages": [{"role": "user", …}, {"role": "assistant", "content": "<think>\\n…"}], …}
    -> model/ (config, weights or adapter, tokenizer), training.json (the log), and in the record
       {"train_rows": 692, "train_tokens": 353012, "train_seconds": 41.2, "final_loss": 0.11, …}

Only the assistant's tokens have a loss. The recipe decides which examples make an optimizer step, the machine how they
are laid out in memory: steps.py. With `run.accelerate` each of several processes runs `train`, and takes its share of
every step: launch.py.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hubkit.allocator import return_freed
from hubkit.engines.weights import MISFIT_REMEDY, misfit, stored_shapes
from hubkit.errors import GateError, StepError, first_line
from hubkit.hub import weight_shapes
from hubkit.store import CheckContext, StepContext, write_json
from hubkit.students import launch, memory, preflight
from hubkit.students.gates import check_base, open_tokenizer
from hubkit.students.loading import examples_per_step, library_warnings, open_trainer
from hubkit.students.rows import TokenRows
from hubkit.students.steps import steps_of_epoch
from hubkit.students.watch import watcher

__all__ = ["VERSION", "check", "disk", "run", "train"]

VERSION: Final = 2


def check(context: CheckContext) -> None:
    """Run the checks of training data now: otherwise an unsuitable chat template would be found after days of
    generation."""
    base = context.models["base"]
    mix = context.config.get("mix", {})
    _check_base(
        base["model"],
        base["revision"],
        context.config.get("chat_template", ""),
        context.config["system"],
        mix.get("variable", ""),
        tuple(part["level"] for part in mix.get("levels", ())),
    )
    if accelerate := context.runtime.get("accelerate"):
        _check_accelerate(json.dumps(accelerate))
    preflight.check(context)


def disk(context: CheckContext) -> memory.Disk:
    """Returns the bytes that the step writes into the runs folder."""
    base = context.models["base"]
    return memory.disk_of(preflight.base_folder(base["model"], base["revision"]), context.config)


@functools.cache  # a base has many students
def _check_base(
    model: str, revision: str, chat_template: str, system: str, variable: str, levels: tuple[str, ...]
) -> None:
    local = Path(model).is_dir()
    shapes = stored_shapes(Path(model)) if local else weight_shapes(model, revision)
    folder = preflight.base_folder(model, revision)
    name = Path(model).name
    try:
        check_base(folder, chat_template, system, variable, levels)
        told = misfit(folder, shapes)
    except GateError as error:
        raise GateError(f"students of {name}: {error.message}", error.remedy) from error
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise GateError(
            f"students of {name}: its configuration or tokenizer cannot be read: {first_line(error)}",
            "choose another base, or fix its files",
        ) from error
    if told:
        raise GateError(f"students of {name}: {told}", MISFIT_REMEDY)


@functools.cache
def _check_accelerate(given: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        launch.check_accelerate(json.loads(given), Path(folder))


def run(context: StepContext) -> None:
    """Train, and write model/ and training.json."""
    _discard_other_checkpoints(context)
    _last_checkpoint(context.work / "checkpoints")  # removes torn ones, before several processes look for it
    if context.runtime.get("accelerate"):
        launch.launch(context, train)
    else:
        train(context)


def _discard_other_checkpoints(context: StepContext) -> None:
    """Remove checkpoints of another `run.accelerate` that this one cannot read, and report that."""
    accelerate = context.runtime.get("accelerate") or {}
    form = {
        "FSDP": f"FSDP, {(accelerate.get('fsdp_config') or {}).get('fsdp_state_dict_type')}",
        "DEEPSPEED": f"DeepSpeed, {accelerate.get('num_processes')} processes",
    }.get(accelerate.get("distributed_type", ""), "whole")
    note, folder = context.work / "form.json", context.work / "checkpoints"
    before = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else "whole"
    if folder.is_dir() and before != form:
        print(
            f"warning: {context.step}: its checkpoints ({before}) cannot be read as run.accelerate is now ({form}): it "
            "begins again",
            file=sys.stderr,
        )
        shutil.rmtree(folder)
    write_json(note, form)


def train(context: StepContext) -> None:
    """Train in this process, which may be one of several; the first one writes."""
    import torch

    torch.set_num_threads(context.runtime["threads"])
    try:
        with library_warnings(context.step) as warned:
            _train_and_write(context)
    except (RuntimeError, MemoryError) as error:  # not of a step's tokens, which trainer.py sees to
        if not memory.ran_out(error):
            raise
        raise StepError(
            f"{context.step}: out of memory: {first_line(error, 160)}",
            "lower run.tokens_per_device or sft.max_length, train an adapter (lora), or spread the model with "
            "run.accelerate",
        ) from error
    finally:
        return_freed()
    if warned:
        write_json(context.work / "warnings.json", warned)


def _train_and_write(context: StepContext) -> None:
    memory.begin_peak()
    base = context.model("base")
    tokenizer = open_tokenizer(base, context.config.get("chat_template", ""))
    levels = [part["level"] for part in context.config.get("mix", {}).get("levels", ())]
    tokens, *others = [context.inputs[f"tokens-{level}"] for level in levels] or [context.inputs["tokens"]]
    rows = TokenRows(
        tokens,
        context.inputs["rows"],
        context.config["sft"]["max_length"],
        context.config["max_cut_share"],
        others,
    )
    trainer, dtype = open_trainer(context, base, tokenizer, rows)
    parameters = list(trainer.model.parameters())
    context.metrics.update(
        train_rows=len(rows),
        cut_share=rows.cut_share,
        parameters=sum(p.numel() for p in parameters),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
    )
    _train(context, trainer, [rows.dataset[place]["input_ids"] for place in (0, -1)])
    context.metrics["peak_memory_bytes"] = memory.peak_bytes(trainer.args.device.type)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    context.metrics.update(
        train_tokens=_trained(trainer, rows.lengths, rows.forms),
        loss_tokens=_trained(trainer, rows.trained, rows.forms),
        examples_per_step=examples_per_step(context.config["sft"]),
        tokens_per_device=trainer.layout.tokens,
        gradient_checkpointing=trainer.args.gradient_checkpointing,
        steps=trainer.state.global_step,
        final_loss=history[-1]["loss"] if history else None,
    )
    context.count("rows", len(rows))
    weights = _weights(trainer)
    if not trainer.is_world_process_zero():
        return
    # Speeds go into the record and not into files: the same student trained twice must have the same files.
    write_json(
        context.out / "training.json",
        [
            {name: value for name, value in entry.items() if not name.endswith(("_runtime", "_per_second"))}
            for entry in trainer.state.log_history
        ],
    )
    _save(context, trainer.model, weights, tokenizer, dtype)


def _trained(trainer: Any, numbers: list[int], forms: int) -> int:
    """Returns the sum of a number per row and form over all steps, with each row as often as it was trained on."""
    import numpy as np

    of_row, left, epoch, found = np.asarray(numbers), trainer.state.global_step, 0, 0
    while left > 0:
        per_step, seed = trainer.args.per_device_train_batch_size, trainer.args.data_seed
        steps = steps_of_epoch(len(of_row) // forms, per_step, seed, epoch, forms=forms)
        found += int(sum(of_row[step].sum() for step in steps[:left]))
        left, epoch = left - len(steps), epoch + 1
    return found


def _train(context: StepContext, trainer: Any, examples: Sequence[Sequence[int]]) -> None:
    """Train from the last whole checkpoint. Time spent before a kill counts, up to that checkpoint."""
    from transformers import PrinterCallback

    checkpoint = _last_checkpoint(context.work / "checkpoints")
    watch = watcher(context, trainer, examples, resumed=checkpoint is not None)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = watch.seconds()
    context.metrics.update(
        train_seconds=round(seconds["seconds"], 3),
        train_cpu_seconds=round(seconds["cpu_seconds"], 3),
        **watch.gate,
    )


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; torn ones, whose trainer state was not written yet, are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True)
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return path
        except (OSError, ValueError):
            shutil.rmtree(path)
    return None


def _weights(trainer: Any) -> dict[str, Any] | None:
    """Returns all weights gathered in the first process, if they may be spread over processes. Returns None in a single
    process."""
    if trainer.args.world_size == 1:
        return None
    weights: dict[str, Any] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return weights


def _save(
    context: StepContext, model: Any, weights: dict[str, Any] | None, tokenizer: Any, dtype: Any
) -> None:
    """Write weights (in the base's type) or adapter, with tokenizer and chat template, and nothing else."""
    folder = context.out / "model"
    if weights is None:
        model.to(dtype)
    else:
        # Tied weights stay tied; gathered from shards they are two equal copies.
        tied = model.all_tied_weights_keys
        weights = {name: weight for name, weight in weights.items() if name not in tied}
        cast: dict[int, Any] = {}
        weights = {name: cast.setdefault(w.data_ptr(), w.to(dtype)) for name, w in weights.items()}
        model.config.dtype = dtype
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
    for name in ("README.md", "training_args.bin"):
        (folder / name).unlink(missing_ok=True)
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        told = json.loads(adapter.read_text())
        # Publishing puts the base's Hub id here; a folder of this machine is no use to anyone.
        told["base_model_name_or_path"] = context.config["base"]
        # PEFT has a set of them, written in another order by each process.
        if isinstance(told["target_modules"], list):
            told["target_modules"].sort()
        write_json(adapter, told)
