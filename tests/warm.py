"""Python processes for tests, forked from one that has imported the libraries that take seconds.

    run("-m", "hubkit", "traces", "stats", "t.jsonl")      as subprocess.run([sys.executable, …]), without the wait
    run("-c", "import torch; print(torch.__version__)")

Each is a process of its own, with its own environment, folder, output and exit status, and so are the workers that it
starts for the steps of a recipe. Importing libraries again in each of some hundred processes was half of the processor
time of all tests.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import gc
import importlib
import json
import multiprocessing.context
import multiprocessing.process
import os
import pickle
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver, reduction
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Final

__all__ = ["Python", "run", "use_for_workers"]

LIBRARIES: Final = (
    "torch", "torch._dynamo", "torch.distributed.tensor", "torch._inductor.cudagraph_utils", "sklearn.metrics",
    "scipy.optimize", "scipy.spatial.transform", "pandas", "pyarrow.parquet", "boto3", "sympy", "nltk", "inspect_ai",
    "math_verify", "typer", "rich.console", "aiohttp", "openai", "matplotlib.figure", "reasoning_gym", "requests",
    "sacrebleu", "pytablewriter", "git", "huggingface_hub.hf_api", "datasets", "peft", "trl.trainer.sft_trainer",
    "transformers.models.auto.modeling_auto", "transformers.modeling_utils", "transformers.trainer",
    "transformers.models.auto.tokenization_auto",
)  # fmt: skip
"""What transformers, TRL, lighteval and hubkit import; not lighteval, which turns gradients off."""
HUBKIT: Final = (
    "hubkit.cli", "hubkit.recipe.file", "hubkit.recipe.pipeline", "hubkit.recipe.preflight", "hubkit.executors.local",
    "hubkit.students.student", "hubkit.engines.transformers", "hubkit.evaluation.evaluation", "hubkit.stages.stages",
    "hubkit.release.publish", "hubkit.release.report",
)  # fmt: skip
"""What most commands and their workers import: half a second, most of it for pydantic to build the recipe's classes."""
_HUB: Final = ("HF_", "HUGGING", "TRANSFORMERS_", "HOME", "XDG_")
_READ_BY: Final = ("huggingface_hub.constants", "datasets.config")
"""Modules that read the Hub's address, its token's place and the cache from the environment when they are imported."""

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
_ENVIRONMENT: Final = dict(os.environ)
_SERVER: Final = forkserver.ForkServer()
_SERVER.set_forkserver_preload([*LIBRARIES, *HUBKIT])
_SERVED: Final[list[str]] = []
"""Not empty in a process of a fork server: it knows its own server only."""


def _start() -> None:
    """Have the next process come from the server, which starts in the environment of the tests."""
    now = dict(os.environ)
    os.environ.clear()
    os.environ.update(_ENVIRONMENT)
    try:
        _SERVER.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(now)
    forkserver.connect_to_new_process = _SERVER.connect_to_new_process


def _use_hub() -> None:
    """In a child whose Hub or cache is not the server's: what libraries have read of the environment, read again."""
    if all(
        os.environ.get(n) == _ENVIRONMENT.get(n) for n in {*os.environ, *_ENVIRONMENT} if n.startswith(_HUB)
    ):
        return
    for name in _READ_BY:
        module = sys.modules[name]
        before = dict(vars(module))
        importlib.reload(module)
        changed = {
            n: (before[n], now)
            for n, now in vars(module).items()
            if n.isupper() and before.get(n, now) != now
        }
        # Other modules have some of them by the same name.
        for other in [vars(each) for each in sys.modules.values() if isinstance(each, ModuleType)]:
            for constant in changed.keys() & other.keys():
                old, now = changed[constant]
                if other[constant] == old:
                    other[constant] = now
    hf_api: Any = sys.modules["huggingface_hub.hf_api"]
    hf_api.api.endpoint = hf_api.constants.ENDPOINT


