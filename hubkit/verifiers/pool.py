"""Worker processes for verification: as many as there are cores, started when there is work for them.

    for trace, verdict in shared_pool().stream((trace, verify_inline(problem, trace["solution"])) for …):

A stream keeps the order of its input, with a bounded number of items under way. Items that were judged without a
worker pass through. A worker that is silent past the deadline is killed and replaced, and only its current item is
lost: a timeout. No worker outlives this process. (pebble's pool was tried: it is as quick item by item, but its time
limit covers a whole chunk, and a busy worker outlives a killed owner.)
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import psutil

from hubkit import errors
from hubkit.processes import JsonChild
from hubkit.verifiers.base import Task, Verdict

__all__ = ["Pool", "shared_pool"]

DEADLINE: Final = 30.0
"""Seconds that one item may take, above math-verify's own limits for several expressions; on a machine that is too busy
to give a worker more, half of it in CPU seconds."""
MEMORY: Final = 2 << 30
"""Bytes of address space per worker; sympy and reasoning-gym together need about a third of it."""
CHUNK: Final = 16
"""Items sent at a time: milliseconds of work each, so that sending costs nothing beside it."""
BACKLOG: Final = 48
PATIENCE: Final = 1.0
"""Starts a worker after BACKLOG queued items, PATIENCE seconds after all other workers gave their first verdict:
start-up costs 1 to 3 s, which does not pay for a few hundred items."""
WINDOW: Final = 1024
"""Maximum items under way, including judged ones that wait for an earlier one; traces of 100 kB make 100 MB."""

T = TypeVar("T")
R = TypeVar("R")


class _Item:
    """A task and, later, its verdict."""

    __slots__ = ("error", "task", "verdict")

    def __init__(self, task: Task) -> None:
        self.task = task
        self.verdict: Verdict | None = None
        self.error: errors.HubkitError | None = None


class _Worker(JsonChild):
    """One process, the items it has been sent, and when the first of them is overdue."""

    def __init__(self, deadline: float, memory: int) -> None:
        # Libraries that start threads are told not to: one worker, one core.
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        super().__init__("hubkit.verifiers.worker", str(memory), str(deadline), environment=single)
        self.items: deque[_Item] = deque()
        self.due = 0.0
        self._seen = psutil.Process(self.process.pid)
        self._spent = 0.0
        self.ready = False
        self.first_verdict = float("inf")
        """When it gave one (monotonic seconds)."""
        self._deadline = deadline

    def give(self, items: list[_Item]) -> None:
        self.items.extend(items)
        self._begin()
        self.send([item.task for item in items])

    def take(self) -> bool:
        """Take the answers that are there. Returns False if the process has ended."""
        answers = self.receive()
        for answer in answers or []:
            if answer == "ready":
                self.ready = True
                continue
            item = self.items.popleft()
            if isinstance(answer, dict):
                name, message, remedy = answer["error"]
                item.error = getattr(errors, name)(message, remedy)
            else:
                item.verdict = Verdict(*answer)
            self.first_verdict = min(self.first_verdict, time.monotonic())
            self._begin()
        return answers is not None

    def _begin(self) -> None:
        """The next item's time starts now."""
        self.due = time.monotonic() + self._deadline
        self._spent = self._cpu_seconds()

    def _cpu_seconds(self) -> float:
        try:
            times = self._seen.cpu_times()
        except psutil.Error:  # it has ended: reading will say so
            return 0.0
        return float(times.user + times.system)

    def hangs(self) -> bool:
        """Whether its time is over. A worker that had to wait for a core gets more time: a verdict must not depend on
        the load of the machine."""
        if time.monotonic() <= self.due:
            return False
        with contextlib.suppress(psutil.Error):
            waits = self._seen.status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
            if waits and self._cpu_seconds() - self._spent < self._deadline / 2:
                self.due = time.monotonic() + self._deadline
                return False
        return True


