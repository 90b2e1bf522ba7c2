"""The journal under what happens to it: kills, full and read-only disks, other processes, other recipes."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import warm
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_server import OpenAIServer

from hubkit.engines import Request, Response, open_engine
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import BusyError, EngineError, InputError
from hubkit.section import Sampling
from hubkit.store import StepContext
from hubkit.traces.answers import unpack
from hubkit.traces.journal import Journal, Key, answer, request_hash, request_seed

SAMPLING = Sampling(max_tokens=9)


def requests(number: int, samples: int = 1) -> Iterator[tuple[Key, Request]]:
    for i in range(number):
        for sample in range(samples):
            key = Key(f"p{i}", sample)
            messages = [{"role": "user", "content": f"{i}/{sample}"}]
            yield key, Request(key.text, messages, SAMPLING, request_seed(0, key))


def context(folder: Path, **runtime: Any) -> StepContext:
    engine = EngineRuntime(engine="openai", **runtime).model_dump(mode="json")
    return StepContext("traces/t/0", {}, {"engine": engine}, {}, {}, folder, folder)


def run(folder: Path, server: OpenAIServer, number: int, **runtime: Any) -> None:
    """Answer through the server and the journal in this folder, as a step does."""
    step = context(folder, endpoint=server.endpoint, window=8, **runtime)
    with (
        Journal(folder / "journal.sqlite", "f") as journal,
        open_engine("m", EngineRuntime(**step.runtime["engine"])) as engine,
    ):
        answer(step, engine, journal, requests(number), number)


def rows(folder: Path) -> list[tuple[str, int, int, Response]]:
    with closing(sqlite3.connect(folder / "journal.sqlite")) as db:
        found = db.execute(
            "SELECT id, sample, attempt, responses.response FROM requests"
            " JOIN responses ON number = requests.response"
        )
        return [(*key, unpack(packed, Key(*key).text)) for *key, packed in found]


def response(key: Key, text: str = "x", error: bool = False) -> Response:
    return Response(key.text, text, "error" if error else "stop", prompt_tokens=3, completion_tokens=5)


# Run as `python -c RUN FOLDER ENDPOINT NUMBER`; the step of a real run, in a process that can be killed.
RUN = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[4:]
from test_journal import context, requests
from hubkit.engines.settings import EngineRuntime
from hubkit.engines import open_engine
from hubkit.errors import HubkitError
from hubkit.traces.answers import unpack
from hubkit.traces.journal import Journal, answer
folder, endpoint, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
step = context(folder, endpoint=endpoint, window=8)
try:
    with Journal(folder / "journal.sqlite", "f") as journal:
        with open_engine("m", EngineRuntime(**step.runtime["engine"])) as engine:
            answer(step, engine, journal, requests(number), number)
except HubkitError as error:
    print(f"{type(error).__name__}: {error}")
    sys.exit(3)
"""


def command(folder: Path, server: OpenAIServer, number: int) -> list[str]:
    here = Path(__file__).parent
    return [sys.executable, "-c", RUN, str(folder), server.endpoint, str(number), str(here), str(here.parent)]


def test_killed_at_any_moment_every_request_ends_as_one_row(tmp_path: Path) -> None:
    number, kills = 400, 0
    chance = random.Random(4)
    with OpenAIServer(delay_s=0.02) as server:
        while True:
            before = len(server.requests)
            process = warm.Python(*command(tmp_path, server, number)[1:])
            while len(server.requests) == before and process.poll() is None:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.4))
            if kills < 6 and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL
        asked = len(server.requests)
    found = rows(tmp_path)
    assert sorted((id_, sample, attempt) for id_, sample, attempt, _ in found) == sorted(
        tuple(key) for key, _ in requests(number)
    )
    assert all(answer.text.endswith(f"said {id_[1:]}/0") for id_, _, _, answer in found)
    # Of each kill: the window under way, and what was answered since the last commit.
    assert kills == 6 and asked <= number + kills * (8 + 32 + 8)


