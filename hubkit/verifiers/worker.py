"""A worker process that judges what sympy, a scorer or a sandbox has to look at.

    python -m hubkit.verifiers.worker MEMORY_BYTES DEADLINE_SECONDS LIFELINE
    stdout  "ready"
    stdin   [["math", "\\\\frac{1}{2}", "\\\\boxed{0.5}", "", ""], …]     a line: a list of tasks
    stdout  ["correct", "0.5", "equal by math-verify"]               a line for each task, in their order
            {"error": ["InputError", "a test is neither …", "see …"]}  where the run has to stop

It judges on its main thread, which math-verify's alarms need. What goes past the memory limit fails; what
computes past the deadline is ended by the kernel, even inside C code and with nobody left to do it. LIFELINE is
the number of a pipe that nobody writes to: when the parent is gone, it closes, and the worker ends with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import sys

from hubkit.errors import HubkitError
from hubkit.verifiers.base import Task, Verdict
from hubkit.verifiers.table import verify_in_worker


def main() -> None:
    memory, deadline = int(sys.argv[1]), float(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_AS, (memory, resource.getrlimit(resource.RLIMIT_AS)[1]))
    _end_with_parent(int(sys.argv[3]))
    # Libraries that print must neither print among the answers nor on the user's terminal.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    answers.write('"ready"\n')
    answers.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    for line in sys.stdin:
        for fields in json.loads(line):
            # Later than the parent's own deadline, which can say more.
            signal.setitimer(
                signal.ITIMER_PROF, deadline + 5
            )  # SIGPROF ends a process that does not handle it
            answers.write(json.dumps(_answer(Task(*fields))) + "\n")
            answers.flush()
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


def _end_with_parent(lifeline: int) -> None:
    """Have the kernel send SIGIO, which ends a process that does not handle it, when the pipe closes.

    A thread that watches the parent would not run while C code holds the interpreter.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it closed before that
        sys.exit(1)


if __name__ == "__main__":
    main()
