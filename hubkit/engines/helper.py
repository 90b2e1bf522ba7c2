"""python -m hubkit.engines.helper: a further process of the embedded engine. `helpers.py` starts and feeds it."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hubkit.engines.base import Request
from hubkit.engines.transformers import TransformersEngine
from hubkit.section import Sampling


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to handle
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand between the answers

    def tell(value: Any) -> None:
        print(json.dumps(value), file=output, flush=True)

    settings = json.loads(sys.stdin.readline())
    given: queue.SimpleQueue[list[Request]] = queue.SimpleQueue()

    def read() -> None:
        # At once, whatever is being decoded: the owner must not wait to be rid of them.
        try:
            for line in sys.stdin:
                given.put([Request(**r | {"sampling": Sampling(**r["sampling"])}) for r in json.loads(line)])
        finally:  # the owner has gone, perhaps in the middle of a line
            os._exit(1)

    def requests() -> Iterator[Request | None]:
        yield from given.get()
        while True:
            yield from [None] if given.empty() else given.get()

    threading.Thread(target=read, daemon=True).start()
    import torch

    adapter = Path(settings["adapter"]) if settings["adapter"] else None
    size, threads = settings["batch_size"], settings["threads"]
    with TransformersEngine(Path(settings["model"]), size, "cpu", threads, adapter) as engine:
        torch.set_num_threads(threads)  # the engine's are for helpers of its own too
        tell("ready")
        while True:
            for response in engine.decode(requests(), size):
                if response is not None:
                    tell(asdict(response))


if __name__ == "__main__":
    main()
