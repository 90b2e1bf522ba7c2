"""Steps on this machine: one worker process per `run.workers`, each step in one of them.

Workers are kept for the whole run, so torch, TRL and lighteval are imported once each and not once per
step. A worker ends when the run that started it has gone, however it went.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hubkit.errors import HubkitError, StepError
from hubkit.store import Record, StepContext, Store

__all__ = ["Call", "LocalExecutor", "execute"]


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


def execute(call: Call) -> Record:
    """Run one step in this process. Raises HubkitError; anything else is written down and named."""
    store = Store(call.root)
    context = StepContext(
        step=call.step,
        config=call.config,
        runtime=call.runtime,
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


class LocalExecutor:
    """A pool of worker processes. Leaving it on an error ends them at once: their work is resumable."""

    def __init__(self, workers: int, threads: int) -> None:
        # Ended workers leave locks of tqdm's behind; Python cleans up and need not tell the user.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),  # fork is unsafe once torch has threads
            initializer=_start_worker,
            initargs=(os.getpid(), threads),
        )

    def submit(self, call: Call) -> Future[Record]:
        return self._pool.submit(execute, call)

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's to handle; it ends the workers
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
