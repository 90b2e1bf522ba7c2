"""The embedded engine in several processes: the same answers, and no process left behind."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import warm
from support import ROOT, slow
from tiny_model import save_tiny_model

from hubkit.engines import Request, Response
from hubkit.engines.helpers import Helpers
from hubkit.engines.transformers import TransformersEngine
from hubkit.errors import EngineError
from hubkit.section import Sampling

PATIENCE_S = 120


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("qwen3"))


def ask(number: int) -> Request:
    sampling = Sampling(max_tokens=10 + number % 60, temperature=number % 3 * 0.4, top_k=number % 2 * 20)
    content = f"{number}: é\n " + "ab " * (number * 7 % 23 if number % 50 != 7 else 400)
    return Request(str(number), [{"role": "user", "content": content}], sampling, number)


def answers(engine: TransformersEngine, requests: Iterable[Request]) -> list[Response]:
    async def collect() -> list[Response]:
        return [response async for response in engine.stream(requests)]

    return sorted(asyncio.run(collect()), key=lambda response: int(response.key))


def same(found: list[Response], wanted: list[Response]) -> bool:
    """But for when they came; a few sampled answers may go apart where rounding decides between two tokens."""
    ours, theirs = ([replace(response, latency_s=0) for response in each] for each in (found, wanted))
    assert [response.key for response in ours] == [response.key for response in theirs]
    differ = [int(one.key) for one, other in zip(ours, theirs, strict=True) if one != other]
    return all(key % 3 for key in differ) and len(differ) <= len(wanted) // 20


def processes() -> list[psutil.Process]:
    """Helpers of this process."""
    children = psutil.Process().children()
    return [child for child in children if "hubkit.engines.helper" in child.cmdline()]


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[TransformersEngine]:
    """Of three processes. Two that a test has started serve the next one too: each takes seconds to start."""
    with TransformersEngine(model, 16, "cpu", threads=3) as engine:
        yield engine
    assert not processes()


def test_several_processes_give_the_answers_of_one(
    engine: TransformersEngine, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helped: Counter[int] = Counter()
    exchange = Helpers.exchange

    def counted(self: Helpers, requests: Iterator[Request], room: int) -> list[Response]:
        found = exchange(self, requests, room)
        helped.update(helper.process.pid for helper in self._helpers if helper.outstanding)
        return found

    monkeypatch.setattr(Helpers, "exchange", counted)
    requests = [ask(i) for i in range(150)]
    with TransformersEngine(model, 16, "cpu") as alone:
        wanted = answers(alone, requests)
        assert not processes()
    assert {response.finish_reason for response in wanted} == {"stop", "length", "error"}
    assert same(answers(engine, requests[:60]), wanted[:60])
    assert not processes(), "so few are not worth a process"
    end = time.monotonic() + PATIENCE_S
    while len(helped) < 2 and time.monotonic() < end:
        assert same(answers(engine, requests), wanted)
        assert len(processes()) == 2
        time.sleep(1)  # while they load the model
    assert len(helped) == 2, "the helpers were given nothing"


def test_a_helper_that_dies_stops_the_stream_and_says_so(engine: TransformersEngine) -> None:
    async def go_on() -> None:
        async for _ in engine.stream(forever()):
            await asyncio.sleep(0.05)
            for helper in engine._helpers._helpers:
                if helper.outstanding:
                    helper.process.kill()

    with pytest.raises(EngineError, match=r"ended with exit status -9.*lower batch_size or run\.threads"):
        asyncio.run(go_on())
    assert not processes()


def forever() -> Iterator[Request]:
    return (ask(i) for i in itertools.count(100) if i % 50 != 7)


def test_a_stream_that_is_left_early_leaves_no_work_behind(model: Path) -> None:
    async def leave() -> None:
        stream = engine.stream(forever())
        async for _ in stream:
            if all(helper.outstanding for helper in engine._helpers._helpers):
                break
            await asyncio.sleep(0.05)
        await stream.aclose()
        assert not processes()

    with TransformersEngine(model, 16, "cpu", threads=2) as engine:
        asyncio.run(leave())
        assert len(answers(engine, [ask(i) for i in range(200)])) == 200
    assert not processes()


OWNER = """
import asyncio, itertools, os, sys
from pathlib import Path
from hubkit.section import Sampling
from hubkit.engines import Request
from hubkit.engines.transformers import TransformersEngine

async def main():
    message = [{"role": "user", "content": "a"}]
    requests = (Request(str(i), message, Sampling(max_tokens=9), i) for i in itertools.count())
    with TransformersEngine(Path(sys.argv[1]), 16, "cpu", threads=3) as engine:
        async for _ in engine.stream(requests):
            helpers = engine._helpers._helpers
            if all(helper.outstanding for helper in helpers):
                print(*(helper.process.pid for helper in helpers), flush=True)
            await asyncio.sleep(0.05)

os.setsid()  # a group of its own, for Ctrl-C
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, slow(signal.SIGINT)])
def test_no_helper_outlives_its_owner(number: signal.Signals, model: Path) -> None:
    owner = warm.Python("-c", OWNER, str(model), cwd=ROOT)
    try:
        end = time.monotonic() + PATIENCE_S
        while not (line := owner.output()).endswith("\n"):
            assert owner.poll() is None and time.monotonic() < end, "no helper was given anything"
            time.sleep(0.05)
        helpers = [psutil.Process(int(pid)) for pid in line.splitlines()[0].split()]
        assert len(helpers) == 2
        os.killpg(owner.pid, number) if number == signal.SIGINT else owner.send_signal(number)
        _, alive = psutil.wait_procs(helpers, timeout=30)
        assert not alive
        assert "<frozen runpy>" not in owner.communicate(30)[1], "the owner alone tells of Ctrl-C"
    finally:
        if owner.poll() is None:
            owner.send_signal(signal.SIGKILL)


def test_a_helper_ends_when_its_owner_dies_in_the_middle_of_a_line(model: Path) -> None:
    settings = {"model": str(model), "adapter": "", "batch_size": 16, "threads": 1}
    settings |= {"marks": [], "precision": "float32"}
    theirs, lifeline = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "hubkit.engines.helper", str(theirs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[theirs],
        text=True,
        cwd=ROOT,
    ) as helper:
        os.close(theirs)
        assert helper.stdin and helper.stdout
        print(json.dumps(settings), file=helper.stdin, flush=True)
        assert helper.stdout.readline() == '"ready"\n'
        helper.stdin.write('[{"key": "7", "mess')
        helper.stdin.close()
        os.close(lifeline)
        try:
            assert helper.wait(30) in (1, -signal.SIGIO)
        finally:
            helper.kill()


def test_memory_bounds_processes_and_torch_has_the_other_cores(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    for available, threads in ((1 << 40, 1), (5 << 29, 2), (1 << 20, 4)):
        memory = SimpleNamespace(available=available)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        with TransformersEngine(model, 16, "cpu", threads=4) as engine:
            assert engine._processes == 4 // threads and torch.get_num_threads() == threads
    torch.set_num_threads(1)
