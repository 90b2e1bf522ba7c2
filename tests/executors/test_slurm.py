"""Recipes on a real Slurm: apt-get install slurmctld slurmd slurm-client munge."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from executors.scenario import answered, arguments, outputs, started, states, wait
from executors.slurm_cluster import SlurmCluster
from support import hubkit, needs_slurm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_slurm]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with SlurmCluster(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster


def on_slurm(root: Path, *options: str) -> list[str]:
    asked = {"default": {"time": "30:00", "sbatch": list(options)}}
    return arguments(root, "slurm", f"run.resources={json.dumps(asked)}")


def waves(root: Path, kind: str) -> list[Path]:
    return sorted((root / "slurm").glob(f"*-{kind}/job"))


def lose_the_node(slurm: SlurmCluster) -> None:
    """Down, as Slurm marks a node that no longer answers, and then back."""
    node = slurm.run("sinfo", "--noheader", "--format=%n").strip()
    slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    wait(
        "no job at work", lambda: not slurm.run("squeue", "--noheader", "--states=running,completing").strip()
    )
    slurm.run("scontrol", "update", f"nodename={node}", "state=resume")


def test_a_killed_run_follows_its_jobs_again_and_ends_as_local_does(
    tmp_path: Path, slurm: SlurmCluster, local: dict[str, tuple[str, Any]]
) -> None:
    with started(on_slurm(tmp_path), **slurm.environment) as process:
        wait("a trace step at work", lambda: answered(tmp_path))
        process.kill()
        process.communicate()
    job = waves(tmp_path, "traces")[0].read_text().strip()
    assert "running" in {state for step, state in states(tmp_path, "slurm").items() if "traces/" in step}
    with started(on_slurm(tmp_path), **slurm.environment) as process:
        lose_the_node(slurm)  # Slurm queues its tasks again
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    assert outputs(tmp_path) == local
    assert len(waves(tmp_path, "traces")) == 1, "its tasks were followed, not submitted again"
    assert waves(tmp_path, "traces")[0].read_text().strip() == job


def test_a_task_that_slurm_gives_up_is_submitted_again(
    tmp_path: Path, slurm: SlurmCluster, local: dict[str, tuple[str, Any]]
) -> None:
    with started(on_slurm(tmp_path, "--no-requeue"), **slurm.environment) as process:
        wait("a trace step at work", lambda: answered(tmp_path))
        lose_the_node(slurm)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    assert outputs(tmp_path) == local
    assert len(waves(tmp_path, "traces")) > 1


def test_ctrl_c_cancels_and_a_rerun_goes_on(
    tmp_path: Path, slurm: SlurmCluster, local: dict[str, tuple[str, Any]]
) -> None:
    with started(on_slurm(tmp_path), **slurm.environment) as process:
        wait("a trace step at work", lambda: answered(tmp_path))
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130 and "run the same command again" in errors, errors
    wait("an empty queue", lambda: not slurm.run("squeue", "--noheader").strip())
    assert "interrupted" in states(tmp_path, "slurm").values()
    with started(on_slurm(tmp_path), **slurm.environment) as process:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    assert outputs(tmp_path) == local


def test_what_goes_wrong_is_one_line(tmp_path: Path, slurm: SlurmCluster) -> None:
    def told(folder: str, *more: str) -> str:
        done = hubkit(*arguments(tmp_path / folder, "slurm", *more), **slurm.environment)
        assert done.returncode == 1, done.stdout
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, done.stderr
        return lines[0]

    refused = told("refused", "run.resources={default: {partition: nowhere}}")
    assert (
        "steps.sbatch: Batch job submission failed: Invalid partition" in refused
        and "run.resources.problems" in refused
    )
    same = "{source: reasoning-gym, task: chain_sum, size: 5, seed: 1, split: train}"
    bad = told("bad", f"problems.train={same}", f"problems.test={same}")
    assert "5 of 5 problems of 'test' are in the training set" in bad
    without = hubkit(*arguments(tmp_path / "none", "slurm"), PATH="/nowhere")
    assert "there is no sbatch here" in without.stderr


def test_a_cancelled_task_is_told(tmp_path: Path, slurm: SlurmCluster) -> None:
    with started(on_slurm(tmp_path), **slurm.environment) as process:
        wait("a trace step at work", lambda: answered(tmp_path))
        slurm.run("scancel", waves(tmp_path, "traces")[0].read_text().strip())
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 1
        assert "ended: CANCELLED (run again: it goes on where it stopped)" in errors