class _Process(ForkServerProcess):
    """A child with its own environment and output, not the fork server's, before anything else is unpickled."""

    environment: Mapping[str, str] | None = None
    """That of its starter if none is given."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        if not _SERVED:
            _start()
        return ForkServerProcess._Popen(process_obj)

    def __getstate__(self) -> tuple[Any, ...]:
        streams = [reduction.DupFd(number) for number in (1, 2)]
        rest = bytes(reduction.ForkingPickler.dumps(self.__dict__))
        return dict(self.environment or os.environ), streams, rest

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        gc.freeze()  # collecting what the server has imported takes longer than most tests
        environment, streams, rest = state
        os.environ.clear()
        os.environ.update(environment)
        for number, stream in zip((1, 2), streams, strict=True):
            os.dup2(stream.detach(), number)
        _use_hub()
        self.__dict__.update(pickle.loads(rest))


class _Context(ForkServerContext):
    Process = _Process


_context: Final = _Context()


class Python:
    """A started `python -m MODULE …`, `python -c CODE …` or `python FILE …`, with what tests use of Popen."""

    def __init__(
        self, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        self.args = [sys.executable, *arguments]
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [Path(self._folder.name) / name for name in ("out", "err")]
        told = (arguments, str(cwd or Path.cwd()), self._streams, _path())
        self._process = _Process(target=_python, args=told)
        self._process.environment = env
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def output(self) -> str:
        """What it has written by now."""
        return self._read(0)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end. Returns what it wrote; raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        out, err = self._read(0), self._read(1)
        self._folder.cleanup()
        return out, err

    def _read(self, number: int) -> str:
        path = self._streams[number]
        return path.read_text("utf-8", "replace") if path.exists() else ""


def run(
    *arguments: str,
    cwd: Path | None = None,
    timeout: float = 280,
    env: Mapping[str, str] | None = None,
    cold: bool = False,
) -> subprocess.CompletedProcess[str]:
    """A process from start to end, with text output. Raises subprocess.TimeoutExpired, as subprocess.run does.

    `cold`: one that imports everything itself, as do its workers. Who adds to hubkit's tables needs that: classes
    are made of them at import.
    """
    changed = {name for name, value in (env or {}).items() if os.environ.get(name) != value}
    # These decide how Python itself starts; and who has no Hub yet chooses one before importing what reads it.
    decided = any(name.startswith(("PYTHON", "LC_", "LANG")) for name in changed)
    if cold or decided or (env or {}).get("HF_ENDPOINT") == "":
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=cwd, timeout=timeout, env=env, capture_output=True, text=True)
    process = Python(*arguments, cwd=cwd, env=env)
    try:
        out, err = process.communicate(timeout)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
    return subprocess.CompletedProcess(process.args, process.returncode or 0, out, err)


@functools.cache
def _path() -> list[str]:
    """Where a new Python looks for modules, besides its folder."""
    told = subprocess.check_output(
        [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"]
    )
    path: list[str] = json.loads(told)
    return path


def _python(arguments: tuple[str, ...], cwd: str, streams: list[Path], path: list[str]) -> None:
    """In the child, which ends with the process of the tests, however that ends: the kernel sends SIGIO."""
    parent = multiprocessing.process.parent_process()
    assert parent is not None
    fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, os.O_ASYNC)
    for number, stream in zip((1, 2), streams, strict=True):
        with stream.open("wb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(cwd)
    multiprocessing.process.ORIGINAL_DIR = cwd
    sys.path[:] = [cwd, *path, str(Path(__file__).parent)]  # the last for this module, in workers
    _SERVED.append(cwd)
    forkserver._forkserver.ensure_running = _is_running
    use_for_workers()
    try:
        match arguments:
            case "-m", module, *rest:
                sys.argv = [module, *rest]
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            case "-c", code, *rest:
                sys.argv = ["-c", *rest]
                exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
            case file, *rest:
                sys.argv = [file, *rest]
                runpy.run_path(file, run_name="__main__")
    finally:
        atexit._run_exitfuncs()


def _is_running() -> None:
    """Of its own server a process knows the address only, and would start another one."""


def use_for_workers() -> None:
    """From here on what multiprocessing would spawn, such as a recipe's workers, comes from the fork server."""
    contexts: Any = multiprocessing.context._concrete_contexts
    contexts["spawn"] = _context
