"""What is evaluated is what is published, whichever engine serves it."""

from __future__ import annotations

import asyncio
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from tiny_model import save_adapter, save_seeing, save_tiny_model

from hubkit.engines import open_engine
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import GateError, InputError, RecipeError
from hubkit.evaluation.published import check_served, merged, trained_answers
from hubkit.students.memory import shape_in

CHATS = [[{"role": "user", "content": text}] for text in ("one", "two and two", "three, three, three")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"), ends=[2])


def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_a_merged_copy_answers_as_base_and_adapter_do(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter")
    copy = merged(base, adapter, tmp_path / "copy")
    expected = trained_answers(base, adapter, CHATS, tokenizer(base))
    assert expected == trained_answers(copy, None, CHATS, tokenizer(copy))
    assert expected != trained_answers(base, None, CHATS, tokenizer(base))
    with open_engine(copy, EngineRuntime(), "cpu") as engine:
        assert asyncio.run(check_served(engine, CHATS, expected, tokenizer(base))) == 1.0


def test_what_rounding_to_the_base_s_type_does_is_no_fault_of_an_adapter(tmp_path: Path) -> None:
    """Models of some depth make three hundredths of it, whatever weights are rounded."""
    import torch

    base = save_tiny_model(tmp_path / "base", ends=[2], num_hidden_layers=8, initializer_range=0.3)
    weights = {
        name: weight.to(torch.bfloat16) for name, weight in load_file(base / "model.safetensors").items()
    }
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    copy = merged(base, save_adapter(base, tmp_path / "adapter"), tmp_path / "copy")
    assert {weight.dtype for weight in load_file(copy / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((copy / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_check_gives_a_gpu_back_before_the_engine_starts(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM ends where less than gpu_memory_utilization is free. Here the model is on a CPU, and looked for there."""
    import torch
    from peft import PeftModel

    models: list[weakref.ref[Any]] = []
    left: list[bool] = []
    load = PeftModel.from_pretrained

    def loaded(*given: Any, **options: Any) -> Any:
        model = load(*given, **options)
        models.append(weakref.ref(model))
        return model

    monkeypatch.setattr(PeftModel, "from_pretrained", loaded)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: left.extend(ref() is not None for ref in models))
    adapter = save_adapter(base, tmp_path / "adapter")
    models.clear()
    trained_answers(base, adapter, CHATS, tokenizer(base), device="cpu")
    assert left == [False], "the cache is emptied once, when the model has gone"


def test_a_base_whose_generation_config_does_not_validate_is_merged(base: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(base, tmp_path / "base"))
    (other / "generation_config.json").write_text('{"eos_token_id": 2, "temperature": 0.6, "top_p": 0.95}')
    copy = merged(other, save_adapter(other, tmp_path / "adapter"), tmp_path / "copy")
    assert json.loads((copy / "generation_config.json").read_text())["do_sample"]


def test_an_adapter_on_a_model_that_sees_is_merged_and_served(base: Path, tmp_path: Path) -> None:
    """Qwen3.5 is published as a class with a vision tower; students are of its text part, three layers of four
    gated delta nets."""
    from safetensors import safe_open

    seeing = save_seeing(base, tmp_path / "seeing", "qwen3_5")
    adapter = save_adapter(seeing, tmp_path / "adapter")
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        layers = {name.split(".")[-3] for name in file.keys()}  # noqa: SIM118
    assert {"in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj", "q_proj", "down_proj"} <= layers
    copy = merged(seeing, adapter, tmp_path / "copy")
    expected = trained_answers(seeing, adapter, CHATS, tokenizer(base))
    assert expected == trained_answers(copy, None, CHATS, tokenizer(copy))
    assert expected != trained_answers(seeing, None, CHATS, tokenizer(base))
    for weights, on in ((seeing, adapter), (copy, None)):
        with open_engine(weights, EngineRuntime(), "cpu", adapter=on) as engine:
            assert asyncio.run(check_served(engine, CHATS, expected, tokenizer(base))) == 1.0


def test_an_engine_that_serves_the_base_is_found_out(base: Path, tmp_path: Path) -> None:
    """As servers did that activated no module of an adapter, and said nothing."""
    expected = trained_answers(base, save_adapter(base, tmp_path / "adapter"), CHATS, tokenizer(base))
    with (
        open_engine(base, EngineRuntime(), "cpu") as engine,
        pytest.raises(GateError, match="does not serve the trained model"),
    ):
        asyncio.run(check_served(engine, CHATS, expected, tokenizer(base)))


def test_a_saved_module_of_its_own_is_merged_where_weights_are_not_tied(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "adapter", modules_to_save=["lm_head"])
    copy = merged(base, adapter, tmp_path / "copy")
    assert trained_answers(base, adapter, CHATS, tokenizer(base)) == trained_answers(
        copy, None, CHATS, tokenizer(copy)
    )


def renamed(folder: Path) -> None:
    """As from a program that has the text model under another name."""
    path = folder / "adapter_model.safetensors"
    weights = {name.replace(".layers.", ".text.layers."): weight for name, weight in load_file(path).items()}
    save_file(weights, path)


def without_a_layer(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: weight for name, weight in load_file(path).items() if ".layers.1." not in name}, path)


@pytest.mark.parametrize(
    ("sizes", "change", "told"),
    [
        ({}, renamed, "Found missing adapter keys"),
        ({}, without_a_layer, "Found missing adapter keys"),
        ({"num_hidden_layers": 3}, None, "parts have no place"),
        ({"hidden_size": 96}, None, "size mismatch|Error"),
    ],
)
def test_an_adapter_that_does_not_fit_its_base_is_told(
    sizes: dict[str, Any], change: Callable[[Path], None] | None, told: str, base: Path, tmp_path: Path
) -> None:
    """PEFT warns of some of it, and goes on with the base, or with a part of the adapter."""
    other = save_tiny_model(tmp_path / "other", **sizes)
    adapter = save_adapter(other, tmp_path / "adapter")
    if change is not None:
        change(adapter)
    with pytest.raises(InputError, match=told) as caught:
        merged(base, adapter, tmp_path / "copy")
    assert caught.value.remedy and "\n" not in str(caught.value)
    with pytest.raises(InputError), open_engine(base, EngineRuntime(), "cpu", adapter=adapter):
        pass


HEAD, TABLE = "lm_head", "embed_tokens"
ON_TIED: dict[str, tuple[dict[str, Any], bool]] = {
    "layers alone": ({}, True),
    "a norm saved": ({"modules_to_save": ["norm"]}, True),
    "the head saved": ({"modules_to_save": [HEAD]}, True),
    "both saved": ({"modules_to_save": [HEAD, TABLE]}, True),
    "one saved for both": ({"modules_to_save": [TABLE], "ensure_weight_tying": True}, True),
    "a few tokens": ({"trainable_token_indices": [3, 4]}, True),
    "a few tokens of the head": ({"trainable_token_indices": {HEAD: [3, 4]}}, False),
    "LoRA on the head": ({"target_modules": ["q_proj", HEAD]}, False),
    "LoRA by a pattern": ({"target_modules": f".*(q_proj|{HEAD})"}, False),
    "LoRA on the table": ({"target_modules": ["q_proj", TABLE]}, False),
    "LoRA on both, tied": ({"target_modules": ["q_proj", TABLE, HEAD], "ensure_weight_tying": True}, False),
    "LoRA on a parameter": ({"target_parameters": [f"{HEAD}.weight"]}, False),
    "LoRA on the head, the table saved": (
        {"target_modules": ["q_proj", HEAD], "modules_to_save": [TABLE]},
        True,
    ),
}


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tied"), ends=[2], tie_word_embeddings=True)


@pytest.mark.parametrize("kind", ON_TIED)
@pytest.mark.filterwarnings("ignore:Model (has|with) `tie_word_embeddings=True`")
def test_an_adapter_that_cannot_be_merged_is_refused_before_training_and_no_other(
    kind: str, tied: Path, base: Path, tmp_path: Path
) -> None:
    """One set of weights cannot hold LoRA on an output layer and the embedding that shares its weight."""
    options, fits = ON_TIED[kind]
    given = json.dumps({"target_modules": "all-linear", "r": 4} | options)
    adapter = save_adapter(tied, tmp_path / "adapter", **options)
    if not fits:
        with pytest.raises(RecipeError, match="hold one weight in this base") as caught:
            shape_in(tied, given)
        assert caught.value.remedy and "\n" not in str(caught.value)
        assert "ensure_weight_tying" in options or shape_in(base, given), (
            "on a base that is not tied it may be"
        )
        with pytest.raises(GateError, match="other logits"):
            merged(tied, adapter, tmp_path / "copy")
        return
    assert shape_in(tied, given)
    expected = trained_answers(tied, adapter, CHATS, tokenizer(tied))
    copy = merged(tied, adapter, tmp_path / "copy")
    assert expected == trained_answers(copy, None, CHATS, tokenizer(copy))
    with open_engine(tied, EngineRuntime(), "cpu", adapter=adapter) as engine:
        assert asyncio.run(check_served(engine, CHATS, expected, tokenizer(tied))) == 1.0