class Pool:
    """Judges tasks in at most `processes` workers, which live until `close`. Threads may share it."""

    def __init__(self, processes: int, deadline: float = DEADLINE, memory: int = MEMORY) -> None:
        self._processes, self._deadline, self._memory = processes, deadline, memory
        self._workers: list[_Worker] = []
        self._queue: deque[_Item] = deque()
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()

    def limit(self, processes: int | None) -> None:
        """Start no more workers than this; existing ones stay."""
        if processes:
            self._processes = processes

    def stream(self, items: Iterable[tuple[T, R | Task]]) -> Iterator[tuple[T, R | Verdict]]:
        """Replace the tasks among the pairs' second parts by their verdicts, in order.

        Raises the HubkitError of a task that shows the problem set or the installation to be wrong.
        """
        window: deque[tuple[T, R | _Item]] = deque()
        try:
            for payload, work in items:
                if isinstance(work, Task):
                    item = _Item(work)
                    window.append((payload, item))
                    self._queue.append(item)
                    if len(self._queue) % CHUNK == 0:
                        self._pump(wait=False)
                else:
                    window.append((payload, work))
                yield from self._finished(window, WINDOW)
            yield from self._finished(window, 0)
        finally:
            with self._lock:  # left early: nobody waits for the rest
                for _, left in window:
                    if isinstance(left, _Item) and left in self._queue:
                        self._queue.remove(left)

    def verify(self, task: Task) -> Verdict:
        """One task, alone."""
        ((_, verdict),) = self.stream([(None, task)])
        return verdict

    def _finished(self, window: deque[tuple[T, R | _Item]], most: int) -> Iterator[tuple[T, R | Verdict]]:
        """Yield finished items at the head of the window; waits until no more than `most` items are left."""
        while window:
            payload, item = window[0]
            if isinstance(item, _Item):
                while item.verdict is None and item.error is None and len(window) > most:
                    self._pump(wait=True)
                if item.error:
                    raise item.error
                if item.verdict is None:
                    return
                yield payload, item.verdict
            else:
                yield payload, item
            window.popleft()

    def _pump(self, wait: bool) -> None:
        """Hand out waiting items and take in the answers that are there; with `wait`, a moment for more."""
        with self._lock:
            self._hand_out()
            for key, _ in self._selector.select(0.1 if wait else 0):
                worker: _Worker = key.data
                if not worker.take():
                    self._replace(worker, "")
            for worker in [w for w in self._workers if w.items and w.hangs()]:
                self._replace(worker, f"no verdict within {self._deadline:g} s")
            self._hand_out()

    def _hand_out(self) -> None:
        while self._queue:
            idle = next((worker for worker in self._workers if not worker.items), None)
            if idle is None:
                if self._workers and not self._another_is_worth_it():
                    return
                idle = _Worker(self._deadline, self._memory)
                self._workers.append(idle)
                self._selector.register(idle, selectors.EVENT_READ, idle)
            size = max(1, min(CHUNK, len(self._queue) // self._processes))
            idle.give([self._queue.popleft() for _ in range(size)])

    def _another_is_worth_it(self) -> bool:
        if len(self._workers) >= self._processes or len(self._queue) < BACKLOG:
            return False
        return time.monotonic() > PATIENCE + max(worker.first_verdict for worker in self._workers)

    def _replace(self, worker: _Worker, late: str) -> None:
        """End a worker. The item that it was at gets a verdict; those behind it wait again."""
        self._workers.remove(worker)
        self._selector.unregister(worker)
        status = worker.end()
        if not worker.ready:
            raise errors.StepError(
                f"a verifier process could not start (exit status {status})",
                "see what `python -c 'import hubkit.verifiers.worker'` says",
            )
        if worker.items:
            killed = "out of memory or killed" if status < 0 else f"exit status {status}"
            verdict = ("timeout", "", late) if late else ("unparseable", "", f"its worker died: {killed}")
            worker.items.popleft().verdict = Verdict(*verdict)  # type: ignore[arg-type]
            self._queue.extendleft(reversed(worker.items))

    def close(self) -> None:
        """End all workers. Items under way are lost."""
        with self._lock:
            for worker in self._workers:
                self._selector.unregister(worker)
                worker.end()
            self._workers.clear()


def shared_pool(processes: int | None = None) -> Pool:
    """Returns this process's pool, whose workers serve all its steps and single verdicts.

    From now on it has at most `processes` workers, such as the cores that a step may use; None: no change.
    """
    pool = _pool_of(os.getpid())  # a forked process must not use its parent's pipes
    pool.limit(processes)
    return pool


@functools.cache
def _pool_of(pid: int) -> Pool:
    import joblib

    pool = Pool(joblib.cpu_count())

    def close() -> None:
        if os.getpid() == pid:
            pool.close()

    atexit.register(close)
    return pool
