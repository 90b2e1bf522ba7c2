"""A config.json of other weights gives a model that runs: on random numbers, or without some of its layers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tiny_model import HYBRID, save_seeing, save_tiny_model

from hubkit.engines.transformers import TransformersEngine
from hubkit.engines.weights import misfit, stored_shapes
from hubkit.errors import HubError, HubkitError, InputError
from hubkit.localhub import LocalHub, make_member
from hubkit.store import CheckContext
from hubkit.students import student

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
KINDS: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {"tie_word_embeddings": True},
    "gpt_neox": {},
    "qwen3_5_text": HYBRID,
    "qwen3_moe": EXPERTS,
}
"""Kinds of models, two of them with tied embeddings, one whose weights are put together in loading."""


def change(folder: Path, **values: Any) -> None:
    """Set keys of a config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind, options in KINDS.items():
        save_tiny_model(folder / kind, kind, **options)
    for kind in ("qwen3_5", "mistral3"):
        save_seeing(folder / "qwen3", folder / kind, kind)
    return folder


@pytest.mark.parametrize("kind", [*KINDS, "qwen3_5", "mistral3"])
def test_weights_of_their_own_configuration_fit(kind: str, good: Path) -> None:
    """Tied embeddings and buffers are not missing, and the vision tower of a text model is not left over."""
    assert misfit(good / kind, stored_shapes(good / kind)) == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"vocab_size": 300}, "other shapes than by its config.json"),
        ({"hidden_size": 96}, "other shapes than by its config.json|do not go together"),
        ({"intermediate_size": 128, "moe_intermediate_size": 32}, "other shapes than by its config.json"),
        ({"num_hidden_layers": 8, "layer_types": None}, "weights of its config.json are not in its files"),
        ({"num_hidden_layers": 1, "layer_types": None}, "of its weights have no place by its config.json"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_sizes_of_another_model_are_told(
    kind: str, values: dict[str, Any], told: str, good: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(good / kind, tmp_path / kind))
    change(folder, **values)
    assert re.search(told, found := misfit(folder, stored_shapes(folder))) and "\n" not in found, found


@pytest.mark.parametrize(
    ("kind", "values", "told"),
    [
        ("qwen3", {"tie_word_embeddings": False}, ""),
        ("llama", {"tie_word_embeddings": False}, "lm_head.weight"),
        ("llama", {"attention_bias": True}, "self_attn.k_proj.bias"),
        ("qwen3_moe", {"num_local_experts": 8}, "experts"),
        ("qwen3", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "self_attn.k_norm.weight"),
    ],
)
def test_parts_that_a_model_lacks_or_has_beside_are_told(
    kind: str, values: dict[str, Any], told: str, good: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(good / kind, tmp_path / kind))
    change(folder, **values)
    found = misfit(folder, stored_shapes(folder))
    assert told in found and bool(told) == bool(found)


def test_what_is_left_out_by_intention_fits(good: Path, tmp_path: Path) -> None:
    """Heads of other tasks, layers that predict further tokens, constants of old checkpoints."""
    folder = Path(shutil.copytree(good / "qwen3", tmp_path / "qwen3"))
    weights = load_file(folder / "model.safetensors")
    more = {
        name: torch.zeros(4)
        for name in (
            "v_head.summary.weight",
            "mtp.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.rotary_emb.inv_freq",
        )
    }
    save_file(weights | more, folder / "model.safetensors", {"format": "pt"})
    assert misfit(folder, stored_shapes(folder)) == ""
    old = save_tiny_model(tmp_path / "codegen", "codegen", rotary_dim=8, n_inner=64)
    stored = stored_shapes(old) | {"transformer.h.1.attn.causal_mask": [1, 1, 512, 512]}
    assert misfit(old, stored) == ""
    old = save_tiny_model(tmp_path / "gpt2", "gpt2", tie_word_embeddings=True)
    shapes = {name.removeprefix("transformer."): shape for name, shape in stored_shapes(old).items()}
    assert "h.1.attn.c_attn.weight" in shapes and "lm_head.weight" not in shapes, (
        "as openai-community/gpt2 has them"
    )
    assert misfit(old, shapes | {"h.1.attn.bias": [1, 1, 1024, 1024]}) == ""
    save_file(weights | {"lm_head.bias": torch.zeros(4)}, folder / "model.safetensors", {"format": "pt"})
    assert "lm_head.bias" in misfit(folder, stored_shapes(folder))


@pytest.mark.parametrize(
    "values",
    [{"num_hidden_layers": 3, "layer_types": None}, {"vocab_size": 300}],
    ids=["random layers", "a shorter table"],
)
def test_no_engine_writes_with_weights_that_are_not_there(
    values: dict[str, Any], good: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(good / "qwen3", tmp_path / "qwen3"))
    change(folder, **values)
    with pytest.raises(InputError, match=r"config\.json") as caught, TransformersEngine(folder, 4, "cpu"):
        pass
    assert caught.value.remedy and "\n" not in str(caught.value)


def in_parts(folder: Path) -> None:
    """The same weights in two files and their index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    where = {weight: names[place % 2] for place, weight in enumerate(sorted(weights))}
    for name in names:
        part = {weight: weights[weight].contiguous() for weight in weights if where[weight] == name}
        save_file(part, folder / name, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


REPOS: dict[str, tuple[Callable[[Path], None], str]] = {
    "good": (lambda folder: None, ""),
    "good-in-parts": (in_parts, ""),
    "wide": (lambda folder: change(folder, hidden_size=96), "other shapes than by its config.json"),
    "deep-in-parts": (
        lambda folder: (in_parts(folder), change(folder, num_hidden_layers=8, layer_types=None))[0],
        "weights of its config.json are not in its files",
    ),
    "pointer": (pointer, "safetensors header"),
    "pickled": (pickled, "no safetensors weights"),
}


def test_bases_on_a_hub_are_asked_for_their_headers_alone(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with LocalHub(tmp_path / "hub") as hub:
        make_member(hub.folder, "bases", "local", "write")
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        from hubkit.hub import default_access

        api = default_access().api()
        for name, (make, told) in REPOS.items():
            folder = Path(shutil.copytree(good / "qwen3", tmp_path / name))
            make(folder)
            api.create_repo(f"bases/{name}")
            commit = api.upload_folder(repo_id=f"bases/{name}", folder_path=folder).oid
            step = CheckContext(
                step="student/a",
                config={"sft": {"learning_rate": 1e-4, "max_length": 64}, "lora": None, "system": ""}
                | {"per_device_train_batch_size": 4},
                runtime={"device": "cpu", "accelerate": {}},
                models={"base": {"model": f"bases/{name}", "revision": commit}},
                problems=set(),
                inputs=set(),
                here=False,
            )
            if not told:
                student.check(step)
                continue
            with pytest.raises(HubkitError, match=told) as caught:
                student.check(step)
            assert caught.value.remedy and "\n" not in str(caught.value)
            assert isinstance(caught.value, HubError) or name in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.safetensors")), "no weights were fetched"
