"""The GPUs of this machine: those that may be used, a share of them for each worker, and one that torch does not see.

Importing torch takes seconds, so it is asked only where a GPU's driver is there.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Final

__all__ = ["gpus_of_workers", "unseen_gpu", "visible_gpus", "workers_per_gpu"]

NODES: Final = ("/proc/driver/nvidia/version", "/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")
"""What NVIDIA's driver makes; the last is Windows' for Linux."""


def _has_driver() -> bool:
    return any(Path(node).exists() for node in NODES)


def visible_gpus() -> list[str]:
    """Returns the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: ["0", "1"]."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def gpus_of_workers(workers: int, device: str) -> list[list[str]]:
    """Returns the GPUs of each of several workers of this machine, for a recipe's `run.device`.

    They are equal shares; if there are fewer GPUs than workers, each has one, which it shares with others. Returns []
    where there is nothing to share out: for one worker, a CPU, or a device that is named by its number.
    """
    if workers == 1 or device not in ("auto", "cuda") or not _has_driver():
        return []
    import torch

    gpus = visible_gpus() if torch.cuda.is_available() else []
    if len(gpus) < workers:
        return [[gpus[i % len(gpus)]] for i in range(workers)] if gpus else []
    return [gpus[i * len(gpus) // workers : (i + 1) * len(gpus) // workers] for i in range(workers)]


def workers_per_gpu(shares: list[list[str]]) -> int:
    """Returns the largest number of workers that have the same GPU; 1 if each has its own."""
    used = [gpu for share in shares for gpu in share]
    return max((used.count(gpu) for gpu in used), default=1)


def unseen_gpu() -> str:
    """Returns why torch sees no GPU although the driver of one is there; "" if it sees one, or if there is none."""
    if not _has_driver():
        return ""
    import torch

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return ""
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built without CUDA"
    if (hidden := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}"
    return str(told[0].message).strip().splitlines()[0][:200] if told else "CUDA does not start"
