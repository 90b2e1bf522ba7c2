"""One policy of precision for training and the embedded engine: where matrices are multiplied in bfloat16.

Precision is no part of a step's identity. Weights that train are float32 in either case, with their gradients and
moments, and no weight is rounded: only the rounding of products differs, as between any two devices.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, Final

__all__ = [
    "BFLOAT16_PARAMETERS",
    "choose_precision",
    "parameter_count",
    "read_header",
    "stored_dtype",
    "weight_dtype",
]

BFLOAT16_PARAMETERS: Final = 10_000_000
"""Parameters from which bfloat16 is faster on a CPU with AMX, in training, prefilling and decoding. Measured on
one core, float32 to bfloat16: at 0.5M x1.2, x1.4 and x1.1, at 20M x1.8, x3.0 and x1.5, at 135M x2.0, x3.0 and x1.8."""


def choose_precision(asked: str, device: str, parameters: int) -> str:
    """Returns the precision of a model's matrix products on this machine's `device`: `float32` or `bfloat16`.

    `asked` is a recipe's `run.precision`. auto: bfloat16 on GPUs that have it, and on CPUs with AMX for models of
    BFLOAT16_PARAMETERS or more.
    """
    if asked != "auto":
        return asked
    import torch

    if device.startswith("cuda"):
        # Older GPUs than Ampere emulate it, slower than float32.
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    large = device == "cpu" and parameters >= BFLOAT16_PARAMETERS
    return "bfloat16" if large and torch.cpu._is_amx_tile_supported() else "float32"


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Returns weight -> {"dtype", "shape", "data_offsets"}, from the header of a safetensors file.

    Raises ValueError if the file is incomplete.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            tensors = json.loads(file.read(min(length, size)))
        tensors.pop("__metadata__", None)
        whole = 8 + length + max((t["data_offsets"][1] for t in tensors.values()), default=0) == size
    except (ValueError, KeyError, TypeError, AttributeError, struct.error):
        whole = False
    if not whole:
        raise ValueError(f"{path.name}, {size:,} bytes, is not a whole safetensors file")
    return dict(tensors)


def _tensors(folder: Path) -> dict[str, dict[str, Any]]:
    """The same of all files of a model."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if not path.name.startswith("consolidated"):  # the same weights in Mistral's own form
            found |= read_header(path)
    return found


def parameter_count(folder: Path) -> int:
    """Returns the number of parameters of the model in a folder; tied ones are stored, and counted, once."""
    return sum(math.prod(tensor["shape"]) for tensor in _tensors(folder).values())


def stored_dtype(folder: Path) -> str:
    """Returns the type of most of a model's weights, by safetensors' names: F32, BF16, F16."""
    sizes: dict[str, int] = {}
    for tensor in _tensors(folder).values():
        sizes[tensor["dtype"]] = sizes.get(tensor["dtype"], 0) + math.prod(tensor["shape"])
    return max(sizes, key=lambda name: sizes[name], default="")


def weight_dtype(asked: str, device: str, folder: Path) -> Any:
    """Returns the type in which a model that only answers or scores is loaded: a torch dtype, or "auto", as stored.

    `asked` is a recipe's `run.precision`. auto: as they are stored, but float32 on a CPU where bfloat16 is not faster.
    """
    import torch

    if asked == "auto" and device != "cpu":
        return "auto"
    narrow = asked == "auto" and stored_dtype(folder) != "BF16"
    return getattr(torch, choose_precision("float32" if narrow else asked, device, parameter_count(folder)))
