"""How a recipe's vLLM arguments reach its server; test_vllm.py starts real ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hubkit.engines import check, choose, open_engine, vllm
from hubkit.engines.check import check_engine
from hubkit.engines.settings import EngineRuntime
from hubkit.engines.vllm import _command, _devices, _replicas
from hubkit.errors import EngineError, RecipeError


def test_arguments_go_on_by_their_own_names() -> None:
    arguments = {
        "tensor_parallel_size": 2,
        "quantization": "fp8",
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "hf_overrides": {"rope_theta": 1e6},
        "middleware": ["a", "b"],
        "revision": None,
        "generation_config": "auto",
    }
    command = _command(Path("/m"), 7, arguments, in_process=False)
    assert command[1:5] == ["-m", "vllm.entrypoints.openai.api_server", "--model", "/m"]
    text = " ".join(command)
    for part in (
        "--host 127.0.0.1 --port 7",
        "--tensor-parallel-size 2",
        "--quantization fp8",
        "--enforce-eager",
        "--no-enable-prefix-caching",
        '--hf-overrides {"rope_theta": 1000000.0}',
        "--middleware a b",
        "--generation-config auto",
    ):
        assert part in text
    assert "revision" not in text and text.count("generation-config") == 1


def test_in_process_only_the_engines_arguments_are_set() -> None:
    command = _command(Path("/m"), 7, {"dtype": "float32"}, in_process=True)
    assert command[1:5] == ["-m", "hubkit.engines.vllm_direct", "--model", "/m"]
    assert "--dtype float32" in " ".join(command) and "uvicorn" not in " ".join(command)
    with pytest.raises(ValidationError, match="needs in_process: false"):
        EngineRuntime(engine="vllm", vllm={"reasoning_parser": "deepseek_r1"})


def test_what_hubkit_sets_itself_and_what_is_no_name_is_refused() -> None:
    for name in ("api_key", "port", "--dtype", "tensor-parallel-size", ""):
        with pytest.raises(ValidationError):
            EngineRuntime(engine="vllm", vllm={name: 1})


def test_replicas_share_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5,6")
    arguments: dict[str, Any] = {"data_parallel_size": 2, "tensor_parallel_size": 2}
    assert _replicas(arguments) == (2, {"tensor_parallel_size": 2})
    assert _devices(2, arguments) == ["3,4", "5,6"] and _devices(1, arguments) == [None]
    with pytest.raises(EngineError, match="3 replicas of 2 GPUs each, and there are 4"):
        _devices(3, arguments)
    experts = arguments | {"enable_expert_parallel": True}
    assert _replicas(experts) == (1, experts), "ranks in step are vLLM's own"


LOG = """INFO 11-27 10:00:00 [config.py:1] Downcasting torch.float32 to torch.bfloat16.
(EngineCore pid=7) INFO 11-27 10:00:01 [core.py:1] Initializing a V1 LLM engine (v0.14.1) with config: model='/m', \
tokenizer='/m', trust_remote_code=False, dtype=torch.{}, max_seq_len=512, quantization=None
"""
"""The lines of vLLM's log with a type."""


@pytest.mark.parametrize(
    ("asked", "own", "wanted"),
    [
        ("float32", {}, "float32"),
        ("auto", {}, "auto"),
        ("float32", {"dtype": "bfloat16"}, "bfloat16"),
    ],
)
def test_the_precision_of_the_run_is_vllms_dtype_and_what_ran_is_known(
    asked: str, own: dict[str, str], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM took its own, whatever run.precision was: bfloat16 for a model stored in float32."""
    ran = "bfloat16" if wanted == "auto" else wanted
    code = "import http.server, sys; print(sys.argv[3]); sys.stdout.flush(); http.server.HTTPServer(('127.0.0.1', "
    code += "int(sys.argv[1])), type('H', (http.server.SimpleHTTPRequestHandler,), {})).serve_forever()"
    seen: list[str] = []

    def command(model: Path, port: int, arguments: dict[str, Any], in_process: bool) -> list[str]:
        made = _command(model, port, arguments, in_process)
        seen.append(made[made.index("--dtype") + 1])
        return [sys.executable, "-c", code, str(port), "", LOG.format(ran)]

    monkeypatch.chdir(tmp_path)
    (tmp_path / "health").touch()  # what the stand-in answers with
    monkeypatch.setattr(vllm, "_command", command)
    monkeypatch.setattr(vllm, "check_installed", lambda: None)
    runtime = EngineRuntime(engine="vllm", vllm=own)
    with open_engine(Path("/m"), runtime, precision=asked) as engine:
        assert seen == [wanted] and engine.precision == ran


@pytest.mark.parametrize(
    ("installed", "gpu", "device", "adapter", "wanted"),
    [
        (True, True, "auto", False, "vllm"),
        (True, True, "cuda", False, "vllm"),
        (True, True, "cpu", False, "transformers"),
        (True, True, "auto", True, "transformers"),
        (True, False, "auto", False, "transformers"),
        (False, True, "auto", False, "transformers"),
    ],
)
def test_auto_is_vllm_where_it_can_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: bool,
    gpu: bool,
    device: str,
    adapter: bool,
    wanted: str,
) -> None:
    if installed:  # as far as anybody looks
        (tmp_path / "vllm").mkdir()
        (tmp_path / "vllm" / "__init__.py").touch()
        monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert choose(EngineRuntime(), device, adapter).engine == wanted
    for engine in ("transformers", "vllm", "openai"):
        assert choose(EngineRuntime(engine=engine), device, adapter).engine == engine


INSTALLED = {
    "engine/arg_utils.py": """
class EngineArgs:
    tensor_parallel_size: int = 1
    max_model_len: int | None = None

    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--tensor-parallel-size", "-tp")
        parser.add_argument("--async-scheduling", help="as --max-model-len is, a setting")
""",
    "entrypoints/openai/cli_args.py": """
class BaseFrontendArgs:
    chat_template: str | None = None

def make_arg_parser(parser):
    parser.add_argument("--api-server-count")
""",
}
"""Where vLLM has its arguments, as far as anybody looks."""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, text in INSTALLED.items():
        (tmp_path / "vllm" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "vllm" / name).write_text(text)
    (tmp_path / "vllm" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    check._arguments.cache_clear()
    yield
    check._arguments.cache_clear()


@pytest.mark.parametrize("engine", ["vllm", "auto"])
def test_an_argument_that_vllm_does_not_have_is_refused_before_the_run(installed: None, engine: str) -> None:
    """It was refused by the server: after training, where students are evaluated."""

    def checked(in_process: bool = True, **vllm: Any) -> None:
        runtime = EngineRuntime.model_validate({"engine": engine, "vllm": vllm, "in_process": in_process})
        check_engine(runtime.model_dump(mode="json"), "evaluation/s/t")

    checked(tensor_parallel_size=2, max_model_len=9, async_scheduling=True)
    checked(False, api_server_count=2, chat_template="x")
    with pytest.raises(
        RecipeError, match=r"evaluation/s/t: the vLLM .* no argument 'tensor_paralel_size'"
    ) as told:
        checked(tensor_paralel_size=2)
    assert told.value.remedy == "did you mean tensor_parallel_size?"
    with pytest.raises(RecipeError, match="chat_template is an argument of vLLM's API server") as told:
        checked(chat_template="x")
    assert told.value.remedy == "set in_process: false"
