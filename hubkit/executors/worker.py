"""One step of a wave, on a cluster's node: python -m hubkit.executors.worker INDEX, in the wave's folder.

0.json        the call                      (written by the executor)
0.error.json  why it failed, if it did      (written here; a success is seen in the store)
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from hubkit.engines.kept import release
from hubkit.errors import HubkitError
from hubkit.executors.call import StepCall, error_to_json, execute, prepare_process
from hubkit.store import write_json

__all__ = ["main"]


def main() -> None:
    index = int(sys.argv[1])
    failed = Path(f"{index}.error.json")
    failed.unlink(missing_ok=True)  # of an attempt before a node was lost
    call = StepCall.from_json(Path(f"{index}.json").read_text(encoding="utf-8"))
    # A scheduler's SIGTERM unwinds the stack, so that a server started for the step ends with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    prepare_process()
    print(f"{call.step}: started", flush=True)
    try:
        record = execute(call)
    except HubkitError as error:
        write_json(failed, error_to_json(error))
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        release()  # this process ends: no later step finds the engine
    print(f"{call.step}: done in {record.seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
