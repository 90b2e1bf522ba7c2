"""Steps on this machine: one worker process per `run.workers`, each step in one of them.

Workers are kept for the whole run, so torch, TRL and lighteval are imported once each and not once per
step. A worker ends when the run that started it has gone, however it went.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.queues import SimpleQueue

from hubkit.devices import gpus_of_workers, workers_per_gpu
from hubkit.executors.call import StepCall, execute, prepare_process
from hubkit.store import Record

__all__ = ["LocalExecutor"]


class LocalExecutor:
    """A pool of worker processes. Leaving it on an error ends them at once: their work is resumable."""

    def __init__(self, workers: int, device: str = "cpu") -> None:
        """`device` is a recipe's `run.device`: each worker sees its share of the GPUs alone."""
        self.max_concurrent = workers
        shares = gpus_of_workers(workers, device)
        self._per_gpu = workers_per_gpu(shares)
        spawn = multiprocessing.get_context("spawn")  # fork is unsafe once torch has threads
        gpus: SimpleQueue[str] = spawn.SimpleQueue()
        for share in shares:
            gpus.put(",".join(share))
        # Ended workers leave locks of tqdm's behind; Python cleans up and need not tell the user.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=spawn,
            initializer=_start_worker,
            initargs=(gpus if shares else None,),
        )

    def submit(self, call: StepCall) -> Future[Record]:
        if self._per_gpu > 1:  # the record says so, and training takes its share of the GPU's memory
            call = replace(call, runtime=call.runtime | {"workers_per_gpu": self._per_gpu})
        return self._pool.submit(execute, call)

    def __enter__(self) -> LocalExecutor:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(gpus: SimpleQueue[str] | None = None) -> None:
    """`gpus` has one entry for each worker. torch is not loaded yet."""
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's to handle; it ends the workers
    prepare_process()
