from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from support import NANO, ROOT, hubkit

from hubkit.cli import app
from hubkit.localhub import LocalHub
from hubkit.release.results import RESULTS_SCHEMA
from hubkit.store import StepContext, Store

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
        (["--set", f"hub.endpoint=http://127.0.0.1:{free_port()}"], "set HF_ENDPOINT="),
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
    assert done.returncode == 1 and told.startswith("error: could not look up dataset openai/gsm8k: "), told


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


def test_what_is_piped_is_whole(tmp_path: Path) -> None:
    """Each step stands in a line of its own, however long its name is: a log that is searched finds it."""
    long = "a-teacher-whose-name-is-as-long-as-it-may-be"[:39].strip("-")
    sets = ["--set", f"teachers.0.name={long}", "--set", f"run.engines.{long}={{engine: transformers}}"]
    arguments = [str(NANO), *sets, "--out", str(tmp_path / "runs")]
    steps = [row["step"] for row in json.loads(hubkit("recipe", "plan", *arguments, "--json").stdout)]
    assert any(long in step for step in steps)
    for command in ("plan", "status"):
        done = hubkit("recipe", command, *arguments, COLUMNS="40")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        first = [line.split()[0] for line in lines if line]
        assert all(step in first for step in steps), done.stdout
        assert len(lines) == len(steps) + 2 and not any(line.endswith(" ") for line in lines), done.stdout


def test_an_estimate_by_limits_says_so(tmp_path: Path) -> None:
    arguments = ["recipe", "plan", str(NANO), "--out", str(tmp_path / "runs")]
    told = hubkit(*arguments).stdout.splitlines()[-1]
    assert re.fullmatch(
        r"4\d of 4\d steps to run, about [0-9.]+ min if every answer is as long as it may be", told
    )


def test_square_brackets_in_a_recipe_are_text(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    text = NANO.read_text(encoding="utf-8").replace("description: ", "description: '[bold]loud[/bold]' # ", 1)
    (tmp_path / "x" / "recipe.yaml").write_text(text, encoding="utf-8")
    shutil.copytree(NANO.parent / "prompts", tmp_path / "x" / "prompts")
    assert "[bold]loud[/bold]" in hubkit("recipe", "list", str(tmp_path)).stdout


def test_dry_run_shows_the_plan_and_makes_nothing(tmp_path: Path) -> None:
    done = hubkit("recipe", "run", str(NANO), "--dry-run", "--out", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert "steps to run" in done.stdout and "publish" in done.stdout
    assert not (tmp_path / "runs" / "steps").exists()


def commands() -> Iterator[tuple[str, Callable[[int], str]]]:
    """Each command's name, and its help for a terminal of so many columns."""

    def below(command: Any, name: str, parent: Any) -> Iterator[tuple[str, Callable[[int], str]]]:
        def text(width: int) -> str:
            own = command.context_class(
                command, info_name=name, parent=parent, terminal_width=width, max_content_width=width
            )
            return str(command.get_help(own))

        yield name, text
        for of, child in getattr(command, "commands", {}).items():
            yield from below(child, f"{name} {of}", None)

    return below(typer.main.get_command(app), "hubkit", None)


@pytest.mark.parametrize("width", [80, 60])
def test_help_keeps_to_the_terminal(width: int) -> None:
    for name, text in commands():
        long = [line for line in text(width).splitlines() if len(line) > width]
        assert not long, (name, long)


def test_examples_can_be_pasted_at_80_columns() -> None:
    """An example that goes on in a second line is two commands when it is pasted."""
    for name, text in commands():
        lines = text(80).splitlines()
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            assert "Example: " not in line or not after.strip(), (name, line, after)


def test_a_run_says_its_estimate_first_and_a_report_is_never_lost(tmp_path: Path) -> None:
    """Also when settings have changed since: nothing runs again to show it."""
    arguments = [str(NANO), "--out", str(tmp_path / "runs")]
    done = hubkit("recipe", "run", *arguments, "--until", "problems/train")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"1 of 1 steps to run, about [0-9.]+ (s|min)(, 1 of unknown time)?", done.stderr.splitlines()[0]
    )
    done = hubkit("recipe", "report", *arguments)
    assert done.returncode != 0 and "has no report yet" in done.stderr and "run it first" in done.stderr
    # A report of this recipe, as a run with other settings leaves it.
    row = dict.fromkeys(RESULTS_SCHEMA.names) | {
        "student": "s-raw-full",
        "origin": "student",
        "benchmark": "sums",
    }
    row |= {"accuracy": 0.75, "ci_low": 0.7, "ci_high": 0.8, "mean_output_tokens": 90.0, "cut_share": 0.0}
    row |= {"accuracy_per_1000_tokens": 1.0}
    results = {"recipe": "nano", "headline": "Short ones are as good.", "students": [row], "over_seeds": []}

    def write(context: StepContext) -> None:
        (context.out / "results.json").write_text(json.dumps(results))

    store = Store(tmp_path / "runs")
    context = StepContext("report", {}, {}, {}, {}, tmp_path / "tmp", tmp_path / "work")
    store.run(context, "report", 1, "0" * 64, {}, write)
    done = hubkit("recipe", "report", *arguments)
    assert done.returncode == 0, done.stderr
    assert "an earlier run's" in done.stderr
    assert done.stdout.startswith("Short ones are as good.") and "s-raw-full" in done.stdout
    shown = hubkit("recipe", "report", *arguments, "--json")
    assert json.loads(shown.stdout) == results
