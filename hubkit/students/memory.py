"""Estimates of the memory and disk that training takes, in bytes, from the model's configuration alone.

    Qwen3.5-9B, full, FSDP over 4, 32,768 tokens at once, checkpointing
    -> weights 15.2 GB, gradients 9.0, moments 17.9, activations 29.5, logits 2.0: 75.1 GB on each device

The model is built without storage (torch's meta device), so that every architecture is counted by its own modules.
What a layer keeps for its backward pass was measured (KEPT); the rest is arithmetic.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from hubkit.engines.weights import read_config
from hubkit.errors import RecipeError, first_line
from hubkit.students.adapters import torn_apart
from hubkit.students.settings import training_arguments

__all__ = [
    "Disk",
    "Needs",
    "Shape",
    "begin_peak",
    "check_fits",
    "device_of",
    "disk_of",
    "free_bytes",
    "peak_bytes",
    "ran_out",
    "reckon",
    "shape_in",
    "shape_of",
    "share_of",
    "tokens_that_fit",
    "whole_bytes",
]

PROCESS: Final = {"cpu": 1_100_000_000, "cuda": 1_500_000_000}
"""Bytes of a process with torch, transformers and TRL loaded; on a GPU, of its context and workspaces."""
MOMENTS: Final = {"adamw": 2, "adam": 2, "sgd": 0, "adagrad": 1, "rmsprop": 1, "lion": 1, "adafactor": 0}
"""Beginning of an optimizer's name -> numbers that it keeps for each weight; 2 for all others."""
LOGITS_TOKENS: Final = 2048
"""Tokens whose logits TRL has in memory at once: its loss is computed in tiles."""
KEPT: Final = {(False, False): 5.0, (False, True): 3.3, (True, False): 5.5, (True, True): 4.0}
"""Adapter, bfloat16 products -> bytes for each number that goes into or out of a linear layer. What norms, rotations,
attention and activation functions keep is spread over them. Measured by autograd's own list of saved tensors: on Llama
4.4, 3.0, 4.0, 2.7, and on Qwen3, which also normalises queries and keys, 5.5, 3.6. An adapter's are higher here, since
the peak of a whole process was: for 135M parameters and two rows of 384 tokens (benchmarks/train.py) 4.3, 4.2, 3.2 and
2.6 GiB are reckoned, and 4.2, 3.9, 3.7 and 2.8 were measured."""
DROPPED: Final = {False: 5.9, True: 4.0}
"""bfloat16 products -> further bytes for each input of a linear layer, of which an adapter's dropout keeps the mask and
the result. Measured likewise."""
SLACK: Final = 0.9
"""Share of the free memory that micro-batches may use; the rest is for fragments and everything not estimated."""

FRAGMENTS: Final = 1.25
"""A training on a CPU keeps the memory that it frees (hubkit/allocator.py) if this many times the estimate is free."""


@dataclass(frozen=True)
class Shape:
    """The properties of a model that memory depends on."""

    parameters: int
    trained: int
    """Weights that get a gradient: all, or an adapter's."""
    adapter: bool
    layers: int
    hidden: int
    vocabulary: int
    largest: int
    """Parameters of the largest layer, which a sharded model gathers."""
    inputs: int
    """Inputs of the linear layers of all layers, for each token, without experts that are not chosen."""
    outputs: int


@dataclass(frozen=True)
class Disk:
    """Bytes in the runs folder."""

    kept: int
    """The student."""
    work: int
    """Checkpoints, while it trains."""
    merged: int
    """A copy of the base with the adapter merged, during an evaluation by an engine that needs it."""


