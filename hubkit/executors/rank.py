"""One of several processes that run a part of a step together: python -m hubkit.executors.rank CALL.json

A launcher starts them and numbers them by RANK. Each runs the call's function; the first writes result.json into the
step's work folder:

    {"counts": {"rows": 462}, "metrics": {"train_seconds": 41.2, …}}     or     {"error": "GateError", …}
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from hubkit.errors import HubkitError
from hubkit.executors.call import StepCall, error_to_json, prepare_process
from hubkit.store import write_json

__all__ = ["RESULT", "main"]

RESULT: Final = "result.json"


def main() -> None:
    call = StepCall.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    prepare_process()
    context = call.context()
    try:
        call.load()(context)
    except HubkitError as error:
        # An error in the data is met by all processes, and any of them may write it.
        write_json(context.work / RESULT, error_to_json(error))
        sys.exit(1)
    if os.environ.get("RANK", "0") == "0":
        write_json(context.work / RESULT, {"counts": context.counts, "metrics": context.metrics})


if __name__ == "__main__":
    main()
