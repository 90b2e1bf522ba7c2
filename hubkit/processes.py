"""Runs a command for exactly as long as its owner lives: python processes.py COMMAND ARGUMENT …

Standard input is a pipe that the owner holds and never writes to. When it closes, because the owner closed it or
was killed in any way, the command and all its descendants are ended: asked first, then killed. They are
found even where they left the process group, since orphans below here become children of this process.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE_S = 15.0
"""For a server to end by itself, giving back the memory of its devices."""
POLL_S = 0.2
STOP_S = 30.0


@contextmanager
def supervised(
    command: list[str], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The command at work, writing to `log`; ended when the block is left, or this process in any way."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, __file__, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def main() -> int:
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the pipe alone decides
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, preexec_fn=begin)
    while server.poll() is None:
        if select.select([0], [], [], POLL_S)[0]:
            server.terminate()
            deadline = time.monotonic() + GRACE_S
            while server.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL_S)
            break
    end_descendants()
    code = server.returncode if server.returncode is not None else 1
    return code if code >= 0 else 128 - code  # as shells tell of a signal


def begin() -> None:
    """In the server, before it starts: die with this process, and hear signals again."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def end_descendants() -> None:
    """Kill children until there are none: those of a killed child become ours."""
    while True:
        for path in Path("/proc/self/task").glob("*/children"):
            for pid in path.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
