"""vLLM as a separate process, started for one model, used through the openai engine, and always ended.

`in_process` (the default) runs AsyncLLM there behind a small HTTP server, `vllm_direct.py`; without it, vLLM's
official OpenAI server runs. Arguments have vLLM's own names. `data_parallel_size` starts as many servers,
each with its share of the GPUs, and load is balanced by outstanding tokens; with `enable_expert_parallel` the
ranks must work in step, and vLLM's own data parallelism is used.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from hubkit.devices import visible_gpus
from hubkit.engines.base import Request, Response
from hubkit.engines.marks import opened_by
from hubkit.engines.openai import OpenAIEngine
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import EngineError
from hubkit.processes import end_of_log, free_ports, supervised

__all__ = ["VLLMEngine", "check_installed"]

START_S: Final = 3600.0
"""Seconds that a server may take to start, enough for the largest models; a server that dies is noticed at once."""
END_S: Final = 20.0
"""Seconds that a server may take to end after it has stopped answering."""
DTYPE: Final = re.compile(r"LLM engine \(v\S+\) with config: .*?\bdtype=torch\.(\w+)")
SERVED: Final = "model"
"""The model's name at the server."""


def check_installed() -> None:
    """Raises EngineError when vLLM cannot be imported."""
    if importlib.util.find_spec("vllm") is None:
        raise EngineError(
            "engine: vllm, and vLLM is not installed", "pip install vllm, or name another engine"
        )


class VLLMEngine:
    """vLLM servers on this machine, on loopback and with a key of their own."""

    notes: tuple[str, ...] = ()

    def __init__(
        self, model: Path, runtime: EngineRuntime, marks: Sequence[str] = (), precision: str = "auto"
    ) -> None:
        """`precision` is `run.precision`, and once the engine is open the type that vLLM says it runs in. Its own
        argument `dtype` overrides it; with neither, vLLM decides: models stored in float32 run in half precision."""
        self.precision = precision
        self._model = model
        self._runtime = runtime
        self._marks = tuple(marks)
        self._key = secrets.token_urlsafe(24)
        self._servers: list[_Server] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        check_installed()
        replicas, arguments = _replicas(self._runtime.vllm)
        devices = _devices(replicas, arguments)
        try:
            for port, visible in zip(free_ports(replicas), devices, strict=True):
                given = {"max_num_seqs": self._runtime.window, "dtype": self.precision} | arguments
                if self._runtime.in_process:
                    given |= {"keep": list(self._marks) or None}
                command = _command(self._model, port, given, self._runtime.in_process)
                server = _Server(command, port, self._key, visible)
                self._servers.append(self._stack.enter_context(server))
            for server in self._servers:
                server.wait()
            asked = str(arguments.get("dtype") or self.precision)
            self.precision = self._servers[0].dtype() or ("" if asked == "auto" else asked)
        except BaseException:
            self._stack.close()
            raise
        addresses = [f"http://127.0.0.1:{server.port}/v1" for server in self._servers]
        self._client = OpenAIEngine(
            # As many requests again wait in its queue, so that it has work when several answers end together.
            self._runtime.model_copy(update={"endpoint": addresses, "window": 2 * self._runtime.window}),
            SERVED,
            key=self._key,
            # vLLM's own server leaves out all special tokens or none.
            extra={"return_token_ids": True, "skip_special_tokens": not self._marks},
            ours=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def stream(self, requests: Iterable[Request]) -> AsyncGenerator[Response]:
        """As the openai engine's. Raises EngineError with the end of the log when a server died."""
        waiting = iter(requests)
        first = next(waiting, None)
        if first is None:
            return
        opened = await self._opens_thinking(first)
        try:
            async with aclosing(self._client.stream(itertools.chain([first], waiting))) as responses:
                async for response in responses:
                    if opened and response.reasoning is None and response.finish_reason != "error":
                        # Without the mark, a span that was cut off would look like an answer.
                        response = dataclasses.replace(response, text=opened + response.text)
                    yield response
        except EngineError:
            for server in self._servers:
                server.check_end()
            raise

    async def _opens_thinking(self, request: Request) -> str:
        """The mark with which the chat template opens the reasoning: asked of the server, which renders it."""
        body = {
            "model": SERVED,
            "messages": request.messages,
            "add_generation_prompt": True,
            "return_token_strs": True,
            "chat_template_kwargs": request.template,
        }
        address = f"http://127.0.0.1:{self._servers[0].port}/tokenize"
        headers = {"Authorization": f"Bearer {self._key}"}
        try:
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.post(address, json=body) as reply,
            ):
                tokens = (await reply.json())["token_strs"] if reply.status == 200 else []
        except (aiohttp.ClientError, OSError):
            return ""  # the first request will tell
        # Byte-level and SentencePiece vocabularies write blanks as letters of their own.
        return opened_by(re.sub("[\u010a\u0120\u2581]", " ", "".join(tokens)), self._marks)


