from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import NANO, ROOT, hubkit

from hubkit.localhub import LocalHub

COMMANDS = [
    [],
    ["recipe"],
    *[["recipe", name] for name in ("list", "show", "plan", "run", "status", "report")],
    ["hub"],
    ["hub", "serve"],
    ["space"],
    ["space", "open"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_that_teaches(command: list[str]) -> None:
    done = hubkit(*command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout
    if len(command) == 2:
        assert "Example" in done.stdout or "hubkit" in done.stdout


def test_list_and_show() -> None:
    done = hubkit("recipe", "list", str(ROOT / "recipes"), "--json")
    assert "nano" in {entry["name"] for entry in json.loads(done.stdout)}
    shown = hubkit("recipe", "show", str(NANO), "--set", "seed=5")
    assert "seed: 5" in shown.stdout and "warmup_steps" in shown.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "teachers.0.model=./models/none"], "not there"),
        (["--set", "teachers.0.sampels=3"], "did you mean 'samples'"),
        (["--set", "problems.train.size=many"], "valid integer"),
        (["--only", "student"], "not done"),
        (["--until", "nonsense"], "no step matches"),
        (["--set", "run.engines.nano-teacher={engine: openai}"], "needs an endpoint"),
        (
            ["--set", "run.engines.nano-teacher={engine: openai, endpoint: 'http://me:secret@127.0.0.1/v1'}"],
            "may hold a password or key",
        ),
        (
            [
                "--set",
                f"run.engines.nano-teacher={{engine: openai, endpoint: 'http://127.0.0.1:{free_port()}/v1'}}",
            ],
            "does not answer",
        ),
        (["--set", f"hub.endpoint=http://127.0.0.1:{free_port()}"], "HF_TOKEN"),
    ],
)
def test_bad_input_is_one_line_before_any_work(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = hubkit("recipe", "run", str(NANO), "--out", str(tmp_path / "runs"), *arguments)
    assert done.returncode == 1, done.stdout
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("runs/steps/*/*"))


def test_a_hub_that_refuses_is_told_before_any_work(tmp_path: Path) -> None:
    with LocalHub(tmp_path / "hub") as hub:
        closed = f"http://127.0.0.1:{free_port()}"
        publish = ["--set", f"hub.endpoint={hub.endpoint}"]
        cases: list[tuple[list[str], dict[str, str], str]] = [
            (publish, {"HF_TOKEN": "hf_wrong"}, "does not know this token"),
            ([*publish, "--set", "hub.namespace=others"], {"HF_TOKEN": hub.token}, "may not write to others"),
            (["--set", "teachers.0.model=local/none"], {"HF_TOKEN": hub.token}, "it is not on"),
            (["--set", "teachers.0.model=local/none"], {"HF_ENDPOINT": closed}, "cannot be reached"),
        ]
        for arguments, environment, message in cases:
            asked = {"HF_ENDPOINT": hub.endpoint} | environment
            done = hubkit("recipe", "run", str(NANO), "--out", str(tmp_path / "runs"), *arguments, **asked)
            assert done.returncode == 1 and message in done.stderr, done.stderr
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
            assert environment.get("HF_TOKEN", "hf_") not in done.stdout + done.stderr
    assert not list(tmp_path.glob("runs/steps/*/*"))


def test_a_hub_that_hangs_up_on_a_lighteval_dataset_is_told_in_one_line(tmp_path: Path) -> None:
    benchmark = "benchmarks=[{name: g, task: 'gsm8k|0', sampling: {max_tokens: 9}}]"
    arguments = ["--set", benchmark, "--until", "contamination", "--out", str(tmp_path / "runs")]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        hub = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = hubkit("recipe", "run", str(NANO), *arguments, HF_ENDPOINT=hub)
    (told,) = (line for line in done.stderr.splitlines() if "error" in line)
    assert done.returncode == 1 and told.startswith("error: the problems of gsm8k|0 cannot be had: "), told


def test_ctrl_c_before_the_first_step_says_how_to_go_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        engine = f"run.engines.default={{engine: openai, endpoint: '{endpoint}'}}"
        command = [sys.executable, "-m", "hubkit", "recipe", "run", str(NANO), "--set", engine]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
            silent.settimeout(60)
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
            connection.close()
    assert process.returncode == 130
    assert told == "stopped; run the same command again to go on where it was\n"


def test_a_missing_recipe_and_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert "cannot read" in hubkit("recipe", "run", "nowhere.yaml").stderr
    assert "no recipes" in hubkit("recipe", "list", str(tmp_path)).stderr
    (tmp_path / "runs").write_text("a file")
    done = hubkit("recipe", "run", str(NANO), "--out", str(tmp_path / "runs"))
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_dry_run_shows_the_plan_and_makes_nothing(tmp_path: Path) -> None:
    done = hubkit("recipe", "run", str(NANO), "--dry-run", "--out", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert "steps to run" in done.stdout and "publish" in done.stdout
    assert not (tmp_path / "runs" / "steps").exists()
