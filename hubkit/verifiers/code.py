"""The code verifier: a program from a model, run against unit tests in a sandbox.

    "Here it is:\\n```python\\ndef double(x):\\n    return 2 * x\\n```" with the tests
    ["assert double(2) == 4", "assert double(-1) == -2"]  -> Verdict("correct", "def double…", "passed 2 of 2 tests")

Doubtful cases, decided here once:
- The last fenced block counts, one marked python before others; a text without a fence is no program. In a list item
  or a quote the block is dedented.
- A test is either Python text that runs after the program (an assert, or a whole checker), or
  {"input": …, "output": …}: the program's standard input, and what it must print. Output is compared line by
  line, white space at line ends and at the end of the output aside. Other layouts become these when a problem is read,
  and tests that check nothing are refused then (programs.py).
- If all tests pass without any program (`if False: assert …`), they check nothing: unparseable.
- A test passes when its end is reached: a program that calls exit(0) before the assert has failed it.
- The standard library only: what a program may import must not depend on the machine that verifies.
- The first test that fails decides; one that runs out of time is a timeout, out of memory is wrong.

The sandbox is bubblewrap: no network, a read-only system without homes, an empty environment, a small /tmp
in memory, its own process ids, and limits of memory, CPU and wall time, file size and processes. Code never
runs without it.
"""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from hubkit.errors import InputError, StepError
from hubkit.verifiers.base import SHOWN, RowSettings, Task, Verdict, Verifier
from hubkit.verifiers.programs import BESIDE, read_tests

__all__ = ["Code", "check_sandbox", "judge_code"]

TEST_SECONDS: Final = 6
"""Wall time of one test, and CPU time of each of its processes."""
PROGRAM_SECONDS: Final = 24
"""Wall time of all tests together: less than the pool's deadline, so that the reason names the test."""
MEMORY_BYTES: Final = 1 << 30
FILE_BYTES: Final = 16 << 20
"""Largest file, output included."""
PROCESSES: Final = 32
_FENCE: Final = re.compile(
    r"^(?P<indent>[ \t]*(?:>[ \t]?)*(?:(?:[-*+]|\d+[.)])[ \t]+)?)(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>\w*)[^\n]*\n"
    r"(?P<code>.*?)^[ \t>]*(?P=fence)[ \t\r]*$",
    re.MULTILINE | re.DOTALL,
)


class Code(Verifier):
    name = "code"
    reads_boxes = False

    def columns(self, source: RowSettings) -> list[str]:
        return [source.tests]

    def metadata(self, source: RowSettings, row: Mapping[str, Any], where: str) -> str:
        return self.checked({"tests": row[source.tests], **{name: row.get(name) for name in BESIDE}}, where)

    def more_columns(self, source: RowSettings) -> list[str]:
        return list(BESIDE)

    def checked(self, metadata: Mapping[str, Any], where: str) -> str:
        return json.dumps({"tests": read_tests(metadata.get("tests"), metadata, where)}, ensure_ascii=False)

    def check_machine(self) -> None:
        check_sandbox()

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        return Task(self.name, "", text, metadata=problem["metadata"])

    def verify_in_worker(self, task: Task) -> Verdict:
        return judge_code(task.text, task.metadata)


def judge_code(text: str, metadata: str) -> Verdict:
    """Run the program in `text` against the tests in a problem's metadata, {"tests": […]}."""
    tests = json.loads(metadata or "{}").get("tests", [])
    if not tests:
        return Verdict("unparseable", "", "the problem has no tests")
    blocks = [(match["language"], _dedented(match)) for match in _FENCE.finditer(text)]
    python = [code for language, code in blocks if language.lower() in ("python", "py", "python3")]
    if not blocks:
        return Verdict("unparseable", "", "no fenced program found")
    program = python[-1] if python else blocks[-1][1]
    shown = program.strip()[:SHOWN]
    if not _checks_something(metadata):
        return Verdict("unparseable", "", "the tests check nothing: they pass without any program")
    end = time.monotonic() + PROGRAM_SECONDS
    for number, test in enumerate(tests, 1):
        where = f"test {number} of {len(tests)}"
        seconds = min(TEST_SECONDS, end - time.monotonic())
        try:
            failure = _run_test(program, test, seconds)
        except subprocess.TimeoutExpired:
            return Verdict("timeout", shown, f"{where}: out of time after {max(0, seconds):.1f} s")
        if failure:
            return Verdict("wrong", shown, f"{where}: {failure}")
    return Verdict("correct", shown, f"passed {len(tests)} of {len(tests)} tests")


@functools.lru_cache(maxsize=256)
def _checks_something(metadata: str) -> bool:
    """Whether a test fails without a program. An empty program prints nothing, and each pair expects an output."""
    for test in json.loads(metadata)["tests"]:
        try:
            if not isinstance(test, str) or _run_test("", test, TEST_SECONDS):
                return True
        except subprocess.TimeoutExpired:
            return True
    return False


def _dedented(fence: re.Match[str]) -> str:
    """Returns the code of a fence without the indentation of a list item or a quote."""
    code = fence["code"]
    if ">" in fence["indent"]:
        code = re.sub(r"^[ \t]*(?:>[ \t]?)+", "", code, flags=re.MULTILINE)
    return textwrap.dedent(code.expandtabs(4)) if fence["indent"] else code