class _Server:
    """One server process with all that it starts; ended with this process, however that ends."""

    def __init__(self, command: list[str], port: int, key: str, devices: str | None) -> None:
        self.port = port
        self._command = command
        # By environment: arguments are visible to all users of the machine.
        self._environment = os.environ | {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1"}
        if devices is not None:
            self._environment["CUDA_VISIBLE_DEVICES"] = devices
        self._folder = Path(tempfile.mkdtemp(prefix="hubkit-vllm-"))
        self._log = self._folder / "log"

    def __enter__(self) -> Self:
        self._running = supervised(self._command, self._log, self._environment)
        self._process = self._running.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.__exit__(None, None, None)
        shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self) -> None:
        """Until the server is ready. Raises EngineError with the end of its log when it does not get there."""
        deadline = time.monotonic() + START_S
        while True:
            self.check()
            if self._answers():
                return
            if time.monotonic() > deadline:
                raise EngineError(
                    f"vLLM is not ready after {START_S:.0f} s: {self._end_of_log()}", "look at its log above"
                )
            time.sleep(0.3)

    def dtype(self) -> str:
        """Returns the type of the model's weights and products, such as bfloat16, from the line in which vLLM's engine
        logs its configuration; "" without one. Neither its API server nor the models' list has it."""
        found = DTYPE.search(self._log.read_text("utf-8", "replace"))
        return found[1] if found else ""

    def check_end(self) -> None:
        """`check`, which waits for a server that answers no more: it may be about to end, and its log says why."""
        deadline = time.monotonic() + END_S
        while self._process.poll() is None and not self._answers() and time.monotonic() < deadline:
            time.sleep(0.2)
        self.check()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
        except OSError:
            return False
        return True

    def check(self) -> None:
        """Raise EngineError with the end of the log if the server has ended."""
        if self._process.poll() is not None:
            raise EngineError(
                f"the vLLM server ended with {self._process.returncode}: {self._end_of_log()}",
                "look at its log above; vLLM's own arguments stand under run.engines.<model>.vllm, "
                "and those of its API server need in_process: false",
            )

    def _end_of_log(self) -> str:
        """The line that says most, for the error; the last 40 go to standard error."""
        lines = self._log.read_text(errors="replace").splitlines()
        print("\n".join(lines[-40:]), file=sys.stderr)
        return end_of_log(self._log)


def _replicas(arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """(number of servers, arguments of each)."""
    if arguments.get("enable_expert_parallel"):
        return 1, arguments
    others = {name: value for name, value in arguments.items() if name != "data_parallel_size"}
    return int(arguments.get("data_parallel_size", 1)), others


def _devices(replicas: int, arguments: dict[str, Any]) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each server: all that there is for one, equal shares for several."""
    if replicas == 1:
        return [None]
    visible = visible_gpus()
    if not visible:
        return [None] * replicas  # CPUs are shared
    each = int(arguments.get("tensor_parallel_size", 1)) * int(arguments.get("pipeline_parallel_size", 1))
    if replicas * each > len(visible):
        raise EngineError(
            f"{replicas} replicas of {each} GPUs each, and there are {len(visible)}",
            "lower data_parallel_size, tensor_parallel_size or pipeline_parallel_size",
        )
    return [",".join(visible[i * each : (i + 1) * each]) for i in range(replicas)]


def _command(model: Path, port: int, arguments: dict[str, Any], in_process: bool) -> list[str]:
    own = {
        "model": str(model),
        "served_model_name": SERVED,
        "host": "127.0.0.1",
        "port": port,
        # Sampling is the recipe's: what a model's generation_config.json suggests must not come in unseen.
        "generation_config": "vllm",
        "enable_log_requests": False,
        "disable_log_stats": True,  # nobody reads them; vLLM's offline LLM keeps none either
    }
    if not in_process:
        own["disable_uvicorn_access_log"] = True
    module = "hubkit.engines.vllm_direct" if in_process else "vllm.entrypoints.openai.api_server"
    command = [sys.executable, "-m", module]
    for name, value in (own | arguments).items():
        option = name.replace("_", "-")
        match value:
            case None:
                continue
            case bool():
                command.append(f"--{option}" if value else f"--no-{option}")
            case list():
                command += [f"--{option}", *map(str, value)]
            case dict():
                command += [f"--{option}", json.dumps(value)]
            case _:
                command += [f"--{option}", str(value)]
    return command
