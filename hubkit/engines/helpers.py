"""Further processes of the embedded engine, because the Python threads of one process would wait for each other.

    python -m hubkit.engines.helper

A helper is told its model, then requests as it has room, and answers them. Each line is JSON:
    in:   {"model": "/models/teacher", "adapter": "", "batch_size": 64, "threads": 1, "marks": [],
           "precision": "float32"}
    out:  "ready"
    in:   [{"key": "7", "messages": [{"role": "user", "content": "2 + 2?"}], "sampling": {…}, "seed": 7}, …]
    out:  {"key": "7", "text": "4", "finish_reason": "stop", …}
It is a JsonChild (hubkit/processes.py), so none outlives its owner.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from hubkit.engines.base import Request, Response
from hubkit.errors import EngineError
from hubkit.processes import JsonChild

__all__ = ["Helpers"]


class _Helper(JsonChild):
    def __init__(self, settings: dict[str, Any]) -> None:
        threads = {"OMP_NUM_THREADS": str(settings["threads"])}
        super().__init__("hubkit.engines.helper", environment=threads)
        self.ready = False
        self.outstanding = 0
        """Requests that it has not answered yet."""
        self.send(settings)

    def give(self, requests: list[Request]) -> None:
        self.send([asdict(request) | {"sampling": request.sampling.model_dump()} for request in requests])
        self.outstanding += len(requests)

    def take(self) -> list[Response]:
        """The answers that are there. Raises EngineError if the process has ended."""
        values = self.receive()
        if values is None:
            raise EngineError(
                f"a process of the transformers engine ended with exit status {self.process.wait()}",
                "if memory ran out, lower batch_size or run.threads; then run again",
            )
        self.ready = self.ready or "ready" in values
        found = [Response(**value) for value in values if value != "ready"]
        self.outstanding -= len(found)
        return found


class Helpers:
    """Processes that take requests from the same iterator as their owner."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._helpers: list[_Helper] = []
        self._selector = selectors.DefaultSelector()

    def start(self, number: int) -> None:
        """Start processes until there are `number`. Each answers once it has loaded the model."""
        while len(self._helpers) < number:
            helper = _Helper(self._settings)
            self._helpers.append(helper)
            self._selector.register(helper, selectors.EVENT_READ, helper)

    @property
    def outstanding(self) -> int:
        return sum(helper.outstanding for helper in self._helpers)

    def exchange(self, requests: Iterator[Request], room: int) -> list[Response]:
        """Take the answers that are there, and give every helper requests until it has `room`."""
        found = []
        for key, _ in self._selector.select(0):
            found += key.data.take()
        for helper in self._helpers:
            missing = room - helper.outstanding if helper.ready else 0
            if missing > 0 and (given := list(itertools.islice(requests, missing))):
                helper.give(given)
        return found

    async def wait(self) -> None:
        """Until there may be answers."""
        await asyncio.to_thread(self._selector.select, 0.1)

    def end(self) -> None:
        """End them at once."""
        for helper in self._helpers:
            self._selector.unregister(helper)
            helper.process.kill()
        for helper in self._helpers:
            helper.end()
        self._helpers.clear()
