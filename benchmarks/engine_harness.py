"""hubkit's own cost per request: everything but the server, which answers at once here.

    python benchmarks/engine_harness.py [--requests 1000000] [--window 256]

The client is what a generation step runs: the openai engine, the journal, one commit per 32 responses. The
server is another process that sends one canned answer of 300 characters to every POST. Printed at 10,000
requests and at every tenfold: CPU time of the client's process per request, and its resident memory. Then the
finished run is resumed: how long until it knows that nothing is left to ask.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

THOUGHT = "<think>\n" + "47 + 38 = 85, then 85 - 12 = 73. " * 8 + "\n</think>\n\nThe answer is 73."


def serve(ready: Connection) -> None:
    """HTTP by hand: a framework would take more of the two cores than what is measured."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": THOUGHT}}
    body = json.dumps(
        {"choices": [choice], "usage": {"prompt_tokens": 38, "completion_tokens": 187}}
    ).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = head.encode() + body

    class Server(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = transport
            self._got = b""

        def data_received(self, data: bytes) -> None:
            self._got += data
            head, _, rest = self._got.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(rest) >= length and length:
                self._got = b""
                assert isinstance(self._transport, asyncio.Transport)
                self._transport.write(answer)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def client(endpoint: str, number: int, window: int, folder: Path) -> None:
    from hubkit.engines import Request, Response, open_engine
    from hubkit.engines.settings import EngineRuntime
    from hubkit.section import Sampling
    from hubkit.store import StepContext
    from hubkit.traces.journal import Journal, Key, answer, request_seed

    runtime = EngineRuntime(engine="openai", endpoint=endpoint, window=window)
    context = StepContext("traces", {}, {"engine": runtime.model_dump()}, {}, {}, folder, folder)
    sampling = Sampling(max_tokens=400)
    started, seen = (time.process_time(), time.perf_counter()), 0

    def requests() -> Iterator[tuple[Key, Request]]:
        for i in range(number):
            key = Key(f"chain_sum-{i // 4:012x}", i % 4)
            messages = [{"role": "user", "content": f"State the final answer: {i} + 38 - 12 ="}]
            yield key, Request(key.text, messages, sampling, request_seed(0, key))

    def see(_: Response) -> None:
        nonlocal seen
        seen += 1
        if seen in (10_000, 100_000, 1_000_000):
            report(f"{seen:>9,} requests", seen, *started)

    with Journal(folder / "journal.sqlite", "benchmark") as journal, open_engine("m", runtime) as engine:
        answer(context, engine, journal, requests(), number, on_response=see)
    if not seen:
        report(f"{number:>9,} resumed", number, *started)


def report(what: str, number: int, cpu: float, wall: float) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = pages * resource.getpagesize() / 2**20
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(
        f"{what:<20}{cpu / number * 1e3:>8.3f} ms CPU each{memory:>8.0f} MiB resident{wall:>8.1f} s in all",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--window", type=int, default=256)
    options = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    receive, send = processes.Pipe(duplex=False)
    server = processes.Process(target=serve, args=(send,), daemon=True)
    server.start()
    endpoint = f"http://127.0.0.1:{receive.recv()}/v1"
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):  # the second is the resumed one
            run = processes.Process(
                target=client, args=(endpoint, options.requests, options.window, Path(folder))
            )
            run.start()
            run.join()
    server.terminate()


if __name__ == "__main__":
    main()
