"""A Slurm of one node on this machine: Debian's slurmctld, slurmd and munge, all of it in one folder."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["SlurmCluster"]


class SlurmCluster:
    """Starts the daemons, waits until the node takes jobs, and ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> SlurmCluster:
        folder, user, host = self.folder, getpass.getuser(), socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        lines = [
            "ClusterName=test",
            f"SlurmctldHost={host}(127.0.0.1)",
            f"SlurmctldPort={free_port()}",
            f"SlurmdPort={free_port()}",
            f"SlurmUser={user}",
            f"SlurmdUser={user}",
            "AuthType=auth/munge",
            # A requeued job waits until its credential has expired: two minutes if not told otherwise.
            f"AuthInfo=socket={folder / 'munge.socket'},cred_expire=10",
            f"StateSaveLocation={folder / 'state'}",
            f"SlurmdSpoolDir={folder / 'spool'}",
            f"SlurmctldPidFile={folder / 'slurmctld.pid'}",
            f"SlurmdPidFile={folder / 'slurmd.pid'}",
            f"SlurmctldLogFile={folder / 'slurmctld.log'}",
            f"SlurmdLogFile={folder / 'slurmd.log'}",
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "SchedulerType=sched/backfill",
            "SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core",
            "MpiDefault=none",
            "ReturnToService=2",
            "KillWait=2",
            "MinJobAge=30",
            f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} State=UNKNOWN",
            f"PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP",
        ]
        (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        self._start(
            "munged",
            "--foreground",
            "--force",
            f"--socket={folder / 'munge.socket'}",
            f"--key-file={key}",
            f"--pid-file={folder / 'munge.pid'}",
            f"--log-file={folder / 'munge.log'}",
            f"--seed-file={folder / 'munge.seed'}",
        )
        self._until(lambda: (folder / "munge.socket").exists())
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D", "-N", host)
        self._until(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T"))
        return self

    def __exit__(self, *error: object) -> None:
        self.run("scancel", "--me")
        self._until(lambda: not self.run("squeue", "--noheader").strip())
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | self.environment, timeout=60
        )
        return done.stdout

    def _start(self, *command: str) -> None:
        self._processes.append(
            subprocess.Popen(
                command,
                env=os.environ | self.environment,
                stdout=subprocess.DEVNULL,
                stderr=(self.folder / f"{command[0]}.stderr").open("wb"),
            )
        )

    def _until(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + 90
        while not ready():
            dead = [p.args for p in self._processes if p.poll() is not None]
            texts = [path.read_text()[-800:] for path in self.folder.glob("*.stderr")]
            assert not dead and time.monotonic() < until, (dead, texts)
            time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
