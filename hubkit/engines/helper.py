"""python -m hubkit.engines.helper: a further process of the embedded engine. `helpers.py` starts and feeds it."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from hubkit.engines.base import Request
from hubkit.engines.transformers import TransformersEngine
from hubkit.processes import connect_to_owner
from hubkit.section import Sampling


def main() -> None:
    received, answer = connect_to_owner()
    settings = next(received)
    given: queue.SimpleQueue[list[Request]] = queue.SimpleQueue()

    def read() -> None:
        # At once, even while it decodes: the owner must not wait until its lines are read.
        try:
            for batch in received:
                given.put([Request(**r | {"sampling": Sampling(**r["sampling"])}) for r in batch])
        finally:
            os._exit(1)

    def requests() -> Iterator[Request | None]:
        yield from given.get()
        while True:
            yield from [None] if given.empty() else given.get()

    threading.Thread(target=read, daemon=True).start()
    import torch

    adapter = Path(settings["adapter"]) if settings["adapter"] else None
    size, threads = settings["batch_size"], settings["threads"]
    with TransformersEngine(
        Path(settings["model"]), size, "cpu", threads, adapter, settings["marks"], settings["precision"]
    ) as engine:
        torch.set_num_threads(threads)  # the engine's are for helpers of its own too
        answer("ready")
        while True:
            for response in engine.decode(requests(), size):
                if response is not None:
                    answer(asdict(response))


if __name__ == "__main__":
    main()
