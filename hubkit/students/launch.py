"""Training in several processes of one machine, by `accelerate launch` with the recipe's `run.accelerate`.

The step's process writes launch.json into its work folder, starts the launcher, and waits. Each of the launched
processes trains as a single one would; the first of them writes the output, and result.json:

    {"counts": {"rows": 462}, "metrics": {"train_seconds": 41.2, …}}     or     {"error": "GateError", …}
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from hubkit.errors import RecipeError, StepError
from hubkit.executors.call import error_from_json
from hubkit.processes import supervised
from hubkit.store import StepContext, write_json

__all__ = ["check_accelerate", "launch"]

DEFAULTS: Final = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "MULTI_GPU",
    "num_machines": 1,
}
TELLING: Final = re.compile(r"^(?:\[rank\d+\]: )?(?:[\w.]*\.)?(\w+(?:Error|Exception): .*)")


def check_accelerate(given: dict[str, Any], folder: Path) -> None:
    """Raise RecipeError for what accelerate does not take as its configuration file."""
    from accelerate.commands.config.config_args import load_config_from_file

    path = _configuration(given, folder)
    try:
        load_config_from_file(str(path))
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0].replace(f"The config file at {path}", "it")
        raise RecipeError(f"run.accelerate: {reason}", "`accelerate config` writes what it takes") from None


def launch(context: StepContext) -> None:
    """Train in `run.accelerate`'s processes. Raises the error that one of them met."""
    result = context.work / "result.json"
    result.unlink(missing_ok=True)
    threads = max(1, context.runtime["threads"] // context.runtime["accelerate"]["num_processes"])
    write_json(
        context.work / "launch.json",
        {
            "step": context.step,
            "config": context.config,
            "runtime": context.runtime | {"threads": threads},
            "inputs": {name: str(folder) for name, folder in context.inputs.items()},
            "models": {"base": {"model": str(context.model("base")), "revision": ""}},
            "out": str(context.out),
        },
    )
    configuration = _configuration(context.runtime["accelerate"], context.work)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration)]
    command += ["-m", "hubkit.students.launched", str(context.work)]
    log = context.work / "accelerate.log"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with supervised(command, log, environment) as process:
        code = process.wait()
    found = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    if "error" in found:
        raise error_from_json(found)
    if code or not found:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        told = [match[1] for line in lines if (match := TELLING.search(line))]
        reason = (told or [line for line in lines if line.strip()] or ["it wrote nothing"])[0][:300]
        raise StepError(f"{context.step}: training ended with {code}: {reason}", f"its log is {log}")
    context.metrics.update(found["metrics"])
    for reason, number in found["counts"].items():
        context.count(reason, number)


def _configuration(given: dict[str, Any], folder: Path) -> Path:
    with socket.socket() as taken:  # several students may train side by side
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    path = folder / "accelerate.yaml"
    path.write_text(yaml.safe_dump(DEFAULTS | {"main_process_port": port} | given), encoding="utf-8")
    return path
