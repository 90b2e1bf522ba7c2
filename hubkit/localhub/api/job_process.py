"""python -m hubkit.localhub.api.job_process: the process above a job's, which ends all that the job started.

The first line of its standard input is {"command": […], "env": {…}, "folder": "…"}: secrets stand in no
argument list and no file. The server keeps that pipe open for as long as the job may run. When it closes,
because the job is to end or because the server is gone, however it went, the job and its descendants are
ended, also those that made themselves a session of their own. The exit status is the job's.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import select
import signal
import subprocess
import sys
import time
from typing import Final

import psutil

__all__ = ["main"]

GRACE_S: Final = 10.0
"""Between SIGTERM and SIGKILL."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def _linux(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _before_exec() -> None:
    _linux(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should this process be killed, nobody else would end the job


def _descendants() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _end_all(grace_s: float) -> None:
    """End all descendants: those that do not heed SIGTERM in time, and what they start meanwhile, by SIGKILL."""
    politely = _descendants()
    for process in politely:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(politely, timeout=grace_s)
    while alive := _descendants():
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)


def main() -> None:
    job = json.loads(sys.stdin.buffer.readline())
    # Orphans of the job become children of this process, and are found among its descendants.
    _linux(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        process = subprocess.Popen(
            job["command"],
            cwd=job["folder"],
            env=job["env"],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_before_exec,  # this process has one thread
        )
    except (OSError, ValueError) as error:
        print(f"cannot start {job['command'][0]}: {getattr(error, 'strerror', None) or error}", flush=True)
        sys.exit(127)
    job.clear()
    while process.poll() is None:
        told, _, _ = select.select([sys.stdin.buffer], [], [], 0.1)
        if told:
            _end_all(GRACE_S)
            process.wait()
    _end_all(0)  # of what the job left running
    sys.exit(process.returncode if process.returncode >= 0 else 128 - process.returncode)


if __name__ == "__main__":
    main()
