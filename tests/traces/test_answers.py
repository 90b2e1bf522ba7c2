"""Answers that were paid for are found again: what a real endpoint is asked when a recipe changes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import warm
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import Oracle, write_recipe
from openai_server import OpenAIServer

from hubkit.engines import Request, Response
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import InputError
from hubkit.executors.call import StepCall, execute
from hubkit.recipe import estimate
from hubkit.recipe.estimate import answered
from hubkit.recipe.file import load_recipe
from hubkit.recipe.graph import Plan
from hubkit.recipe.pipeline import run, select, status
from hubkit.recipe.plan import make_plan
from hubkit.records import PROBLEM_SCHEMA, read_rows, write_rows
from hubkit.section import Sampling
from hubkit.store import Record, Store, digest
from hubkit.traces.answers import Answers, pack, unpack
from hubkit.traces.journal import Journal, Key, request_hash, request_seed

MODEL = "0" * 40


def call(
    root: Path, server: OpenAIServer, problems: list[str], shard: tuple[int, int] = (0, 1), **more: Any
) -> StepCall:
    """A traces step as a run places it, its problems beside it."""
    model = more.pop("model", MODEL)
    folder = root / "steps" / "problems" / digest(problems)[:16]
    if not folder.exists():
        empty = dict.fromkeys(PROBLEM_SCHEMA.names, "")
        rows = [empty | {"id": name, "problem": f"{name}?", "verifier": "exact"} for name in problems]
        write_rows(folder / "problems.parquet", rows, PROBLEM_SCHEMA)
    engine = EngineRuntime(engine="openai", endpoint=server.endpoint, window=8, tries=2)
    config = {
        "teacher": "t",
        "samples": 1,
        "system": "",
        "seed": 0,
        "shard": list(shard),
        "sampling": {"max_tokens": 9},
    } | more
    inputs = {"problems": digest(problems), "model:teacher": model}
    return StepCall(
        function="hubkit.traces.origins.teacher:run",
        step=f"traces/t/{shard[0]}",
        kind="traces",
        version=2,
        key=digest([config, inputs]),
        config=config,
        runtime={"engine": engine.model_dump(mode="json"), "device": "cpu", "threads": 1},
        inputs=inputs,
        folders={"problems": folder},
        models={"teacher": {"model": "org/m", "revision": model}},
        paths={},
        root=root,
    )


def ran(root: Path, server: OpenAIServer, *args: Any, **more: Any) -> tuple[int, list[str]]:
    """(requests that the server got, the solutions in the step's order)."""
    before, made = len(server.requests), call(root, server, *args, **more)
    record: Record = execute(made)
    rows = read_rows(root / "steps" / made.step / record.key[:16] / "traces.parquet")
    return len(server.requests) - before, [row["solution"] for row in rows]


NAMES = [f"p{i}" for i in range(40)]


def test_only_what_is_new_is_asked(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        assert ran(tmp_path, server, NAMES)[0] == 40
        asked, solutions = ran(tmp_path, server, [*NAMES, "new1", "new2"])
        assert asked == 2 and solutions == [f"said {name}?" for name in [*NAMES, "new1", "new2"]]
        assert ran(tmp_path, server, NAMES[:7])[0] == 0, "a limit"
        asked, solutions = ran(tmp_path, server, NAMES[::-1])
        assert asked == 0 and solutions == [f"said {name}?" for name in NAMES[::-1]], "another order"
        assert ran(tmp_path, server, NAMES, samples=3)[0] == 80
        assert [ran(tmp_path, server, NAMES, (i, 3), samples=3)[0] for i in range(3)] == [0, 0, 0]
        assert ran(tmp_path, server, [*NAMES, "new1", "new3"], samples=2)[0] == 3, (
            "new1's second, and new3's both"
        )


def test_what_decides_an_answer_is_asked_anew(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        assert ran(tmp_path, server, NAMES)[0] == 40
        assert ran(tmp_path, server, NAMES, seed=1)[0] == 40
        assert ran(tmp_path, server, NAMES, system="Be brief.")[0] == 40
        assert ran(tmp_path, server, NAMES, sampling={"max_tokens": 8})[0] == 40
        assert ran(tmp_path, server, NAMES, model="1" * 40)[0] == 40
        # How the answers are read is none of these.
        assert ran(tmp_path, server, NAMES, thinking={"open": "{{", "close": "}}"})[0] == 0
        assert ran(tmp_path / "another folder", server, NAMES)[0] == 40


def test_an_error_is_asked_again(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        server.faults["p3?"] = ["400"]
        assert ran(tmp_path, server, NAMES)[0] == 40
        assert ran(tmp_path, server, [*NAMES, "new"])[0] == 2


def test_answers_of_a_step_that_was_killed_are_found_by_another_and_by_itself(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hubkit.executors.call import StepCall, execute; "
        "execute(StepCall.from_json(Path(sys.argv[1]).read_text()))"
    )
    many = [f"p{i}" for i in range(400)]
    with OpenAIServer(delay_s=0.02) as server:
        killed = call(tmp_path, server, many)
        (tmp_path / "call.json").write_text(killed.to_json())
        process = warm.Python("-c", code, str(tmp_path / "call.json"))
        while len(server.requests) < 150:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        had = len(server.requests)
        # Of the kill: those in flight, and what was answered since the last commit.
        assert 0 <= ran(tmp_path, server, [*many, "new"])[0] - 1 - (400 - had) <= 16 + 32 + 8
        assert len(list((tmp_path / "work").rglob("journal.sqlite"))) == 1, (
            "the killed one's stays where it is"
        )
        before = len(server.requests)
        execute(killed)
        assert len(server.requests) == before
    assert not list((tmp_path / "work").rglob("*.sqlite"))
    answers = Answers(tmp_path, MODEL)
    assert answers.count(hashes(many)) == 400


def hashes(names: list[str]) -> Iterator[str]:
    for name in names:
        key = Key(name, 0)
        messages = [{"role": "user", "content": f"{name}?"}]
        yield request_hash(Request(key.text, messages, Sampling(max_tokens=9), request_seed(0, key)))


def test_folders_of_steps_that_end_meanwhile_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "work" / "evaluation" / "s" / "lighteval"
    gone.mkdir(parents=True)
    scan = os.scandir

    def late(place: Any) -> Any:
        if str(place) == str(gone) and gone.exists():
            gone.rmdir()
        return scan(place)

    monkeypatch.setattr(os, "scandir", late)
    Answers(tmp_path, "m").collect()
    assert not gone.exists()


def test_what_is_there_is_counted_without_writing_anything(tmp_path: Path) -> None:
    answers = Answers(tmp_path, MODEL)
    assert answers.count(hashes(NAMES)) == 0
    with OpenAIServer() as server:
        ran(tmp_path, server, NAMES[:25])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert answers.count(hashes(NAMES)) == 25
    assert Answers(tmp_path, "1" * 40).count(hashes(NAMES)) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_two_processes_at_once_get_whole_answers(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from hubkit.executors.call import StepCall, execute\n"
        "for name in sys.argv[1:]: execute(StepCall.from_json(Path(name).read_text()))"
    )
    chance = random.Random(1)
    with OpenAIServer(delay_s=0.002) as server:
        calls = []
        for number in range(8):
            chosen = chance.sample(NAMES, 25)
            calls.append(call(tmp_path, server, chosen))
            (tmp_path / f"{number}.json").write_text(calls[-1].to_json())
        files = [str(tmp_path / f"{number}.json") for number in range(8)]
        processes = [warm.Python("-c", code, *part) for part in (files[:4], files[4:])]
        for process in processes:
            _, errors = process.communicate(280)
            assert process.returncode == 0, errors
        assert len(server.requests) <= 2 * 40 + 2 * 16, (
            "at most what both ask at the same time is asked twice"
        )
    for made in calls:
        rows = list(read_rows(tmp_path / "steps" / made.step / made.key[:16] / "traces.parquet"))
        assert [row["solution"] for row in rows] == [f"said {row['id']}?" for row in rows] and len(rows) == 25


@pytest.mark.slow
def test_a_recipe_that_grows_pays_for_what_is_new_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teacher, judge and compressor: raw changes, and with it every later step's key."""
    root = tmp_path / "runs"

    def planned(*sets: str) -> Plan:
        return make_plan(load_recipe(path, list(sets)), path, root)

    def run_until(kind: str, *sets: str) -> Counter[str]:
        """Requests by model."""
        server.requests.clear()
        plan = planned(*sets)
        run(plan, Store(root), select(plan, until=[kind]), lambda *_: None)
        return Counter(body["model"] for body in server.requests)

    def had(*sets: str) -> dict[str, int]:
        plan = planned(*sets)
        found = answered(plan, Store(root), status(plan, Store(root)))
        assert all(count.exact for count in found.values())
        return {name: count.number for name, count in found.items()}

    with Oracle() as server:
        path = write_recipe(tmp_path, server, 30)
        first = run_until("compressed", "problems.train.limit=10")
        assert first["sage"] == 20 and first["short"] > 0
        more = ["problems.train.limit=20", "teachers.0.shards=2"]
        assert had(*more) == {}, "its problems are not there yet"
        run_until("problems", *more)
        assert had(*more) == {"traces/sage/0": 10, "traces/sage/1": 10}
        monkeypatch.setattr(estimate, "LOOKED_AT", 8)
        plan = planned(*more)
        some = answered(plan, Store(root), status(plan, Store(root)))["traces/sage/0"]
        assert str(some) == "about 10 answers are there", "of four of its twenty requests half are answered"
        monkeypatch.undo()
        second = run_until("compressed", *more)
        # The second ten lands are answered like the first ten; the judge refuses two replies in ten, which are errors.
        assert second["sage"] == 20
        assert abs(second["short"] - first["short"]) <= 4, "every third first attempt is wrong: 4 and 3 of 10"
        assert second["umpire"] < 1.6 * first["umpire"]
        assert run_until("compressed", *more, "compressors.0.shards=3")["short"] == 0


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        ran(tmp_path, server, NAMES)
        [file] = tmp_path.glob("answers/*/*.sqlite")
        file.write_bytes(file.read_bytes()[:5000] + b"\x55" * 5000)
        with pytest.raises(InputError, match="damaged") as caught:
            ran(tmp_path, server, NAMES[:-1])
        assert str(file) in caught.value.remedy
        file.unlink()
        assert ran(tmp_path, server, NAMES[:-1])[0] == 39


def test_journals_hold_no_token_ids_and_are_compressed(tmp_path: Path) -> None:
    text = " ".join(f"step {i}: {i * i}" for i in range(2000))
    made = Response("k", text, "stop", 3, 9000, token_ids=list(range(9000)))
    with Journal(tmp_path / "journal.sqlite", "f") as journal:
        journal.add(Key("k", 0), "h", made)
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as db:
        [(packed,)] = db.execute("SELECT response FROM responses")
    assert len(packed) < 0.5 * len(text)
    assert unpack(packed, "k").token_ids == []
    with pytest.raises(InputError, match="damaged"):
        unpack(b"\0\0\1\0" + b"no zstd", "k")


@settings(deadline=None)
@given(
    st.builds(
        Response,
        st.just("k"),
        st.text(),
        st.sampled_from(["stop", "length", "error", "repetition"]),
        st.integers(0, 9),
        st.integers(0, 9),
        st.floats(0, 9),
        st.none() | st.text(min_size=1),
        st.text(),
        st.lists(st.integers(0, 9)),
        st.integers(0, 9),
    )
)
def test_a_packed_response_comes_back(response: Response) -> None:
    assert unpack(pack(response), "k") == replace(response, token_ids=[])


def test_a_journal_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", "f") as journal:
        journal.add(Key("a", 0), "h", Response("k", "x", "stop"))
    with closing(sqlite3.connect(tmp_path / "j")) as db:
        db.execute("DROP TABLE about")
        db.execute(
            "UPDATE responses SET response = ?", ('{"key": "k", "text": "old", "finish_reason": "stop"}',)
        )
        db.commit()
    with Journal(tmp_path / "j", "f", Answers(tmp_path, MODEL)) as journal:
        found = journal.get(Key("a", 0), "h")
        assert found is not None and found.text == "old"
