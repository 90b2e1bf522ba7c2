"""Bases that cannot be trained are told in one line, with the remedy, before anything of a run is made."""

from __future__ import annotations

import builtins
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import NANO
from tiny_model import save_tiny_model

from hubkit.errors import HubkitError
from hubkit.recipe.file import load_recipe
from hubkit.recipe.plan import make_plan
from hubkit.recipe.preflight import check
from hubkit.store import Store

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4096\n"
PARTS = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}


def set_in(name: str, **values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def put(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def torn(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def in_parts(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(PARTS))


def one_token_more(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["one more"])
    tokenizer.save_pretrained(folder)


CODE = {"auto_map": {"AutoConfig": "other/repo--code.Config"}, "model_type": "of-its-own"}
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickles": (pickled, "has no safetensors weights"),
    "a pointer of git-lfs": (put("model.safetensors", POINTER), r"67 bytes, is not a whole safetensors file"),
    "nothing": (put("model.safetensors", ""), "0 bytes, is not a whole safetensors file"),
    "torn weights": (torn, "is not a whole safetensors file"),
    "a part that is missing": (
        in_parts,
        "model-00002-of-00002.safetensors of its index is missing",
    ),
    "a longer tokenizer": (one_token_more, "gives ids that the model has no embedding for"),
    "a configuration of another kind": (set_in("config.json", model_type="of-its-own"), "`of-its-own`"),
    "a table of other weights": (
        set_in("config.json", vocab_size=300),
        "other shapes than by its config.json",
    ),
    "widths of other weights": (
        set_in("config.json", hidden_size=96),
        "other shapes than by its config.json",
    ),
    "more layers than weights": (
        set_in("config.json", num_hidden_layers=3, layer_types=None),
        "11 weights of its config.json are not in its files",
    ),
    "fewer layers than weights": (
        set_in("config.json", num_hidden_layers=1, layer_types=None),
        "11 of its weights have no place by its config.json",
    ),
    "layers that do not add up": (set_in("config.json", num_hidden_layers=3), "`layer_types` "),
    "sizes of no model": (set_in("config.json", num_key_value_heads=0), "cannot be read"),
    "weights by another name": (
        lambda folder: (folder / "model.safetensors").rename(folder / "weights.safetensors"),
        "neither model.safetensors nor model.safetensors.index.json",
    ),
    "code of its own": (set_in("config.json", **CODE), "code"),
    "quantised weights": (
        set_in("config.json", quantization_config={"quant_method": "fp8"}),
        r"quantised \(fp8\), and full fine-tuning",
    ),
    "no JSON": (put("generation_config.json", "{"), "configuration or tokenizer cannot be read"),
    "no object": (put("generation_config.json", "[]"), "configuration or tokenizer cannot be read"),
    "an end token that is no id": (
        put("generation_config.json", '{"eos_token_id": "</s>"}'),
        "an end token that is no id: '</s>'",
    ),
    "a tokenizer's pointer": (put("tokenizer.json", POINTER), "configuration or tokenizer cannot be read"),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano's, beside a base that can be trained."""
    folder = tmp_path_factory.mktemp("recipe")
    shutil.copytree(NANO.parent, folder, dirs_exist_ok=True)
    save_tiny_model(folder / "good")
    return folder / "recipe.yaml"


def checked(recipe: Path, base: str, out: Path) -> None:
    plan = make_plan(load_recipe(recipe, [f"students.bases=[{{name: b, model: ./{base}}}]"]), recipe, out)
    check(plan, Store(out))


@pytest.mark.parametrize("kind", BAD)
def test_a_base_that_cannot_be_trained_is_one_line(
    kind: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(prompt: str = "") -> str:
        raise AssertionError(f"asked on the terminal: {prompt}")

    monkeypatch.setattr(builtins, "input", nobody)
    change, told = BAD[kind]
    name = kind.replace(" ", "-")
    folder = shutil.copytree(recipe.parent / "good", recipe.parent / name)
    change(folder)
    with pytest.raises(HubkitError, match=told) as caught:
        checked(recipe, name, tmp_path)
    assert caught.value.remedy and "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("record.json"))


def test_a_base_with_what_is_not_read_passes(recipe: Path, tmp_path: Path) -> None:
    """Beside whole weights an index of parts, and the pointer to the same weights in another form."""
    folder = Path(shutil.copytree(recipe.parent / "good", recipe.parent / "more"))
    (folder / "model.safetensors.index.json").write_text(json.dumps(PARTS))
    (folder / "consolidated.safetensors").write_text(POINTER)
    checked(recipe, "more", tmp_path)
    checked(recipe, "good", tmp_path)


@pytest.mark.parametrize("name", ["teacher", "compressor"])
def test_models_that_write_are_asked_for_their_weights_too(name: str, recipe: Path, tmp_path: Path) -> None:
    folder = recipe.parent / "models" / name
    config = (folder / "config.json").read_text()
    set_in("config.json", intermediate_size=100)(folder)
    try:
        with pytest.raises(HubkitError, match="other shapes than by its config") as caught:
            checked(recipe, "good", tmp_path)
    finally:
        (folder / "config.json").write_text(config)
    assert f"nano-{name}" in caught.value.message and "\n" not in str(caught.value)
