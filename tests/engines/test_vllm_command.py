"""How a recipe's vLLM arguments reach its server; test_vllm.py starts real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hubkit.engines import choose
from hubkit.engines.settings import EngineRuntime
from hubkit.engines.vllm import _command, _devices, _replicas
from hubkit.errors import EngineError


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
