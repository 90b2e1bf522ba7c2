"""A step as a plain value that can be carried out anywhere: in another process, on another machine.

A call names folders, so it means the same wherever the run's folder has the same path. Carrying it out twice,
even at the same time, is harmless: the store's lock lets one through and the other finds it done.
"""

from __future__ import annotations

import importlib
import json
import os
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hubkit import errors
from hubkit.errors import HubkitError, StepError
from hubkit.store import Record, StepContext, Store

__all__ = ["Call", "error_from_json", "error_to_json", "execute", "prepare_process"]


@dataclass(frozen=True)
class Call:
    """All that a step needs to run, in plain values: it travels to another process."""

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

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Call:
        values: dict[str, Any] = json.loads(text)
        for name in ("folders", "paths"):
            values[name] = {key: Path(path) for key, path in values[name].items()}
        return cls(**values | {"root": Path(values["root"])})


def execute(call: Call) -> Record:
    """Run one step in this process. Raises HubkitError; anything else is written down and named."""
    import joblib

    store = Store(call.root)
    # joblib knows of a container's share, too.
    threads = call.runtime.get("threads") or joblib.cpu_count()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for what is imported from here on
    context = StepContext(
        step=call.step,
        config=call.config,
        runtime=call.runtime | {"threads": threads},
        inputs=call.folders,
        models=call.models,
        out=call.root / "tmp" / call.key[:16],
        work=store.work(call.step, call.key),
        paths=call.paths,
    )
    module, _, name = call.function.partition(":")
    function = getattr(importlib.import_module(module), name)
    try:
        return store.run(context, call.kind, call.version, call.key, call.inputs, function)
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
    """The error that another machine met, of the same class. What is no error of hubkit becomes a StepError."""
    told = [str(values.get(name, ""))[:2000] for name in ("message", "remedy")]
    message, remedy = (" ".join(filter(str.isprintable, text.split())) for text in told)
    kind = getattr(errors, str(values.get("error")), None)
    if isinstance(kind, type) and issubclass(kind, HubkitError):
        return kind(message, remedy)
    return StepError(message or "it failed, and did not say how", remedy or "see its log")


def prepare_process(parent: int) -> None:
    """Make this process one that works for a run, and ends when the process `parent` has gone."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
