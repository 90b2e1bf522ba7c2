"""A worker process that judges tasks which need sympy, a scorer or a sandbox.

    python -m hubkit.verifiers.worker MEMORY_BYTES DEADLINE_SECONDS …      (started as a JsonChild)
    stdout  "ready"
    stdin   [["math", "\\\\frac{1}{2}", "\\\\boxed{0.5}", "", ""], …]     a line: a list of tasks
    stdout  ["correct", "0.5", "equal by math-verify"]               a line for each task, in their order
            {"error": ["InputError", "a test is neither …", "see …"]}  where the run has to stop

It judges on its main thread, which math-verify's alarms need. A task that exceeds the memory limit fails; a worker that
computes past the deadline is ended by the kernel, even inside C code and after its owner has ended.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

from hubkit.errors import HubkitError
from hubkit.processes import connect_to_owner
from hubkit.verifiers.base import Task, Verdict
from hubkit.verifiers.table import verify_in_worker


def main() -> None:
    memory, deadline = int(sys.argv[1]), float(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    requests, answer = connect_to_owner()
    answer("ready")
    # Libraries that print must not do so on the user's terminal.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    for tasks in requests:
        for fields in tasks:
            # Later than the parent's own deadline, which can say more. SIGPROF ends a process that does not handle it.
            signal.setitimer(signal.ITIMER_PROF, deadline + 5)
            answer(_answer(Task(*fields)))
        signal.setitimer(signal.ITIMER_PROF, 0)


def _answer(task: Task) -> Verdict | dict[str, list[str]]:
    try:
        return verify_in_worker(task)
    except HubkitError as error:
        return {"error": [type(error).__name__, error.message, error.remedy]}
    except ImportError as error:
        return {
            "error": [
                "StepError",
                f"the {task.verifier} verifier cannot load: {error}",
                "install hubkit again",
            ]
        }
    except MemoryError:
        return Verdict("timeout", "", "ran out of memory")
    except RecursionError:
        return Verdict("unparseable", "", "nested too deeply")
    except Exception as error:  # sympy raises all sorts on hostile input
        return Verdict("unparseable", "", f"{task.verifier}: {type(error).__name__}"[:200])


if __name__ == "__main__":
    main()