@dataclass(frozen=True)
class Needs:
    """Bytes on one device."""

    process: int
    weights: int
    gradients: int
    moments: int
    activations: int
    logits: int
    per_token: float
    """Bytes of activations and logits for each further token of a micro-batch."""

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the number of tokens."""
        return self.process + self.weights + self.gradients + self.moments

    @property
    def total(self) -> int:
        return self.fixed + self.activations + self.logits

    def words(self) -> str:
        parts = [f.name for f in fields(self) if f.name not in ("process", "per_token")]
        return ", ".join(f"{name} {getattr(self, name) / 1e9:.1f} GB" for name in parts)


def shape_of(config: Any, lora: Mapping[str, Any] | None) -> Shape:
    """Returns the shape of the model of a transformers configuration, with its adapter. Allocates nothing.

    Raises RecipeError for an adapter that cannot be merged.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    parameters = sum(p.numel() for p in model.parameters())
    text = config.get_text_config()
    head, inputs, outputs = model.get_output_embeddings(), 0, 0
    chosen = getattr(text, "num_experts_per_tok", None) or getattr(text, "experts_per_token", None) or 1
    blocks = [m for m in model.modules() if type(m).__name__ in (model._no_split_modules or ())]
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            inputs, outputs = inputs + module.in_features, outputs + module.out_features
        for weight in module.parameters(recurse=False):
            if weight.dim() == 3 and not isinstance(module, torch.nn.modules.conv._ConvNd):  # experts
                inputs += chosen * min(weight.shape[1:])
                outputs += chosen * max(weight.shape[1:])
    trained = parameters
    if lora is not None:
        from peft import LoraConfig, get_peft_model

        with torch.device("meta"):
            model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora), low_cpu_mem_usage=True)
        if apart := torn_apart(model):
            names = " and ".join(apart)
            raise RecipeError(
                f"lora: {names} hold one weight in this base, and the adapter would make two of it",
                f"leave {names} out of its targets, or name them in lora.modules_to_save, which are trained whole",
            )
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Shape(
        parameters=parameters,
        trained=trained,
        adapter=lora is not None,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        largest=max((sum(p.numel() for p in block.parameters()) for block in blocks), default=parameters),
        inputs=inputs,
        outputs=outputs,
    )


@functools.lru_cache(maxsize=32)
def shape_in(folder: Path, lora: str) -> Shape | None:
    """Returns the shape of the model in a folder with the adapter of this JSON text.

    Returns None if no model can be built from the configuration. Raises RecipeError for an adapter that reaches no
    layer, or that cannot be merged.
    """
    try:
        config = read_config(folder)
        shape = shape_of(config, None)
    except (ValueError, KeyError, AttributeError, NotImplementedError, RuntimeError, OSError):
        return None  # who loads it tells why
    if json.loads(lora) is None:
        return shape
    try:
        return shape_of(config, json.loads(lora))
    except (ValueError, TypeError, KeyError) as error:
        told = first_line(error, 300)
        raise RecipeError(f"lora: {told}", "change the method's lora") from None
    except (NotImplementedError, RuntimeError):
        return None


def reckon(
    folder: Path,
    config: Mapping[str, Any],
    runtime: Mapping[str, Any],
    narrow: bool,
    device: str,
    tokens: int,
) -> Needs | None:
    """Returns what a student's training needs on each device with this number of `tokens` at once.

    `config` and `runtime` are a student step's; `narrow` says whether products are bfloat16. Returns None for a model
    whose configuration does not say.
    """
    shape = shape_in(folder, json.dumps(config["lora"], sort_keys=True))
    if shape is None:
        return None
    sft = training_arguments(config["sft"])
    width = 2 if config["sft"].get("weights") == "bfloat16" else 4
    if shape.adapter:
        # The base as it is stored where products are bfloat16: loading.py.
        weights = (2 if narrow else 4) * (shape.parameters) + 4 * shape.trained
    else:
        # Under autocast every weight of a product has a copy in bfloat16 until the step ends.
        weights = (width + (2 if narrow and width == 4 else 0)) * shape.parameters
    moments = _moments(sft)
    parts = _sharded(runtime.get("accelerate") or {})
    gathered = 0 if parts["weights"] == 1 else 2 * width * shape.largest
    per_layer = _kept(shape, config["lora"], narrow) / shape.layers
    stream = shape.hidden * (2 if narrow and shape.adapter else 4)
    # With checkpoints each layer keeps its input, and one at a time all else.
    per_token = (
        shape.layers * stream + per_layer if sft.get("gradient_checkpointing") else shape.layers * per_layer
    )
    # The last hidden states, their gradient and two norms are whole; of the logits only tiles.
    per_token += 6 * stream
    full = sft.get("loss_type", "nll") != "nll" or sft.get("label_smoothing_factor", 0)
    logits = (tokens if full else min(tokens, LOGITS_TOKENS)) * shape.vocabulary * (12 if full else 4)
    gradients = width if not shape.adapter else 4
    return Needs(
        process=PROCESS[device],
        weights=round(weights / parts["weights"] + gathered),
        gradients=round(gradients * shape.trained / parts["gradients"]),
        moments=round(gradients * moments * shape.trained / parts["moments"]),
        activations=round(per_token * tokens),
        logits=logits,
        per_token=per_token + (12 * shape.vocabulary if full else 0),
    )


