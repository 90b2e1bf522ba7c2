"""Estimates of the memory and disk that training takes, in bytes, from the model's configuration alone.

    Qwen3.5-9B, full, FSDP over 4, 32,768 tokens at once, checkpointing
    -> weights 15.2 GB, gradients 9.0, moments 17.9, head 6.1, activations 29.5, logits 0.3: 79.5 GB on each device

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
from hubkit.students.limits import free_in_groups
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
TILE: Final = (4096, 32768)
"""Tokens and words of the vocabulary whose logits TRL has in memory at once (trl/kernels/chunked_logprob.py)."""
TILES: Final = 8
"""float32 copies of a tile that its backward pass makes without Triton, as on a CPU. Measured: 8.3, with bfloat16
products 7.8. Triton's kernel works in the tile."""
FOREACH: Final = ("adamw", "adam", "adagrad", "rmsprop")
"""Beginnings of the names of torch's optimizers that, on a GPU, make a further number for each weight while they step:
"~ sizeof(params) more peak memory", as torch.optim says of `foreach`, its default there."""
NOT_FOREACH: Final = ("fused", "8bit", "4bit", "bnb", "paged", "torchao", "anyprecision")
"""Parts of the names of optimizers that go through one tensor at a time, or need no copy."""
KEPT: Final = {(False, False): 5.0, (False, True): 3.3, (True, False): 5.5, (True, True): 4.0}
"""Adapter, bfloat16 products -> bytes for each number that goes into or out of a linear layer. What norms, rotations,
attention and activation functions keep is spread over them. Measured by autograd's own list of saved tensors: on Llama
4.4, 3.0, 4.0, 2.7, and on Qwen3, which also normalises queries and keys, 5.5, 3.6. An adapter's are higher here, since
the peak of a whole process was: for 135M parameters and two rows of 384 tokens (benchmarks/train.py) 5.0, 4.9, 3.8 and
3.2 GiB are reckoned, and 4.2, 3.9, 3.7 and 2.8 were measured."""
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
    outside: int
    """Parameters outside the layers, embeddings and output layer, which a sharded model gathers together."""
    head: int
    """Parameters of the output layer."""
    head_is_trained: bool
    widest: int
    """Parameters of the largest tensor that is trained."""
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
    head: int
    """The output layer's own gradient, float32, until it is added to the others; gathered, if the model is sharded."""
    activations: int
    logits: int
    optimizer: int
    """What the optimizer makes while it steps, when activations, logits and gathered weights are gone, beyond these."""
    per_token: float
    """Bytes of activations and logits for each token of a micro-batch."""
    per_tile_token: float
    """Bytes of logits for each of the first tokens, as many as a tile has."""

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the number of tokens."""
        return self.process + self.weights + self.gradients + self.moments + self.head

    @property
    def total(self) -> int:
        return self.fixed + max(self.activations + self.logits, self.optimizer)

    def words(self) -> str:
        stepping = self.optimizer > self.activations + self.logits
        left_out = {"process", "per_token", "per_tile_token"}
        left_out |= {"activations", "logits"} if stepping else {"optimizer"}
        parts = [f.name for f in fields(self) if f.name not in left_out]
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
    trained, layers = parameters, [sum(p.numel() for p in block.parameters()) for block in blocks]
    output = sum(p.numel() for p in head.parameters()) if head is not None else 0
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
        head = model.get_output_embeddings()  # another one, if it is saved whole
    return Shape(
        parameters=parameters,
        trained=trained,
        adapter=lora is not None,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        largest=max(layers, default=parameters),
        outside=parameters - sum(layers) if layers else 0,
        head=output,
        head_is_trained=head is not None and any(p.requires_grad for p in head.parameters()),
        widest=max((p.numel() for p in model.parameters() if p.requires_grad), default=0),
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
    kind, parts = _sharded(runtime.get("accelerate") or {})
    whole = parts["weights"] == 1
    copies, gathered, head = 0, 0, 4 * shape.head if shape.head_is_trained else 0
    if shape.adapter:
        # The base as it is stored where products are bfloat16: loading.py.
        weights = ((2 if narrow else 4) * shape.parameters + 4 * shape.trained) // parts["weights"]
    else:
        weights = width * shape.parameters // parts["weights"]
        if narrow and width == 4 and kind != "FSDP":
            # Under autocast every weight of a product has a copy in bfloat16 until the step ends; FSDP gathers such.
            copies = 2 * shape.parameters // parts["weights"]
    if not whole:
        # A layer, and the next one that is on its way; what is outside the layers until the backward pass ends (FSDP2
        # does not give the root's weights back before). Of a layer also its gradients, and the float32 copy of them
        # that is averaged. TRL makes the output layer's gradient float32, then of the gathered weight's type.
        held = 2 if narrow or width == 2 else 4
        gathered = held * (2 * shape.largest + shape.outside)
        gathered += 0 if shape.adapter else (held + 4) * shape.largest
        head += held * shape.head if shape.head_is_trained else 0
    per_layer = _kept(shape, config["lora"], narrow) / shape.layers
    stream = shape.hidden * (2 if narrow and shape.adapter else 4)
    # With checkpoints each layer keeps its input, and one at a time all else.
    per_token = (
        shape.layers * stream + per_layer if sft.get("gradient_checkpointing") else shape.layers * per_layer
    )
    # The last hidden states, their gradient and two norms are whole; of the logits only tiles.
    per_token += 6 * stream
    if sft.get("loss_type", "nll") != "nll" or sft.get("label_smoothing_factor", 0):
        per_token, tile, logits = per_token + 12 * shape.vocabulary, 0, 12 * shape.vocabulary * tokens
        activations = round(per_token * tokens) - logits
    else:
        of_tile = (
            TILES * 4 * min(shape.vocabulary, TILE[1]) if device == "cpu" else (2 if narrow else 4) * TILE[1]
        )
        tile, logits, activations = of_tile, of_tile * min(tokens, TILE[0]), round(per_token * tokens)
    number = 4 if shape.adapter else width
    # DDP sends gradients from buckets, which are a second copy of all of them (its gradient_as_bucket_view is off).
    sent = 2 if kind == "MULTI_GPU" and parts["processes"] > 1 else 1
    stepping = _stepping(sft, shape, device, width) // parts["moments"]
    return Needs(
        process=PROCESS[device],
        weights=weights + copies + gathered,
        gradients=sent * number * shape.trained // parts["gradients"],
        moments=round(number * _moments(sft) * shape.trained / parts["moments"]),
        head=head,
        activations=activations,
        logits=logits,
        optimizer=max(0, stepping - copies - gathered - head),
        per_token=per_token,
        per_tile_token=tile,
    )


def _stepping(sft: Mapping[str, Any], shape: Shape, device: str, width: int) -> int:
    """Returns the bytes that the optimizer makes while it steps."""
    optimizer, number = str(sft.get("optim", "adamw_torch")), 4 if shape.adapter else width
    foreach = optimizer.startswith(FOREACH) and not any(part in optimizer for part in NOT_FOREACH)
    if foreach and device == "cuda" and number == 4:  # bfloat16 weights have torchao's
        return number * shape.trained
    # One tensor after the other has a square root and a quotient of its size (measured on a CPU: 2.0 times it).
    return 8 * shape.widest


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


def _sharded(accelerate: Mapping[str, Any]) -> tuple[str, dict[str, int]]:
    """Returns the kind of processes, and over how many of them weights, gradients and moments are spread."""
    processes = int(accelerate.get("num_processes", 1))
    kind = accelerate.get("distributed_type", "MULTI_GPU")
    zero = int((accelerate.get("deepspeed_config") or {}).get("zero_stage", 2)) if kind == "DEEPSPEED" else 0
    whole = kind == "FSDP"
    return kind, {
        "processes": processes,
        "weights": processes if whole or zero >= 3 else 1,
        "gradients": processes if whole or zero >= 2 else 1,
        "moments": processes if whole or zero >= 1 else 1,
    }


def tokens_that_fit(needs: Needs, free: int, most: int) -> int:
    """Returns the tokens of a micro-batch for which `free` bytes are enough, `most` at most."""
    room = free * SLACK - needs.fixed
    found = room / (needs.per_token + needs.per_tile_token)
    if found > TILE[0]:
        found = (room - TILE[0] * needs.per_tile_token) / needs.per_token
    return max(1, min(most, int(found)))


def free_bytes(device: str) -> int:
    """Returns the memory that a training on this machine's device may take now."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    free, limit = int(psutil.virtual_memory().available), free_in_groups()
    return free if limit is None else min(free, limit)


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
    if needs.fixed + needs.optimizer > free:
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
