"""Steps as tasks of an existing Ray cluster, each in a fresh process on some node.

The run's folder, the recipe's and the Python environment must have the same paths on every node. A task
whose node or process is lost is started again elsewhere and goes on from the step's journal or checkpoint.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from hubkit.engines.kept import release
from hubkit.errors import HubkitError, StepError, first_line
from hubkit.executors.call import StepCall, error_from_json, error_to_json, execute, prepare_process
from hubkit.recipe.runtime import Run
from hubkit.store import Record

__all__ = ["RayExecutor"]

RETRIES: Final = 5
"""Losses of a node or process that one step survives."""


class RayExecutor:
    """Places calls as Ray tasks. Leaving it ends those under way: they belong to this process's Ray job."""

    def __init__(self, run: Run) -> None:
        self.max_concurrent = sys.maxsize  # the queue is Ray's
        self._run = run

    def submit(self, call: StepCall) -> Future[Record]:
        import ray

        asked = self._run.resources_of(call.kind)
        task = ray.remote(
            num_cpus=asked.cpus,
            num_gpus=asked.gpus,
            memory=asked.memory_gb * 10**9 if asked.memory_gb else None,
            max_retries=RETRIES,
            max_calls=1,  # a process that has held a GPU gives its memory back only by ending
        )(_carry_out)
        future: Future[Record] = Future()
        task.remote(call).future().add_done_callback(partial(_settle, future, call))
        return future

    def __enter__(self) -> RayExecutor:
        try:
            import ray
        except ImportError:
            raise StepError(
                "run.executor is ray, and ray is not installed", "pip install 'ray>=2.50'"
            ) from None
        address = self._run.ray_address
        if address == "auto":
            address = os.environ.get("RAY_ADDRESS", address)
        try:
            if address != "auto":
                _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise StepError(
                f"no Ray cluster at {address!r}: {first_line(error)}",
                "start one with `ray start --head`, or set run.ray_address",
            ) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import ray

        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError or ValueError when nothing listens there: ray.init would try for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _carry_out(call: StepCall) -> dict[str, Any]:
    """On a node: the record, or the error, as plain values."""
    prepare_process()
    try:
        return {"record": execute(call).model_dump()}
    except HubkitError as error:
        return error_to_json(error)
    finally:
        release()  # this process ends, and the next step may be given its GPU at once


def _settle(future: Future[Record], call: StepCall, answer: Future[dict[str, Any]]) -> None:
    if lost := answer.exception():
        future.set_exception(
            StepError(
                f"{call.step}: Ray could not carry it out: {type(lost).__name__}: {first_line(lost)}",
                "run again: it goes on where it stopped; `ray status` shows the nodes",
            )
        )
    elif "record" in (outcome := answer.result()):
        future.set_result(Record.model_validate(outcome["record"]))
    else:
        future.set_exception(error_from_json(outcome))