def test_a_second_run_in_the_same_folder_is_told(tmp_path: Path) -> None:
    with OpenAIServer(delay_s=0.05) as server, Journal(tmp_path / "journal.sqlite", "f"):
        done = subprocess.run(command(tmp_path, server, 5), capture_output=True, text=True)
        assert done.returncode == 3 and "BusyError: another process" in done.stdout
        assert not done.stderr
    with pytest.raises(BusyError), Journal(tmp_path / "j", "f"), Journal(tmp_path / "j", "f"):
        pass


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_disk_that_takes_no_more_stops_with_one_line_and_nothing_lost(tmp_path: Path, fault: str) -> None:
    """On a file system of 1 MiB in a mount namespace of its own, so that the test needs no rights."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with OpenAIServer() as server:
        server.answers = {f"{i}/0": {"content": random.Random(i).randbytes(3000).hex()} for i in range(500)}
        stop = "mount -o remount,ro $0" if fault == "read-only" else "true"
        number = {"full": 500, "read-only": 100}[fault]
        script = f"""
            mount -t tmpfs -o size=1m none $0 || exit 99
            if [ {fault} = read-only ]; then "${{@:1:5}}" 50 "${{@:7}}"; {stop}; fi
            "$@"; echo "rc $?"
            mount -o remount,rw,size=64m $0; "${{@:1:5}}" {number} "${{@:7}}" && cp $0/journal.sqlite* {tmp_path}
        """
        unshare = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script, str(disk)]
        done = subprocess.run(
            [*unshare, *command(disk, server, number)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        line, code = done.stdout.splitlines()
        assert line.startswith("StepError: the journal cannot be written:") and "run again" in line
        assert code == "rc 3" and done.stderr == ""
        assert {id_ for id_, *_ in rows(tmp_path)} == {f"p{i}" for i in range(number)}
        # What was on disk was not asked for again.
        assert len(server.requests) <= number + 8 + 8 + 32


def test_errors_are_asked_again_when_a_run_goes_on(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        server.faults["3/0"] = ["400"]
        run(tmp_path, server, 6)
        assert [id_ for id_, *_, row in rows(tmp_path) if row.finish_reason == "error"] == ["p3"]
        run(tmp_path, server, 6)
        assert len(server.requests) == 7
    assert {row.finish_reason for *_, row in rows(tmp_path)} == {"stop"}


def test_a_journal_of_another_configuration_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", "f") as journal:
        journal.add(Key("a", 0), "hash", response(Key("a", 0)))
    with pytest.raises(InputError, match="another configuration"):
        Journal(tmp_path / "j", "g")
    with Journal(tmp_path / "j", "f") as journal, pytest.raises(InputError, match="another request"):
        journal.has(Key("a", 0), "other hash")
    with Journal(tmp_path / "j", "f") as journal, pytest.raises(InputError, match="another request"):
        journal.get(Key("a", 0), "other hash")


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to have a header" * 9, b"\0" * 9000]
)
def test_a_file_that_is_no_journal_is_an_error_with_a_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        Journal(tmp_path / "j", "f")


def test_a_damaged_page_is_an_error_and_not_a_wrong_answer(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, "f") as journal:
        for i in range(300):
            journal.add(Key(f"p{i}", 0), "h", response(Key(f"p{i}", 0), "y" * 500))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x55" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"), Journal(path, "f") as journal:
        for i in range(300):
            journal.get(Key(f"p{i}", 0), "h")


def test_a_response_that_nobody_asked_for_stops_the_run(tmp_path: Path) -> None:
    class Confused:
        async def stream(self, requests: Any) -> Any:
            for request in requests:
                yield response(Key(request.key, 9))

    with Journal(tmp_path / "j", "f") as journal, pytest.raises(EngineError, match="unknown request key"):
        answer(context(tmp_path), Confused(), journal, requests(3), 3)  # type: ignore[arg-type]


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.builds(Key, TEXT, st.integers(0, 3), st.integers(0, 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(KEYS, TEXT, st.booleans(), st.booleans()), max_size=30))
def test_the_first_answer_to_a_key_stays_whatever_comes_and_whenever_it_is_reopened(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[Key, str, bool, bool]]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j"
    wanted: dict[Key, Response] = {}
    journal = Journal(path, "f")
    for key, text, error, reopen in events:
        given_ = response(key, text, error)
        if key not in wanted or wanted[key].finish_reason == "error":
            wanted[key] = given_
        journal.add(key, "h", given_)
        if reopen:
            journal.__exit__(None, None, None)
            journal = Journal(path, "f")
    journal.commit()
    assert {key: journal.get(key, "h") for key in wanted} == wanted
    assert {key for key in wanted if journal.has(key, "h")} == {
        key for key, found in wanted.items() if found.finish_reason != "error"
    }
    journal.__exit__(None, None, None)


def test_the_hash_of_a_request_is_of_all_that_decides_its_answer() -> None:
    base = Request("k", [{"role": "user", "content": "a"}], SAMPLING, 1)
    others = [
        Request("k", [{"role": "user", "content": "b"}], SAMPLING, 1),
        Request("k", [{"role": "system", "content": "a"}], SAMPLING, 1),
        Request("k", [*base.messages, *base.messages], SAMPLING, 1),
        Request("k", base.messages, Sampling(max_tokens=9, top_k=1), 1),
        Request("k", base.messages, SAMPLING, 2),
    ]
    assert len({request_hash(request) for request in [base, *others]}) == 6
    assert request_hash(Request("other", base.messages, SAMPLING, 1)) == request_hash(base)


def test_a_budget_stops_before_it_is_passed_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    # One request costs 3 + 7 tokens here and might cost 9 + 67 in each of two tries.
    with OpenAIServer(delay_s=0.002) as server:
        with pytest.raises(EngineError, match="budget is spent") as caught:
            run(tmp_path, server, 500, max_spent_tokens=1000, tries=2)
        asked = len(server.requests)
        # To the last request that fits even in the worst case; each costs 10 to 12 tokens.
        assert asked * 12 >= 1000 - 2 * 76 and asked * 10 <= 1000, asked
        assert "max_spent_tokens" in caught.value.remedy and len(rows(tmp_path)) == asked
        with pytest.raises(EngineError, match="budget is spent"):
            run(tmp_path, server, 500, max_spent_tokens=1000, tries=2)
        assert len(server.requests) == asked, "what is spent is remembered"
        prices = {"prompt_price": 1.0, "completion_price": 10.0}
        with pytest.raises(EngineError, match="budget is spent"):
            run(tmp_path, server, 500, max_cost=0.012, tries=2, **prices)
        cost = sum(len(body["messages"][0]["content"]) * 1.0 + 7 * 10.0 for body in server.requests) / 1e6
        assert 0.012 - 2 * 77 * 10e-6 <= cost <= 0.012
        run(tmp_path, server, 500)
        assert len(server.requests) == len(rows(tmp_path)) == 500


def test_tries_without_an_answer_count_as_the_most_they_may_have_cost(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        server.faults["0/0"] = ["half"] * 2
        run(tmp_path, server, 1)
    with Journal(tmp_path / "journal.sqlite", "f") as journal:
        assert journal.spent() == (3, 7, 2 * (3 + 64 + 9))


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [2e9]

    def jump() -> float:
        now[0] += random.Random(now[0]).choice([-1e7, 1e7])
        return now[0]

    with OpenAIServer(delay_s=0.01) as server:
        server.faults = {f"{i}/0": ["500"] for i in range(0, 30, 7)}
        monkeypatch.setattr(time, "time", jump)
        started = time.monotonic()
        run(tmp_path, server, 30, timeout_s=20)
        assert time.monotonic() - started < 15
    assert {row.finish_reason for *_, row in rows(tmp_path)} == {"stop"}
