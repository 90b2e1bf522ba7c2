"""No child outlives its owner, whatever ends the owner, and however the child's own children hide."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hubkit import processes
from hubkit.processes import JsonChild, end_of_log, free_ports, supervised

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
# What an owner does that imports nothing of hubkit.
OWNER = """
import json, os, subprocess, sys, time
process = subprocess.Popen([sys.executable, "-m", "hubkit.processes"], stdin=subprocess.PIPE, start_new_session=True)
told = {"command": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd(), "grace_s": 0.3}
process.stdin.write(json.dumps(told).encode() + b"\\n")
process.stdin.flush()
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


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("manner", ["stubborn", "polite"])
def test_nothing_is_left_when_the_owner_ends(end: int, manner: str) -> None:
    command = [sys.executable, "-c", OWNER, sys.executable, "-c", SERVER, manner]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pids = [int(owner.stdout.readline()) for _ in range(2)]
        assert all(map(alive, pids))
        os.kill(owner.pid, end)
        owner.wait(20)
    finally:
        owner.kill()
    assert gone(pids)


def test_a_command_that_ends_by_itself_leaves_nothing_and_its_status(tmp_path: Path) -> None:
    server = """if True:
        import os, sys, time
        print(os.environ["SECRET"], os.environ.get("HOME"), flush=True)
        if os.fork():
            sys.exit(7)
        print(os.getpid(), flush=True)
        time.sleep(600)
    """
    log = tmp_path / "log"
    with supervised([sys.executable, "-c", server], log, {"SECRET": "s3cret"}) as process:
        assert "s3cret" not in Path(f"/proc/{process.pid}/cmdline").read_text(), "all users could read it"
        assert process.wait(30) == 7
    told, *pids = log.read_text().split("\n")
    assert told == "s3cret None" and gone([int(pid) for pid in pids if pid])


def test_leaving_the_block_gives_a_command_time_to_end(tmp_path: Path) -> None:
    """SIGTERM reaches the command's children too, and what they do about it is waited for."""
    child = "trap 'sleep 0.3; echo ended; exit' TERM; echo ready; while :; do sleep 0.05; done"
    log = tmp_path / "log"
    with supervised(["bash", "-c", f'bash -c "{child}" & wait'], log, os.environ):
        until = time.monotonic() + 20
        while "ready" not in log.read_text() and time.monotonic() < until:
            time.sleep(0.02)
    assert log.read_text().split()[-1] == "ended"


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with supervised(["no-such-program"], tmp_path / "log", {}) as process:
        assert process.wait(30) == 127
    assert end_of_log(tmp_path / "log") == "cannot start no-such-program: No such file or directory"


CHILD = """
import sys
from hubkit.processes import connect_to_owner
values, answer = connect_to_owner()
print("noise on standard output")
for value in values:
    answer({"got": value, "arguments": sys.argv[1:]})
    if value == "hang":
        sum(iter(int, 1))   # C code that never lets go of the interpreter
"""


@pytest.fixture
def child_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "a_child"


def test_a_child_answers_line_by_line(child_module: str) -> None:
    child = JsonChild(child_module, "x", environment={"OMP_NUM_THREADS": "1"})
    child.send({"ä": "a\nb"})
    child.send(None)
    answers: list[object] = []
    while len(answers) < 2:
        assert select.select([child], [], [], 20)[0]
        answers += child.receive() or ["it ended"]
    assert answers == [{"got": {"ä": "a\nb"}, "arguments": ["x"]}, {"got": None, "arguments": ["x"]}]
    child.process.send_signal(signal.SIGINT)  # Ctrl-C reaches it too, and is not its to handle
    child.send(3)
    assert select.select([child], [], [], 20)[0] and child.receive()
    child.process.kill()
    child.process.wait()
    child.send(4)
    assert child.receive() is None and child.end() == -signal.SIGKILL


@pytest.mark.parametrize("value", ["idle", "hang"])
def test_a_child_ends_with_its_owner(child_module: str, value: str) -> None:
    code = f"""if True:
        import select, time
        from hubkit.processes import JsonChild
        child = JsonChild({child_module!r})
        child.send({value!r})
        select.select([child], [], [])
        print(child.process.pid, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.kill()
    assert gone([pid])


def test_ports_are_free_and_different() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20 and all(1024 <= port < 65536 for port in ports)


@pytest.mark.parametrize(
    ("log", "first", "told"),
    [
        ("", False, "it wrote nothing"),
        ("loading\n\n", False, "loading"),
        (
            "(EngineCore pid=7) ERROR 11-26 10:00:00 [core.py:9] ValueError: too long\nbye\n",
            False,
            "ValueError: too long",
        ),
        ("vllm: error: unrecognized arguments: --x\n", False, "error: unrecognized arguments: --x"),
        ("torch.cuda.OutOfMemoryError: 3 GiB\nSIGTERM\n", False, "OutOfMemoryError: 3 GiB"),
        (
            '    raise ValueError("x")\n[rank1]: ValueError: x\n[rank0]: trl.y.PeerError: lost\n',
            True,
            "ValueError: x",
        ),
        ("RuntimeError: root\nRuntimeError: " + "y" * 400, False, "RuntimeError: " + "y" * 286),
        ("KeyboardInterrupt\nAssertionError\n", False, "AssertionError"),
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, 'X' failed to be inspected. [type=value_error, input_value=ArgsKwargs((), {})]\n    See\n",
            False,
            "ValidationError: 1 validation error for ModelConfig Value error, 'X' failed to be inspected.",
        ),
        (
            "(EngineCore pid=7) ERROR 11-26 10:00:00 [core.py:9] RuntimeError: it requires BF16.\n"
            "vllm.v1.engine.exceptions.EngineDeadError: EngineCore failed. See stack trace (above) for the cause.\n",
            False,
            "RuntimeError: it requires BF16.",
        ),
    ],
)
def test_the_end_of_a_log(tmp_path: Path, log: str, first: bool, told: str) -> None:
    (tmp_path / "log").write_text(textwrap.dedent(log))
    assert end_of_log(tmp_path / "log", first) == told


def test_the_module_is_light() -> None:
    """It stands between every job and its owner: it loads what it needs, and nothing else of hubkit."""
    code = "import json, sys, hubkit.processes; print(json.dumps([m for m in sys.modules if m.startswith('hubkit')]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) <= {"hubkit", "hubkit.processes"}
    assert processes.__file__
