"""Worker processes that hang, run out of memory, crash and outlive their parent, or rather do not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support import slow

from hubkit.errors import InputError, StepError
from hubkit.verifiers import verify_problem
from hubkit.verifiers.base import Task, Verdict
from hubkit.verifiers.pool import WINDOW, Pool, shared_pool
from hubkit.verifiers.table import verify_inline

RIGHT = Task("math", "x^2+1", "\\boxed{1+x^2}")
WRONG = Task("math", "x^2+1", "\\boxed{1+x^3}")


def scorer(folder: Path, body: str) -> dict[str, str]:
    """An environment in which reasoning-gym's scorer is this function."""
    (folder / "reasoning_gym.py").write_text(
        f"def score(answer, entry):\n    {body}\n\ndef get_score_answer_fn(name):\n    return score\n"
    )
    return {"PYTHONPATH": str(folder)}


GYM = Task("reasoning-gym", "1", "{}", "gym/x", "{}")


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(2, deadline=8)
    yield pool
    pool.close()


def statuses(pool: Pool, tasks: list[Task]) -> list[str]:
    return [verdict.status for _, verdict in pool.stream((None, task) for task in tasks)]


def test_verdicts_come_in_order_with_those_that_needed_no_worker(pool: Pool) -> None:
    judged = Verdict("wrong", "", "known before")
    items: list[Task | Verdict] = [[RIGHT, judged, WRONG][i % 3] for i in range(2 * WINDOW)]
    found = list(pool.stream(enumerate(items)))
    assert [number for number, _ in found] == list(range(len(items)))
    expected = [["correct", "wrong", "wrong"][i % 3] for i in range(len(items))]
    assert [verdict.status for _, verdict in found] == expected


def test_no_more_is_read_than_the_window_holds(pool: Pool) -> None:
    read = 0

    def items() -> Iterator[tuple[int, Task]]:
        nonlocal read
        for number in range(4 * WINDOW):
            read += 1
            yield number, RIGHT

    stream = pool.stream(items())
    next(stream)
    assert read <= WINDOW + 1
    stream.close()
    assert statuses(pool, [WRONG]) == ["wrong"]


@pytest.mark.parametrize("hang", [slow("__import__('time').sleep(60)"), "sum(iter(int, 1))"])
def test_a_worker_that_hangs_is_replaced_and_only_its_item_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hang: str
) -> None:
    for name, value in scorer(tmp_path, hang).items():
        monkeypatch.setenv(name, value)
    with closing(Pool(2, deadline=4)) as pool:
        found = list(pool.stream((None, task) for task in [RIGHT, GYM, RIGHT, WRONG]))
    assert [verdict.status for _, verdict in found] == ["correct", "timeout", "correct", "wrong"]
    assert "no verdict within 4 s" in found[1][1].reason


def test_sympy_bombs_are_not_correct_and_cost_no_other_item(pool: Pool) -> None:
    bombs = [Task("math", "3", f"\\boxed{{{text}}}") for text in ("9^{9^{9^{9}}}", "(10^{9})!")]
    first, *found, last = statuses(pool, [RIGHT, *bombs, RIGHT])
    assert (first, last) == ("correct", "correct")
    assert set(found) <= {"timeout", "wrong"}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("return len(bytearray(8 << 30))", "unparseable", "MemoryError"),
        ("import os; os._exit(3)", "unparseable", "its worker died: exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", "unparseable", "its worker died: out of memory or killed"),
        ("print('noise'); return 1", "correct", "full score"),
        ("return score(answer, entry)", "unparseable", "RecursionError"),
    ],
)
def test_a_scorer_that_breaks_costs_one_verdict(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, status: str, reason: str
) -> None:
    for name, value in scorer(tmp_path, body).items():
        monkeypatch.setenv(name, value)
    found = [verdict for _, verdict in pool.stream((None, task) for task in [RIGHT, GYM, RIGHT])]
    assert [verdict.status for verdict in found] == ["correct", status, "correct"]
    assert reason in found[1].reason


def test_what_cannot_work_stops_the_run(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no scorer for 'gym/no_such_task'"):
        pool.verify(GYM._replace(source="gym/no_such_task"))
    pool.close()
    broken = "def parse(*a, **k): return []\ndef verify(*a, **k): return False\n"
    (tmp_path / "math_verify.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(StepError, match="math-verify does not work"):
        Pool(1).verify(RIGHT)
    (tmp_path / "math_verify.py").write_text("import no_such_module")
    with pytest.raises(StepError, match=r"cannot load.*no_such_module"):
        Pool(1).verify(RIGHT)
    (tmp_path / "json.py").write_text("raise SystemExit(7)")
    with pytest.raises(StepError, match="could not start"):
        Pool(1).verify(RIGHT)


def test_plain_answers_start_no_worker_and_any_thread_may_ask() -> None:
    row: dict[str, Any] = {"answer": "x^2+1", "verifier": "math", "source": "", "metadata": ""}
    plain = row | {"answer": "85"}
    pool = Pool(1)
    work = [(None, verify_inline(plain, f"\\boxed{{{guess}}}")) for guess in ("85", "84")]
    assert [verdict[0] for _, verdict in pool.stream(work)] == ["correct", "wrong"]
    assert not pool._workers
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(verify_problem(row, "\\boxed{1+x^2}").status))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["correct"] * 4
    assert shared_pool() is shared_pool()


@pytest.mark.parametrize("hang", ["__import__('time').sleep(600)", "sum(iter(int, 1))"])
def test_no_worker_outlives_its_parent(tmp_path: Path, hang: str) -> None:
    (tmp_path / "reasoning_gym.py").write_text(
        "import os\n"
        f"def get_score_answer_fn(name):\n    open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        f"    {hang}\n"
    )
    code = (
        "from hubkit.verifiers.base import Task\nfrom hubkit.verifiers.pool import shared_pool\n"
        "shared_pool().verify(Task('reasoning-gym', '1', '2', 'gym/x', '{}'))"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    while not (tmp_path / "pid").exists() or not (pid := (tmp_path / "pid").read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        time.sleep(0.05)  # the test's own time limit is the assertion


def test_a_worker_that_has_to_wait_for_a_core_gets_more_time() -> None:
    """Whether a trace is right must not depend on what else the machine does.

    One core of it here, for which a worker and six other processes wait: other tests need the rest.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # those that are started have it too
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(6)]
    pool = Pool(1, deadline=4)
    try:
        # Starting alone takes a second or two of a free core, and many on this machine now.
        assert pool.verify(RIGHT).status == "correct"
    finally:
        os.sched_setaffinity(0, cores)
        pool.close()
        for burner in burners:
            burner.kill()
            burner.wait()
