"""The server as a process: started, shared, killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import (
    HfApi,
    HfFileSystem,
)

from hubkit.localhub import LocalHub, fsck

COMMITTING = """
import itertools, os, sys
from huggingface_hub import CommitOperationAdd, HfApi
api = HfApi()
for number in itertools.count(int(sys.argv[1])):
    files = {f"{i}.bin": b"%d\\0" % number * 2000 + bytes([i]) for i in range(3)} | {"n.txt": b"%d" % number}
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    print(api.create_commit("local/x", operations, commit_message=str(number)).oid, flush=True)
"""


def test_kill_during_commits_loses_and_tears_nothing(
    tmp_path: Path, client_environment: dict[str, str]
) -> None:
    """Whatever the server had confirmed is there after kill -9; a commit has all of its files or none."""
    generator = random.Random(4)
    confirmed: set[str] = set()
    with LocalHub(tmp_path / "hub") as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("local/x")
    for turn in range(4):
        with LocalHub(tmp_path / "hub") as hub:
            environment = client_environment | {
                "HF_ENDPOINT": hub.endpoint,
                "HF_TOKEN": hub.token,
                "HF_HUB_DISABLE_XET": str(turn % 2),
            }
            # A process of its own: clients would try for minutes to reach the dead server again.
            command = [sys.executable, "-c", COMMITTING, str(turn * 1000)]
            with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as client:
                assert client.stdout is not None and hub._process is not None
                confirmed.add(client.stdout.readline().strip())
                time.sleep(generator.uniform(0, 0.5))
                hub._process.kill()
                time.sleep(0.2)  # for what was confirmed before the kill to arrive
                client.kill()
                confirmed |= set(client.stdout.read().split())
        assert fsck(tmp_path / "hub").problems == []
    with LocalHub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        commits = {c.commit_id: int(c.title) for c in list(api.list_repo_commits("local/x"))[:-1]}
        assert len(confirmed) >= 4 and confirmed <= commits.keys()
        fs = HfFileSystem(endpoint=hub.endpoint, token=False)
        for commit, number in commits.items():
            assert fs.cat_file(f"local/x@{commit}/n.txt") == b"%d" % number
            for i in range(3):
                content = fs.cat_file(f"local/x@{commit}/{i}.bin")
                assert content == b"%d\0" % number * 2000 + bytes([i])


def test_the_server_is_shared_and_ends_with_its_last_user(tmp_path: Path) -> None:
    with LocalHub(tmp_path / "hub") as first:
        assert first._process is not None
        pid = first._process.pid
        with LocalHub(tmp_path / "hub") as second:
            assert second.endpoint == first.endpoint and second._process is None
        assert (tmp_path / "hub" / "token").stat().st_mode & 0o777 == 0o600
        token = first.token.encode()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    others = [p for p in (tmp_path / "hub").rglob("*") if p.is_file() and p.name != "token"]
    assert not [p for p in others if token in p.read_bytes()]


def test_no_server_outlives_a_killed_program(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from hubkit.localhub import LocalHub
from hubkit.localhub import fsck
hub = LocalHub(Path(sys.argv[1])).__enter__()
print(hub._process.pid, flush=True)
time.sleep(100)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "hub")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        server = int(program.stdout.readline())
        program.kill()
    for _ in range(100):
        try:
            os.kill(server, 0)
        except ProcessLookupError:
            return
        threading.Event().wait(0.1)
    pytest.fail("the server still runs")


def test_many_programs_starting_at_once_share_one_server(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from hubkit.localhub import LocalHub
from hubkit.localhub import fsck
with LocalHub(Path(sys.argv[1])) as hub:
    print(hub.endpoint, flush=True)
    time.sleep(1.5)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "hub")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = {process.communicate(timeout=60)[0] for process in running}
    assert {process.returncode for process in running} == {0} and len(outputs) == 1


def hubkit_hub(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hubkit", "hub", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_commands(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    refused = hubkit_hub("serve", str(hub), "--host", "0.0.0.0")
    assert refused.returncode == 1
    assert "--require-token" in refused.stderr and "Traceback" not in refused.stderr
    serving = [sys.executable, "-m", "hubkit", "hub", "serve", str(hub)]
    server = subprocess.Popen(serving, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        endpoint = server.stdout.readline().strip().removeprefix("export HF_ENDPOINT=")
        assert endpoint.startswith("http://127.0.0.1:")
        ask = f"""if True:
            import os, sys, urllib.request
            assert os.environ["HF_ENDPOINT"] == {endpoint!r}
            urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/health")
            sys.exit(7)
        """
        assert hubkit_hub("exec", str(hub), "--", sys.executable, "-c", ask).returncode == 7
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # A server that runs is never used in place of what was asked for.
        for option, told in (
            (["--port", str(port)], endpoint),
            (["--jobs"], "--jobs"),
            (["--require-token"], "token"),
        ):
            refused = hubkit_hub("serve", str(hub), *option)
            assert refused.returncode == 1 and told in refused.stderr and not refused.stdout
        # Nor is another port when the one asked for is taken.
        taken = endpoint.rpartition(":")[2]
        refused = hubkit_hub("serve", str(tmp_path / "other"), "--port", taken)
        assert refused.returncode == 1 and f"127.0.0.1:{taken}" in refused.stderr and not refused.stdout
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        assert hubkit_hub("exec", "--port", taken, str(hub), "--", "true").returncode == 0
        refused = hubkit_hub("exec", str(hub), "--port", taken, "--", "true")
        assert refused.returncode == 1 and "before the folder" in refused.stderr
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.communicate()


def test_a_misspelt_folder_is_not_made(tmp_path: Path) -> None:
    with LocalHub(tmp_path / "hub"):
        pass
    refused = hubkit_hub("exec", str(tmp_path / "hbu"), "--", "true")
    assert refused.returncode == 1 and f"did you mean {tmp_path / 'hub'}?" in refused.stderr
    (tmp_path / "empty").mkdir()
    commands = (("exec", "--", "true"), ("token", "alice"), ("member", "lab", "alice"), ("fsck",), ("gc",))
    for name in ("typo", "empty"):
        for command, *rest in commands:
            refused = hubkit_hub(command, str(tmp_path / name), *rest)
            assert refused.returncode == 1 and "holds no local Hub" in refused.stderr, command
            assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "hub"]
    assert not list((tmp_path / "empty").iterdir())
