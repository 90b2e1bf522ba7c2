"""Training in several processes of one machine, by `accelerate launch` with the recipe's `run.accelerate`.

The step's process writes a call file into its work folder, starts the launcher, and waits. Each of the launched
processes trains as a single one would (hubkit/executors/rank.py); the first writes the output and the result.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from hubkit.errors import RecipeError, StepError, first_line
from hubkit.executors.call import StepCall, error_from_json
from hubkit.executors.rank import RESULT
from hubkit.processes import end_of_log, free_ports, supervised
from hubkit.store import StepContext

__all__ = ["check_accelerate", "launch"]

DEFAULTS: Final = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "MULTI_GPU",
    "num_machines": 1,
}


def check_accelerate(given: dict[str, Any], folder: Path) -> None:
    """Raise RecipeError if accelerate does not accept this as its configuration file."""
    from accelerate.commands.config.config_args import load_config_from_file

    path = _configuration(given, folder)
    try:
        load_config_from_file(str(path))
    except (ValueError, TypeError, KeyError) as error:
        reason = first_line(error, 300).replace(f"The config file at {path}", "it")
        raise RecipeError(f"run.accelerate: {reason}", "`accelerate config` writes what it takes") from None


def launch(context: StepContext, train: Callable[[StepContext], None]) -> None:
    """Run `train` in each of `run.accelerate`'s processes. Raises the error of one of them."""
    result = context.work / RESULT
    result.unlink(missing_ok=True)
    threads = max(1, context.runtime["threads"] // context.runtime["accelerate"]["num_processes"])
    call = replace(
        StepCall.part_of(context, train),
        runtime=context.runtime | {"threads": threads},
        models={"base": {"model": str(context.model("base")), "revision": ""}},
    )
    file = context.work / "launch.json"
    file.write_text(call.to_json(), encoding="utf-8")
    configuration = _configuration(context.runtime["accelerate"], context.work)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration)]
    command += ["-m", "hubkit.executors.rank", str(file)]
    log = context.work / "accelerate.log"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with supervised(command, log, environment) as process:
        code = process.wait()
    found = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
    if "error" in found:
        raise error_from_json(found)
    if code or not found:
        # Errors of the other processes are consequences of it.
        reason = end_of_log(log, first=True)
        raise StepError(f"{context.step}: training ended with {code}: {reason}", f"its log is {log}")
    warned = context.work / "warnings.json"
    for line in json.loads(warned.read_text(encoding="utf-8")) if warned.is_file() else []:
        print(f"warning: {context.step}: {line}", file=sys.stderr)
    context.metrics.update(found["metrics"])
    for reason, number in found["counts"].items():
        context.count(reason, number)


def _configuration(given: dict[str, Any], folder: Path) -> Path:
    (port,) = free_ports()  # several students may train side by side
    path = folder / "accelerate.yaml"
    path.write_text(yaml.safe_dump(DEFAULTS | {"main_process_port": port} | given), encoding="utf-8")
    return path
