"""The JSON Schema of recipes, as editors use it: by a line at the top of each recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support import ROOT, hubkit

from hubkit.recipe.file import json_schema

RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
MARK = "# yaml-language-server: $schema="


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    written = json.loads((ROOT / "docs" / "recipe.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(written)
    return dict(written)


def test_the_command_prints_it() -> None:
    done = hubkit("recipe", "schema")
    assert done.returncode == 0 and json.loads(done.stdout) == json.loads(json_schema())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.parent.name)
def test_shipped_recipes_name_it_and_are_valid(path: Path, schema: dict[str, Any]) -> None:
    text = path.read_text(encoding="utf-8")
    (mark,) = (line for line in text.splitlines()[:2] if line.startswith(MARK))
    assert (path.parent / mark.removeprefix(MARK)).samefile(ROOT / "docs" / "recipe.schema.json")
    jsonschema.validate(yaml.safe_load(text), schema)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (["teachers", 0, "sampels"], 3),
        (["teachers", 0, "sampling", "max_tokens"], 0),
        (["problems", "train", "source"], "ftp"),
        (["run", "executor"], "cron"),
    ],
)
def test_what_is_wrong_is_marked_where_it_stands(
    schema: dict[str, Any], at: list[Any], value: object
) -> None:
    recipe = yaml.safe_load((ROOT / "recipes/nano/recipe.yaml").read_text(encoding="utf-8"))
    inner = recipe
    for key in at[:-1]:
        inner = inner[key] if isinstance(inner, list) else inner.setdefault(key, {})
    inner[at[-1]] = value
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(recipe))
    assert errors and all(list(error.absolute_path) == at[: len(error.absolute_path)] for error in errors)


def test_keys_are_explained(schema: dict[str, Any]) -> None:
    sampling = schema["$defs"]["Sampling"]["properties"]
    assert "generated tokens" in sampling["max_tokens"]["description"]
