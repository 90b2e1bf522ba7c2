"""No server outlives its owner, whatever ends the owner, and however the server's own children hide."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hubkit import processes

# A server that ignores being asked to stop, with a child in a session of its own that left its parent. What they
# write goes out in one piece, for both write to one pipe.
SERVER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[1] == "stubborn" else signal.SIG_DFL)
if os.fork() == 0:
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
os.write(1, f"{os.getpid()}\\n".encode())
time.sleep(600)
"""
OWNER = """
import subprocess, sys, time
process = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE, start_new_session=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    process.stdin.close()
    process.wait()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("manner", ["stubborn", "polite"])
def test_nothing_is_left_when_the_owner_ends(end: int, manner: str, tmp_path: Path) -> None:
    script = tmp_path / "processes.py"
    source = Path(processes.__file__).read_text()
    script.write_text(source.replace("GRACE_S = 15.0", "GRACE_S = 0.3"))
    command = [sys.executable, "-c", OWNER, str(script), sys.executable, "-c", SERVER, manner]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pids = [int(owner.stdout.readline()) for _ in range(2)]
        assert all(map(alive, pids))
        os.kill(owner.pid, end)
        owner.wait(20)
    finally:
        owner.kill()
    deadline = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in pids if alive(pid)]


def test_a_server_that_ends_by_itself_leaves_nothing_and_its_status() -> None:
    server = """if True:
        import os, sys, time
        if os.fork():
            sys.exit(7)
        print(os.getpid(), flush=True)
        time.sleep(600)
    """
    command = [sys.executable, processes.__file__, sys.executable, "-c", server]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert process.wait(30) == 7
    assert not alive(pid)
