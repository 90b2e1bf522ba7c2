"""Processes that end with their owner, however the owner ends.

    with supervised(["vllm", "serve", …], Path("log"), os.environ) as process:    # any command
        process.wait()

    child = JsonChild("hubkit.engines.helper")                                    # a module of hubkit that
    child.send({"model": "/models/teacher"})                                      # calls connect_to_owner()
    child.receive()    # ["ready"], [] if nothing has come yet, None if the child has ended

    python -m hubkit.processes    # the supervisor: a process between an owner and its command
    stdin  {"command": ["vllm", "serve", …], "environment": {"HOME": …}, "folder": "/somewhere", "grace_s": 15}

The owner holds that standard input open. When it closes, because the owner closed it or was killed, the command and
all its descendants get SIGTERM and, after `grace_s` seconds, SIGKILL. They are found even in a session or process
group they made for themselves, since orphans below the supervisor become its children. Environment and command
come by the pipe, so that no argument list shows them. The exit status is the command's, as shells report it.

The local Hub runs its jobs this way too; it imports nothing of hubkit, and so starts the module itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = [
    "JsonChild", "connect_to_owner", "end_of_log", "end_with_parent", "free_ports", "main", "supervised",
]  # fmt: skip

GRACE_S: Final = 15.0
"""Between SIGTERM and SIGKILL: for a server to give back the memory of its devices."""
STOP_S: Final = 2 * GRACE_S
"""After which the supervisor itself is killed."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


# A command


