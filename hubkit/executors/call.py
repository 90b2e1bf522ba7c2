"""A step as a plain value that can be run anywhere: in another process, on another machine.

A call names folders, so it works wherever the run's folder has the same path. Running it twice, even at the same
time, is harmless: the store's lock admits one process, and the other finds the step done.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from hubkit import errors
from hubkit.allocator import trim
from hubkit.engines.kept import release
from hubkit.errors import HubkitError, StepError
from hubkit.processes import end_with_parent
from hubkit.store import Record, StepContext, Store

__all__ = ["StepCall", "error_from_json", "error_to_json", "execute", "prepare_process"]

_MUCH: Final = 256 << 20
"""Bytes of memory; a step without models leaves less behind."""


@dataclass(frozen=True)
class StepCall:
    """Everything that a step needs to run, as plain values that can be sent to another process."""

    function: str
    """module:function"""
    step: str
    kind: str
    version: int
    key: str
    config: dict[str, Any]
    runtime: dict[str, Any]
    inputs: dict[str, str]
    """Name -> digest, for the record."""
    folders: dict[str, Path]
    """Name -> folder of a finished step."""
    models: dict[str, dict[str, str]]
    paths: dict[str, Path]
    root: Path
    out: Path | None = None
    work: Path | None = None
    """Folder of a part of a running step; None for a step, whose folders follow from its key."""

    @classmethod
    def part_of(cls, context: StepContext, function: Callable[[StepContext], None]) -> StepCall:
        """A function that a step runs in further processes. It shares the step's folders."""
        return cls(
            function=f"{function.__module__}:{function.__qualname__}",
            step=context.step,
            kind="",
            version=0,
            key="",
            config=context.config,
            runtime=context.runtime,
            inputs={},
            folders=context.inputs,
            models=context.models,
            paths=context.paths,
            root=context.work,
            out=context.out,
            work=context.work,
        )

    def context(self) -> StepContext:
        """The context that the function is given."""
        return StepContext(
            step=self.step,
            config=self.config,
            runtime=self.runtime,
            inputs=self.folders,
            models={
                name: model | {"digest": self.inputs.get(f"model:{name}", "")}
                for name, model in self.models.items()
            },
            out=self.out or self.root / "tmp" / self.key[:16],
            work=self.work or Store(self.root).work(self.step, self.key),
            paths=self.paths,
            root=None if self.work else self.root,
        )

    def load(self) -> Callable[[StepContext], None]:
        module, _, name = self.function.partition(":")
        function: Callable[[StepContext], None] = getattr(importlib.import_module(module), name)
        return function

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str, indent=1)

    @classmethod
    def from_json(cls, text: str) -> StepCall:
        values: dict[str, Any] = json.loads(text)
        for name in ("folders", "paths"):
            values[name] = {key: Path(path) for key, path in values[name].items()}
        for name in ("root", "out", "work"):
            values[name] = Path(values[name]) if values.get(name) else None
        return cls(**values)


def execute(call: StepCall) -> Record:
    """Run one step in this process. Raises HubkitError; for other exceptions the traceback is kept in a file that the
    error names."""
    import joblib
    import psutil

    # joblib knows of a container's share, too.
    threads = call.runtime.get("threads") or joblib.cpu_count()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for what is imported from here on
    context = replace(call, runtime=call.runtime | {"threads": threads}).context()
    if call.kind != "evaluation":
        release()  # the memory of a student that was evaluated last
    function = call.load()
    resident = psutil.Process().memory_info().rss
    try:
        return Store(call.root).run(context, call.kind, call.version, call.key, call.inputs, function)
    except HubkitError:
        raise
    except OSError as error:
        if error.errno not in (28, 30, 122):  # ENOSPC, EROFS, EDQUOT
            raise _unexpected(context, error) from None
        raise StepError(
            f"{call.step}: cannot write: {error.strerror}", "free some space and run again"
        ) from None
    except Exception as error:
        raise _unexpected(context, error) from None
    finally:
        _give_back(resident)


def _give_back(resident: int) -> None:
    """Free the memory of a finished step's models for the next steps. Trainers are reference cycles, which Python
    collects late, and malloc and torch keep freed memory."""
    import psutil

    torch: Any = sys.modules.get("torch")
    on_gpu = bool(torch) and torch.cuda.is_initialized()
    if not on_gpu and psutil.Process().memory_info().rss - resident < _MUCH:
        return  # collecting takes half a second
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    trim()


def _unexpected(context: StepContext, error: Exception) -> StepError:
    place = context.work / "error.txt"
    text = str(error).strip().splitlines() or [""]
    try:
        place.write_text(traceback.format_exc(), encoding="utf-8")
        where = f"the traceback is in {place}"
    except OSError:
        where = "its traceback could not be written"
    return StepError(f"{context.step}: {type(error).__name__}: {text[0][:300]}", where)


def error_to_json(error: HubkitError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": error.message, "remedy": error.remedy}


def error_from_json(values: dict[str, str]) -> HubkitError:
    """Returns an error of another process as the same class. One that is not hubkit's becomes a StepError."""
    told = [str(values.get(name, ""))[:2000] for name in ("message", "remedy")]
    message, remedy = (" ".join(filter(str.isprintable, text.split())) for text in told)
    kind = getattr(errors, str(values.get("error")), None)
    if isinstance(kind, type) and issubclass(kind, HubkitError):
        return kind(message, remedy)
    return StepError(message or "it failed, and did not say how", remedy or "see its log")


def prepare_process() -> None:
    """Make this process a worker that ends when the process that started it has ended."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # oneDNN, and torch's layer above it, keep what they compiled for each of the last 1,024 shapes. Nearly every
    # micro-batch has a new shape, so that the memory of a training on a CPU grew by gigabytes.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    end_with_parent()
