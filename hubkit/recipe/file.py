"""Reads a recipe file: applies overrides, inserts prompts, and raises errors that name file, line and key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hubkit.errors import RecipeError
from hubkit.recipe.config import Recipe
from hubkit.recipe.explain import explain, line_of
from hubkit.recipe.repos import check_repos
from hubkit.section import AtKey

__all__ = ["json_schema", "load_recipe"]


def json_schema() -> str:
    """Returns the JSON Schema of recipe files, with which editors complete and check keys."""
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(about | Recipe.model_json_schema(), indent=2, ensure_ascii=False)


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply `a.b=c` overrides (lists by index: students.bases.0.name=x).

    Raises RecipeError, which names file, line, key and remedy.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        remedy = "give the path of a recipe.yaml; `hubkit recipe list` shows those here"
        raise RecipeError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}", remedy
        ) from error
    raw, tree = _parse(path, text)
    models = _models(raw)
    for override in overrides or []:
        _override(raw, override)
    _forget_engines(raw, models)
    _inline_files(raw, path, tree)
    try:
        recipe = Recipe.model_validate(raw)
        check_repos(recipe)
        return recipe
    except AtKey as error:
        where = f"{path}:{line_of(tree, error.keys)}: {'.'.join(error.keys)}"
        raise RecipeError(f"{where}: {error}", "choose another name") from error
    except ValidationError as error:
        raise RecipeError(explain(error, raw, path, tree), "see docs/recipes.md for the keys") from error
    except RecursionError as error:
        raise RecipeError(f"{path}: it is nested too deeply, or holds itself", "write it flat") from error


def _models(raw: dict[str, Any]) -> set[str]:
    """Returns the names of teachers, compressors and the judge."""
    groups = [raw.get("teachers"), raw.get("traces"), raw.get("compressors"), [raw.get("judge")]]
    models = [model for group in groups if isinstance(group, list) for model in group]
    return {str(model.get("name")) for model in models if isinstance(model, dict)}


def _forget_engines(raw: dict[str, Any], models: set[str]) -> None:
    """Drop the engines of models that overrides took away: `--set compressors=[]` need not name its engine, too."""
    run = raw.get("run")
    engines = run.get("engines") if isinstance(run, dict) else None
    if isinstance(engines, dict):
        for name in models - _models(raw):
            engines.pop(name, None)


def _parse(path: Path, text: str) -> tuple[dict[str, Any], yaml.Node | None]:
    """The values, and the nodes that know their lines."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if twice := _repeated(tree):
            name, at = twice
            raise RecipeError(f"{path}:{at}: key {name!r} appears twice", "keep one of them")
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        raise RecipeError(f"{path}{line}: not YAML: {_said(error)}", "fix the syntax") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: not a recipe", "a recipe is a mapping that starts with `name:`")
    return raw, tree


def _said(error: Exception) -> str:
    """PyYAML's reason in one line. It raises ValueError for dates that do not exist, and RecursionError."""
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return str(reason).splitlines()[0] if str(reason) else type(error).__name__


def _repeated(tree: yaml.Node | None) -> tuple[str, int] | None:
    """The first key that a mapping has twice, and its line. YAML forbids it; PyYAML silently keeps the last."""
    waiting, seen = [tree], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))  # an alias may lead back
        if isinstance(node, yaml.MappingNode):
            names = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in names:
                        return key.value, key.start_mark.line + 1
                    names.add(key.value)
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
    return None


def _override(raw: dict[str, Any], text: str) -> None:
    try:
        text = os.fsencode(
            text
        ).decode()  # in a locale without UTF-8 an argument's bytes are kept as surrogates
    except UnicodeError:
        raise RecipeError(f"--set {text!a} is not UTF-8", "write it in UTF-8") from None
    name, equals, value = text.partition("=")
    parts = name.split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {text!r} is not a.b=c", "write for example --set run.workers=2")
    try:
        parsed = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"--set {name}: {value!r} is not YAML: {_said(error)}",
            f"quote text with special characters: --set '{name}=\"…\"'",
        ) from error
    node: Any = raw
    names, place = _names(raw), 0
    while place < len(parts):
        depth, part = place, parts[place]
        if isinstance(node, dict):  # names of models may have dots: run.engines.qwen3.5-9b.engine
            joined = (".".join(parts[place:end]) for end in range(len(parts), place + 1, -1))
            part = next((name for name in joined if name in node or name in names), part)
        place += part.count(".") + 1
        last = place == len(parts)
        if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            if last:
                node[int(part)] = parsed
            else:
                node = node[int(part)]
        elif isinstance(node, dict):
            if last:
                node[part] = parsed
            else:
                node = node.setdefault(part, {})
        else:
            at = ".".join(parts[:depth])
            has = f"has {len(node)} entries, counted from 0" if isinstance(node, list) else f"is {node!r}"
            raise RecipeError(f"--set {name}: nothing at {'.'.join(parts[: depth + 1])}", f"{at} {has}")


def _names(raw: Any) -> set[str]:
    """Returns the names that a recipe gives to its models, in all sections."""
    found: set[str] = set()
    waiting = [raw]
    while waiting:
        node = waiting.pop()
        waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
        if isinstance(node, dict) and isinstance(node.get("name"), str):
            found.add(node["name"])
    return found


def _inline_files(raw: dict[str, Any], path: Path, tree: yaml.Node | None) -> None:
    """Replace file names of prompts and chat templates by their texts, which are part of step keys."""
    students = raw.get("students")
    bases = students.get("bases") if isinstance(students, dict) else None
    named = [("judge", raw.get("judge"), "prompt")]
    named += [(f"compressors.{i}", entry, "prompt") for i, entry in _entries(raw.get("compressors"))]
    named += [(f"students.bases.{i}", entry, "chat_template") for i, entry in _entries(bases)]
    for key, section, field in named:
        if isinstance(section, dict) and isinstance(name := section.get(field), str) and name:
            remedy = "give the name of a text file beside the recipe"
            where = f"{path}:{line_of(tree, [*key.split('.'), field])}: {key}.{field}"
            try:
                file = (path.parent / name).resolve()
                # The text will be published: no link in somebody else's recipe may lead out of the folder either.
                if not file.is_relative_to(path.parent.resolve()):
                    raise RecipeError(f"{where}: {name!r} is not beside the recipe", remedy)
                section[field] = file.read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "not UTF-8 text"
                raise RecipeError(f"{where}: cannot read {name!r}: {reason}", remedy) from error


def _entries(value: Any) -> list[tuple[int, Any]]:
    return list(enumerate(value)) if isinstance(value, list) else []