@contextmanager
def supervised(
    command: list[str], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command that writes to `log`. It is ended when the block is left, or when this process ends.

    Yields the supervisor's process, which has the command's exit status.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            # By its path: the command may need another working folder or PYTHONPATH, this module needs neither.
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    assert process.stdin is not None
    told = {
        "command": command,
        "environment": dict(environment),
        "folder": str(Path.cwd()),
        "grace_s": GRACE_S,
    }
    try:
        with contextlib.suppress(BrokenPipeError):  # it has died: its status says so
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()
        yield process
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(STOP_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def main() -> int:
    """The supervisor: run the command that standard input names, until it ends or standard input closes."""
    told = json.loads(sys.stdin.buffer.readline())
    _linux(_PR_SET_CHILD_SUBREAPER, 1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # only the pipe ends the command
    try:
        process = subprocess.Popen(
            told["command"],
            cwd=told["folder"],
            env=told["environment"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_before_command,  # this process has one thread yet
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"cannot start {told['command'][0]}: {reason}", flush=True)
        return 127
    grace_s = float(told["grace_s"])
    told.clear()  # it may hold secrets
    closed = threading.Event()

    def end_when_closed() -> None:
        while os.read(0, 1 << 12):  # not sys.stdin, whose lock this thread would hold when the process exits
            pass
        closed.set()
        _end_descendants(grace_s)

    ending = threading.Thread(target=end_when_closed, daemon=True)
    ending.start()
    status = process.wait()
    if closed.is_set():
        ending.join()  # descendants of the command have their grace too
    _end_descendants(0)
    return status if status >= 0 else 128 - status


def _before_command() -> None:
    """In the command's process: die if the supervisor is killed, and hear signals again."""
    _linux(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _end_descendants(grace_s: float) -> None:
    """SIGTERM to all descendants; after grace_s SIGKILL to those that are left, and to what they have started."""
    import psutil

    def living() -> list[psutil.Process]:
        found = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    for process in living():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + grace_s
    while left := living():
        if time.monotonic() >= deadline:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        time.sleep(0.02)


def _linux(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


# A child that talks JSON lines


class JsonChild:
    """A Python module as a child process: it gets JSON values, one a line, and answers with JSON values.

    The kernel ends it when this process has gone, also while C code keeps it busy. It has `fileno()`, so a selector
    can wait for its answers.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        own = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        theirs, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments, str(theirs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | own | dict(environment or {}),
                pass_fds=[theirs],
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(theirs)
        assert self.process.stdin and self.process.stdout
        self._stdin, self._stdout = self.process.stdin, self.process.stdout
        self._rest = b""

    def fileno(self) -> int:
        return self._stdout.fileno()

    def send(self, value: Any) -> None:
        """Send it a value. If the child has ended, receive() returns None."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(json.dumps(value).encode() + b"\n")
            self._stdin.flush()

    def receive(self) -> list[Any] | None:
        """Returns the values that have arrived, once fileno() is readable. Returns None if the process has ended."""
        data = os.read(self.fileno(), 1 << 20)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self) -> int:
        """Kill it. Returns its exit status, negative for a signal."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        self._stdout.close()
        os.close(self._lifeline)
        return self.process.wait()


def connect_to_owner() -> tuple[Iterator[Any], Callable[[Any], None]]:
    """Returns the values that the owner of this JsonChild sends, and a function that sends a value back. Call it once.

    From then on the process ends with its owner, Ctrl-C is left to the owner, and printed text goes to standard
    error, not between the answers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # When the pipe closes, the kernel sends SIGIO, which ends a process that does not handle it. A thread that
    # watches the owner would not run while C code holds the interpreter.
    lifeline = int(sys.argv.pop())
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it closed before that
        sys.exit(1)
    output = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)

    def values() -> Iterator[Any]:
        for line in sys.stdin:
            if line.endswith("\n"):  # an owner that was killed may have left half a line
                yield json.loads(line)

    def answer(value: Any) -> None:
        try:
            output.write(json.dumps(value) + "\n")
            output.flush()
        except BrokenPipeError:  # the owner has ended; the kernel's SIGIO is on its way
            os._exit(1)

    return values(), answer


def end_with_parent() -> None:
    """Make this process end within half a second when its parent has ended.

    For processes that a library starts (a pool's workers, accelerate's), which get no pipe of ours.
    """
    import multiprocessing.connection  # not for the supervisor, which is started often

    starter, parent = multiprocessing.parent_process(), os.getppid()

    def watch() -> None:
        if starter is not None:  # of a pool: multiprocessing keeps a pipe to whoever asked for the worker
            multiprocessing.connection.wait([starter.sentinel])
        while starter is None and os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# Ports and logs


def free_ports(count: int = 1) -> list[int]:
    """Different ports of the loopback address that are free now."""
    with ExitStack() as held:  # all are ours until the last is chosen
        taken = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in taken:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in taken]


_STAMP: Final = re.compile(
    r"^(?:\[rank\d+\]: )?(?:\([^)]*\) )?(?:(?:ERROR|WARNING|INFO) [\d-]+ [\d:]+ \[[^\]]*\] ?)?"
)
"""What torchrun and vLLM write before a line."""
_TELLING: Final = re.compile(r"^(?:[\w.]*\.)?(?=\w*(?:Error|Exception)\b(?!\())(.*)|\b(error: .*)")
"""The last line of a traceback, with the exception's module left out, or what argparse and CUDA say."""


def end_of_log(log: Path, first: bool = False) -> str:
    """Returns the line of a log that says why its program failed, cut to 300 characters.

    That is the last line (with `first`, the first) that names an error; if none does, the last line with text.
    """
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    lines = [_STAMP.sub("", line) for line in lines]
    told = [
        # pydantic counts its errors first, and says them in the lines below.
        " ".join(" ".join([said, *lines[place + 1 : place + 3]]).partition(" [type=")[0].split())
        if "validation error" in said
        else said
        for place, line in enumerate(lines)
        if (match := _TELLING.search(line)) and (said := match[1] or match[2])
    ]
    told = [said for said in told if "(above)" not in said] or told  # vLLM's, of an engine that died
    return (told[0 if first else -1] if told else (lines or ["it wrote nothing"])[-1])[:300]


if __name__ == "__main__":
    sys.exit(main())
