"""A recipe on a Ray cluster of two nodes on this machine, one of which is lost: needs ray."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from executors.scenario import answered, arguments, busy, outputs, started, states, wait
from support import hubkit, needs_ray

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), needs_ray]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that runs no steps, and two nodes of one CPU each."""
    os.environ["RAY_raylet_start_wait_time_s"] = "200"  # noqa: SIM112 - a busy machine is slow to start
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    for _ in range(2):
        cluster.add_node(num_cpus=1, **small)
    yield cluster
    cluster.shutdown()


def test_a_run_that_is_stopped_and_loses_a_node_ends_as_local_does(
    cluster: Any, tmp_path: Path, local: dict[str, tuple[str, Any]]
) -> None:
    on_cluster = arguments(tmp_path, "ray", f"run.ray_address={cluster.address}")
    with started(on_cluster) as process:
        wait("a trace step at work", lambda: answered(tmp_path))
        assert "running" in {state for step, state in states(tmp_path, "ray").items() if "traces/" in step}
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130 and "run the same command again" in errors, errors
    wait("the end of its tasks", lambda: not busy(tmp_path))

    with started(on_cluster) as process:
        wait("both trace steps at work", lambda: len(busy(tmp_path)) == 2)
        # Each of the two has one node to itself, so one step is lost with either.
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    assert outputs(tmp_path) == local


def test_what_goes_wrong_is_one_line(cluster: Any, tmp_path: Path) -> None:
    same = "{source: reasoning-gym, task: chain_sum, size: 5, seed: 1, split: train}"
    address = f"run.ray_address={cluster.address}"
    bad = arguments(tmp_path, "ray", address, f"problems.train={same}", f"problems.test={same}")
    done = hubkit(*bad)
    assert done.returncode == 1
    assert "error: 5 of 5 problems of 'test' are in the training set" in done.stderr


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "no Ray cluster at '127.0.0.1:9': [Errno 111] Connection refused"),
        ("nonsense", "no Ray cluster at 'nonsense': invalid literal"),
        ("auto", "no Ray cluster at 'auto': Could not find any running Ray instance"),
    ],
)
def test_no_cluster_is_one_line(tmp_path: Path, address: str, message: str) -> None:
    done = hubkit(*arguments(tmp_path, "ray", f"run.ray_address={address}"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}") and len(done.stderr.splitlines()) == 1, done.stderr
