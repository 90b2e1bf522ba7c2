from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubkit.errors import BusyError, InputError, StepError
from hubkit.store import Record, StepContext, Store, canonical_json, digest, exclusive, is_locked

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, Path("x"), b"x"])
def test_what_has_no_stable_form_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        canonical_json({"a": value})


def context(root: Path, step: str = "raw/t", **config: object) -> StepContext:
    return StepContext(step, dict(config), {}, {}, {}, root / "tmp" / "x", root / "work" / "x")


def write(context: StepContext) -> None:
    (context.out / "data").mkdir()
    (context.out / "data" / "a.txt").write_text("a")
    context.count("kept", 1)


def test_a_step_runs_once_and_its_record_tells_how(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = store.run(context(tmp_path, a=1), "raw", 1, "k" * 64, {"problems": "d1"}, write)
    assert store.find("raw/t", "k" * 64) == record
    assert record.counts == {"kept": 1} and record.files[0].path == "data/a.txt"
    assert not (tmp_path / "work" / "x").exists()

    def never(_: StepContext) -> None:
        raise AssertionError("ran twice")

    assert store.run(context(tmp_path, a=1), "raw", 1, "k" * 64, {}, never) == record
    assert "config.a: 1 -> 2" in store.why_missed("raw/t", {"a": 2}, {"problems": "d1"}, 1)
    assert "inputs.problems" in store.why_missed("raw/t", {"a": 1}, {"problems": "d2"}, 1)
    assert store.why_missed("other", {}, {}, 1) == "never run"


def test_equal_output_has_an_equal_digest_whatever_the_time(tmp_path: Path) -> None:
    records = [Store(tmp_path / n).run(context(tmp_path / n), "raw", 1, "k" * 64, {}, write) for n in "ab"]
    assert records[0].output == records[1].output


def test_what_was_made_elsewhere_is_taken_in_only_as_its_record_tells_it(tmp_path: Path) -> None:
    there, here = Store(tmp_path / "there"), Store(tmp_path / "here")
    key, came = "k" * 64, tmp_path / "here" / "tmp" / "came"

    def arrive() -> Path:
        shutil.rmtree(came, ignore_errors=True)
        shutil.copytree(there.folder("raw/t", key), came)
        return came / "data" / "a.txt"

    made = there.run(context(tmp_path / "there"), "raw", 1, key, {}, write)
    for spoil in (
        lambda file: file.write_text("b"),
        lambda file: file.unlink(),
        lambda file: file.with_name("more").write_text("x"),
        lambda file: file.with_name("link").symlink_to("/etc/passwd"),
        lambda file: (came / "record.json").write_text("{}"),
    ):
        spoil(arrive())
        with here.lock("raw/t", key), pytest.raises(InputError):
            here.adopt("raw/t", key, came)
    arrive()
    for step, other in (("raw/x", key), ("raw/t", "l" * 64)):
        with pytest.raises(InputError):
            here.adopt(step, other, came)
    assert here.find("raw/t", key) is None
    with here.lock("raw/t", key):
        assert here.is_busy(key)
        assert here.adopt("raw/t", key, came) == made == here.find("raw/t", key)
    assert not came.exists() and not here.is_busy(key)


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(context: StepContext) -> None:
        write(context)
        raise StepError("no", "yes")

    with pytest.raises(StepError):
        Store(tmp_path).run(context(tmp_path), "raw", 1, "k" * 64, {}, fail)
    assert Store(tmp_path).find("raw/t", "k" * 64) is None
    assert not (tmp_path / "steps").exists()


def test_a_damaged_output_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run(context(tmp_path), "raw", 1, "k" * 64, {}, write)
    folder = store.folder("raw/t", "k" * 64)
    (folder / "data" / "a.txt").write_text("longer")
    with pytest.raises(InputError, match="damaged"):
        store.find("raw/t", "k" * 64)
    (folder / "record.json").write_text("{")
    with pytest.raises(InputError, match="no usable record"):
        Record.read(folder)


def test_links_are_not_published(tmp_path: Path) -> None:
    def link(context: StepContext) -> None:
        (context.out / "a").symlink_to("/etc/hostname")

    with pytest.raises(InputError, match="link"):
        Store(tmp_path).run(context(tmp_path), "raw", 1, "k" * 64, {}, link)


def test_a_lock_tells_the_second_and_goes_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path, "x"):
        assert is_locked(path)
        with pytest.raises(BusyError), exclusive(path, "x"):
            pass
    assert not is_locked(path)


WRITER = """
import sys, time
from pathlib import Path
from hubkit.store import StepContext, Store
root = Path(sys.argv[1])
def run(context):
    for i in range(40):
        (context.out / f"{i}.txt").write_text("x" * 1000)
        time.sleep(0.002)
c = StepContext("s", {}, {}, {}, {}, root / "tmp" / "x", root / "work" / "x")
Store(root).run(c, "s", 1, "k" * 64, {}, run)
"""


def test_a_kill_at_any_moment_leaves_a_whole_output_or_none(tmp_path: Path) -> None:
    generator = random.Random(0)
    whole = 0
    for attempt in range(8):
        root = tmp_path / str(attempt)
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(root)])
        while not (root / "tmp" / "x").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        record = Store(root).find("s", "k" * 64)
        whole += record is not None
        if record is not None:
            assert len(record.files) == 40
        subprocess.run([sys.executable, "-c", WRITER, str(root)], check=True)
        again = Store(root).find("s", "k" * 64)
        assert again is not None and len(again.files) == 40
    assert whole < 8
