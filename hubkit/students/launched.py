"""One of the processes that train a student together: what `launch.py` has accelerate start."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from hubkit.errors import HubkitError
from hubkit.executors.call import error_to_json, prepare_process
from hubkit.store import StepContext, write_json
from hubkit.students.student import train


def main() -> None:
    """Train with the call in the folder given as the only argument; the first process writes result.json there."""
    work = Path(sys.argv[1])
    call = json.loads((work / "launch.json").read_text(encoding="utf-8"))
    folders = {name: Path(folder) for name, folder in call["inputs"].items()}
    context = StepContext(**call | {"inputs": folders, "out": Path(call["out"]), "work": work})
    prepare_process(os.getppid())
    first = os.environ.get("RANK", "0") == "0"
    try:
        train(context)
    except HubkitError as error:
        # All meet what is wrong with the data; what one alone meets is as good.
        write_json(work / "result.json", error_to_json(error))
        sys.exit(1)
    if first:
        write_json(work / "result.json", {"counts": context.counts, "metrics": context.metrics})


if __name__ == "__main__":
    main()
