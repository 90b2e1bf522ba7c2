"""Where matrices are multiplied in bfloat16, and that no weight is rounded for it."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from students_support import LORA, SFT, context, uneven
from support import MODELS
from tiny_model import save_tiny_model

from hubkit import precision
from hubkit.engines import Request, Response, open_engine
from hubkit.engines.settings import EngineRuntime
from hubkit.precision import choose_precision, parameter_count, stored_dtype
from hubkit.section import Sampling
from hubkit.store import StepContext
from hubkit.students import student


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with AMX, for which the tiny models of the tests are large enough."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(precision, "BFLOAT16_PARAMETERS", 10_000)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that is stored in bfloat16, as models of today are."""
    folder = Path(shutil.copytree(MODELS / "teacher", tmp_path_factory.mktemp("stored") / "teacher"))
    weights = {name: w.to(torch.bfloat16) for name, w in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return folder


@pytest.mark.parametrize(
    ("has_amx", "parameters", "asked", "expected"),
    [
        (True, 135_000_000, "auto", "bfloat16"),
        (True, 740_000, "auto", "float32"),  # the largest model of recipes/nano, whose results are published
        (False, 135_000_000, "auto", "float32"),
        (True, 135_000_000, "float32", "float32"),
        (False, 740_000, "bfloat16", "bfloat16"),
    ],
)
def test_a_cpu_takes_bfloat16_where_it_is_faster(
    has_amx: bool, parameters: int, asked: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    assert choose_precision(asked, "cpu", parameters) == expected


def test_a_gpu_that_emulates_bfloat16_does_not_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch answers for a T4, and for an H100."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert choose_precision("auto", "cuda", 1) == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert choose_precision("auto", "cuda:1", 1) == "bfloat16"


def test_models_are_measured_by_their_files(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert parameter_count(MODELS / "student-s") == 279_360 < precision.BFLOAT16_PARAMETERS
    assert stored_dtype(MODELS / "student-s") == "F16"
    assert stored_dtype(save_tiny_model(tmp_path / "one")) == "F32"
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="30KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert parameter_count(tmp_path / "many") == model.num_parameters()


def trained(folder: Path, asked: str, **config: Any) -> tuple[StepContext, dict[str, torch.Tensor]]:
    step = context(folder, uneven(), sft=SFT | {"learning_rate": 1e-4}, **config)
    step.runtime["precision"] = asked
    student.run(step)
    name = "adapter_model.safetensors" if "lora" in config else "model.safetensors"
    return step, load_file(step.out / "model" / name)


def losses(step: StepContext) -> tuple[float, float]:
    """Of the first and of the last step."""
    found = [
        entry["loss"] for entry in json.loads((step.out / "training.json").read_text()) if "loss" in entry
    ]
    return found[0], found[-1]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_student_on_a_cpu_with_amx_differs_by_rounding_alone(
    method: str, amx: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"lora": LORA} if method == "lora" else {}
    narrow, weights = trained(tmp_path / "auto", "auto", **config)
    exact, same = trained(tmp_path / "float32", "float32", **config)
    assert (narrow.metrics["precision"], exact.metrics["precision"]) == ("bfloat16", "float32")
    (first, last), (first_exact, last_exact) = map(losses, (narrow, exact))
    assert first != first_exact
    assert first == pytest.approx(first_exact, rel=5e-3), "before any step: products' rounding alone"
    assert last == pytest.approx(last_exact, rel=5e-2)
    assert narrow.metrics["steps"] == exact.metrics["steps"]
    # bfloat16 weights that were updated in place would hardly have moved.
    assert narrow.metrics["weights_moved"] > 0.9
    assert {name: w.dtype for name, w in weights.items()} == {name: w.dtype for name, w in same.items()}


def test_what_the_recipe_says_of_a_student_is_stronger(amx: None, tmp_path: Path) -> None:
    step = context(tmp_path, uneven(), sft=SFT | {"bf16": False})
    step.runtime["precision"] = "bfloat16"
    student.run(step)
    assert step.metrics["precision"] == "float32"


REQUESTS = [
    Request(str(i), [{"role": "user", "content": f"What is {i} + {i * 7 % 5}?"}], Sampling(max_tokens=24), i)
    for i in range(6)
]


def answers(model: Path, asked: str = "auto", **options: Any) -> tuple[str, dict[str, str]]:
    async def collect() -> list[Response]:
        return [response async for response in engine.stream(REQUESTS)]

    with open_engine(model, EngineRuntime(batch_size=3), "cpu", 1, precision=asked, **options) as engine:
        found = asyncio.run(collect())
        return engine.precision, {response.key: response.text for response in found}


def test_the_embedded_engine_serves_weights_as_they_are_stored(
    stored: Path, amx: None, tmp_path: Path
) -> None:
    name, found = answers(stored)
    exact, expected = answers(stored, "float32")
    assert (name, exact) == ("bfloat16", "float32")
    same = [found[key][:8] == expected[key][:8] for key in expected]
    assert sum(same) >= 5, "the same model, whose answers part at near ties at most"
    name, found = answers(save_tiny_model(tmp_path))
    assert name == "float32", "bfloat16 would round weights that are stored in float32"
    assert found == answers(tmp_path, "float32")[1]


def test_a_model_that_is_too_small_stays_in_float32(stored: Path) -> None:
    assert answers(stored)[0] == "float32"


def test_an_adapter_is_merged_before_weights_are_rounded(stored: Path, amx: None, tmp_path: Path) -> None:
    from hubkit.engines.transformers import TransformersEngine

    step, _ = trained(tmp_path, "float32", model=stored, lora=LORA)
    adapter = step.out / "model"
    with TransformersEngine(stored, 2, "cpu", adapter=adapter) as engine:
        served = dict(engine._model.state_dict())
        frequencies = engine._model.model.rotary_emb.inv_freq
        assert engine.precision == "bfloat16" and frequencies.dtype == torch.float32
    with TransformersEngine(stored, 2, "cpu", adapter=adapter, precision="float32") as engine:
        for name, weight in engine._model.state_dict().items():
            assert torch.equal(served[name], weight.to(torch.bfloat16)), name
