"""Executors that only watch: something else queues and runs the steps, and one thread here follows all of them."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from hubkit.executors.call import StepCall
from hubkit.store import Record, Store

__all__ = ["Task", "Watching"]

IN_VAIN: Final = 3
"""Consecutive attempts that failed silently, or were ended from outside, without progress before giving up."""


@dataclass
class Task:
    """A step, and the job that runs it."""

    call: StepCall
    future: Future[Record]
    job: str = ""
    done: int = -1
    """Progress of the step when an attempt last failed in these ways."""
    in_vain: int = 0


T = TypeVar("T", bound=Task)


class Watching(ABC, Generic[T]):
    poll_s: float
    """Between questions to the queue: one for all jobs together."""

    def __init__(self, task: type[T], store: Store) -> None:
        self._task, self._store = task, store
        self._new: list[T] = []
        self._tasks: list[T] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    @abstractmethod
    def _place(self, tasks: list[T]) -> None:
        """Give each task a job: one that is under way, or a new one."""

    @abstractmethod
    def _look(self) -> None:
        """Finish the tasks whose job has ended."""

    def submit(self, call: StepCall) -> Future[Record]:
        task = self._task(call, Future())
        task.future.set_running_or_notify_cancel()
        self._add(task)
        return task.future

    def _add(self, task: T) -> None:
        with self._lock:
            self._new.append(task)

    def _follow(self) -> None:
        while True:
            with self._lock:
                new, self._new = self._new, []
            try:
                self._place(new)
                self._look()
            except Exception as error:  # also a bug here must not leave the run waiting for ever
                for task in [*new, *self._tasks]:
                    if not task.future.done():
                        task.future.set_exception(error)
                return
            if self._stop.wait(self.poll_s if self._tasks and not self._new else 0.3):
                return

    def _end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _goes_on(self, task: T) -> bool:
        """Whether to try a step again: unless it made no progress IN_VAIN times in a row."""
        try:
            progress = self._store.work(task.call.step, task.call.key) / "progress.json"
            done = int(json.loads(progress.read_text(encoding="utf-8"))["done"])
        except (OSError, ValueError, KeyError):
            done = 0
        task.in_vain = 0 if done > task.done else task.in_vain + 1
        task.done = max(done, task.done)
        return task.in_vain < IN_VAIN