def _run_test(program: str, test: Any, seconds: float) -> str:
    """Returns why the program fails the test, or "". Raises TimeoutExpired."""
    if isinstance(test, str):
        # The last line shows that the end was reached; its text is new each time, so none can be printed early.
        proof = secrets.token_hex(16)
        done, output, error = run_sandboxed(f"{program}\n\n{test}\n\nprint({proof!r})\n", "", seconds)
        return "" if output.endswith(f"{proof}\n") and done == 0 else _last_line(error, done)
    if not isinstance(test, dict) or not {"input", "output"} <= test.keys():
        raise InputError("a test is neither text nor {input, output}", "see docs/verifiers.md")
    done, output, error = run_sandboxed(program, str(test["input"]), seconds)
    if done != 0:
        return _last_line(error, done)
    return "" if _lines(output) == _lines(str(test["output"])) else "its output differs"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _last_line(error: str, status: int) -> str:
    lines = error.strip().splitlines()
    if lines:
        return lines[-1][:SHOWN]
    return (
        f"killed by {signal.Signals(status - 128).name}" if status > 128 else f"ended early, status {status}"
    )


def run_sandboxed(program: str, stdin: str, seconds: float = TEST_SECONDS) -> tuple[int, str, str]:
    """Returns (exit status, standard output, standard error) of a Python program in the sandbox.

    Raises TimeoutExpired, and StepError when there is no sandbox.
    """
    with tempfile.TemporaryDirectory(prefix="hubkit-code-") as name:
        folder = Path(name)
        (folder / "code").mkdir()
        (folder / "code" / "program.py").write_text(program, encoding="utf-8", errors="replace")
        (folder / "stdin").write_text(stdin, encoding="utf-8", errors="replace")
        # Files, and not pipes: RLIMIT_FSIZE then ends a program that prints without end.
        with (
            (folder / "stdin").open("rb") as source,
            (folder / "stdout").open("wb") as output,
            (folder / "stderr").open("wb") as error,
        ):
            process = subprocess.Popen(
                [*_sandbox(), "--ro-bind", str(folder / "code"), "/code", "--", *_inside()],
                stdin=source,
                stdout=output,
                stderr=error,
                env={},
                cwd="/",
            )
            try:
                status = process.wait(seconds)
            finally:
                process.kill()  # its process ids are its own: all that it started goes with it
                process.wait()

        def text(file: str) -> str:
            return (folder / file).read_bytes().decode("utf-8", errors="replace")

        return (128 - status if status < 0 else status), text("stdout"), text("stderr")


@functools.cache
def _sandbox() -> tuple[str, ...]:
    """Returns the command of bwrap with its limits, which is the same for all programs."""
    bwrap, prlimit = shutil.which("bwrap"), shutil.which("prlimit")
    if not bwrap or not prlimit:
        raise StepError(
            "the code verifier needs a sandbox, and bwrap is not installed", "apt install bubblewrap"
        )
    limits = (
        f"--as={MEMORY_BYTES}",
        f"--cpu={TEST_SECONDS + 1}",
        f"--fsize={FILE_BYTES}",
        "--core=0",
        "--nofile=128",
    )
    # The system's programs and libraries and Python itself; /home, /root, /etc and /var stay outside.
    binds = ["--ro-bind", sys.base_prefix, "/python", "--setenv", "LD_LIBRARY_PATH", "/python/lib"]
    for folder in ("/usr", "/bin", "/lib", "/lib64"):
        if Path(folder).exists():
            binds += ["--ro-bind", folder, folder]
    apart = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    # Root is exempt from the limit of processes, so what root starts becomes nobody inside (see _inside).
    rights = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if _root() else ["--unshare-user"]
    isolation = [*apart, "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL", *rights]
    memory = ["--size", str(FILE_BYTES), "--perms", "1777", "--tmpfs", "/tmp"]  # noqa: S108
    places = ["--proc", "/proc", "--dev", "/dev", *memory, "--chdir", "/tmp"]  # noqa: S108
    return (prlimit, *limits, bwrap, *isolation, *binds, *places)


def _inside() -> list[str]:
    """The program's command; processes are limited inside, where no others of this user count."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if _root() else []
    python = f"/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    return [*nobody, "prlimit", f"--nproc={PROCESSES}", python, "-I", "-S", "/code/program.py"]


def _root() -> bool:
    return os.geteuid() == 0


@functools.cache
def check_sandbox() -> None:
    """Raise StepError, with what to do, unless a program runs in the sandbox and sees nothing outside."""
    try:
        status, output, error = run_sandboxed("import os; print(os.listdir('/'))", "")
    except subprocess.TimeoutExpired:
        status, output, error = 1, "", "no answer"
    if status != 0 or "'etc'" in output:
        raise StepError(
            f"bwrap cannot make a sandbox here: {_last_line(error or output, status)}",
            "use bubblewrap 0.8 or newer, as a user who may make namespaces (see docs/verifiers.md)",
        )