def _moments(sft: Mapping[str, Any]) -> float:
    """Returns the numbers that the optimizer keeps for each weight, in the weight's type."""
    optimizer = str(sft.get("optim", "adamw"))
    numbers = next((n for name, n in MOMENTS.items() if optimizer.startswith(name)), 2)
    return numbers / 4 if "8bit" in optimizer else float(numbers)


def disk_of(folder: Path, config: Mapping[str, Any]) -> Disk:
    """Returns the bytes that a student's step writes; `config` is the step's. All 0 if the model's size is unknown."""
    import torch

    shape = shape_in(folder, json.dumps(config["lora"], sort_keys=True))
    if shape is None:
        return Disk(0, 0, 0)
    stored = (read_config(folder).dtype or torch.float32).itemsize
    width = 2 if config["sft"].get("weights") == "bfloat16" and not shape.adapter else 4
    checkpoint = width * (1 + _moments(training_arguments(config["sft"]))) * shape.trained
    # The one before is removed when the next one is whole.
    return Disk(
        kept=stored * shape.trained,
        work=round(2 * checkpoint),
        merged=stored * shape.parameters if shape.adapter else 0,
    )


def _kept(shape: Shape, lora: Mapping[str, Any] | None, narrow: bool) -> float:
    """Returns the bytes that all layers keep for each token until the backward pass."""
    kept = (shape.inputs + shape.outputs) * KEPT[shape.adapter, narrow]
    if lora is not None and lora.get("lora_dropout"):
        kept += shape.inputs * DROPPED[narrow]
    return kept


def _sharded(accelerate: Mapping[str, Any]) -> dict[str, int]:
    """Returns over how many devices weights, gradients and moments are spread."""
    processes = int(accelerate.get("num_processes", 1))
    kind = accelerate.get("distributed_type", "MULTI_GPU")
    zero = int((accelerate.get("deepspeed_config") or {}).get("zero_stage", 2)) if kind == "DEEPSPEED" else 0
    whole = kind == "FSDP"
    return {
        "weights": processes if whole or zero >= 3 else 1,
        "gradients": processes if whole or zero >= 2 else 1,
        "moments": processes if whole or zero >= 1 else 1,
    }


def tokens_that_fit(needs: Needs, free: int, most: int) -> int:
    """Returns the tokens of a micro-batch for which `free` bytes are enough, `most` at most."""
    return max(1, min(most, int((free * SLACK - needs.fixed - needs.logits) / needs.per_token)))


def free_bytes(device: str) -> int:
    """Returns the memory that a training on this machine's device may take now."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    try:  # of a container or a job of Slurm
        return min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):
        return free


def begin_peak() -> None:
    """Start counting for `peak_bytes`: a process may have trained and evaluated others before."""
    import torch

    cuda: Any = torch.cuda
    if cuda.is_initialized():  # otherwise it would be, on the first GPU, whichever is this process's
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: str) -> int:
    """Returns the most memory since `begin_peak`: on a GPU torch's allocations, else resident memory. Without /proc it
    is the most that the process ever had."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def share_of(workers: int, free: int) -> int:
    """Returns the share of this machine's memory for one of several steps that run at the same time."""
    import psutil

    return min(free, int(psutil.virtual_memory().total) // workers)


def check_fits(step: str, needs: Needs, free: int, tokens: int) -> None:
    """Raise RecipeError if a device with `free` bytes cannot train on an example of this many tokens."""
    if needs.total <= free:
        return
    if needs.fixed > free:
        lower = "train an adapter (lora), spread the model with run.accelerate (FSDP), or take a smaller base"
    else:
        lower = "set sft.gradient_checkpointing: true, lower sft.max_length, or spread the model with run.accelerate"
    raise RecipeError(
        f"{step}: training on {tokens} tokens needs {needs.total / 1e9:.1f} GB on each device and {free / 1e9:.1f} GB "
        f"are free: {needs.words()}",
        lower,
    )


def device_of(asked: str) -> str:
    """Returns cuda or cpu: the device of a training with this `run.device` on this machine."""
    import torch

    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def whole_bytes(device: str) -> int:
    """Returns all memory of this machine's GPU, or the free memory for a CPU. Makes no context on the GPU."""
    if device == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    return free_bytes("cpu")


def ran_out(error: Exception) -> bool:
    """Whether memory ran out: torch's allocator for CPUs raises a plain RuntimeError."""
    import torch

    out = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return out or any(told in str(error) for told in ("can't allocate memory", "not enough memory"))
