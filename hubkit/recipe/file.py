"""A recipe file, read: overrides applied, prompts put in place, and errors that name file, line and key."""

from __future__ import annotations

import difflib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from hubkit.errors import RecipeError
from hubkit.problems import SOURCES
from hubkit.recipe.config import Recipe

__all__ = ["load_recipe"]


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply `a.b=c` overrides (lists by index: students.bases.0.name=x).

    Raises RecipeError that names file, line, key and remedy.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "give the path of a recipe.yaml; `hubkit recipe list` shows those here"
        raise RecipeError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}", remedy
        ) from error
    try:
        raw = yaml.safe_load(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f":{where.line + 1}" if where else ""
        raise RecipeError(
            f"{path}{line}: not YAML: {getattr(error, 'problem', error)}", "mend the syntax"
        ) from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: not a recipe", "a recipe is a mapping that starts with `name:`")
    for override in overrides or []:
        _override(raw, override)
    _inline_files(raw, path)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(_explain(error, path, tree), "see docs/recipes.md for the keys") from error


def _override(raw: dict[str, Any], text: str) -> None:
    name, equals, value = text.partition("=")
    parts = name.split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {text!r} is not a.b=c", "write for example --set run.workers=2")
    node: Any = raw
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            if last:
                node[int(part)] = yaml.safe_load(value)
            else:
                node = node[int(part)]
        elif isinstance(node, dict):
            if last:
                node[part] = yaml.safe_load(value)
            else:
                node = node.setdefault(part, {})
        else:
            raise RecipeError(f"--set {name}: nothing at {'.'.join(parts[: depth + 1])}", "check the path")


def _inline_files(raw: dict[str, Any], path: Path) -> None:
    """Put the text of prompts and chat templates in place of their files' names: they count by content."""
    students = raw.get("students")
    bases = students.get("bases") if isinstance(students, dict) else None
    named = [("judge", raw.get("judge"), "prompt")]
    named += [(f"compressors.{i}", entry, "prompt") for i, entry in _entries(raw.get("compressors"))]
    named += [(f"students.bases.{i}", entry, "chat_template") for i, entry in _entries(bases)]
    for key, section, field in named:
        if isinstance(section, dict) and isinstance(name := section.get(field), str) and name:
            remedy = "give the name of a text file beside the recipe"
            try:
                file = (path.parent / name).resolve()
                # What is in it will be published: no link in a recipe of somebody else's may lead out either.
                if not file.is_relative_to(path.parent.resolve()):
                    raise RecipeError(f"{path}: {key}.{field}: {name!r} is not beside the recipe", remedy)
                section[field] = file.read_text(encoding="utf-8").strip()
            except (OSError, ValueError) as error:
                raise RecipeError(f"{path}: {key}.{field}: cannot read {name!r}", remedy) from error


def _entries(value: Any) -> list[tuple[int, Any]]:
    return list(enumerate(value)) if isinstance(value, list) else []


def _explain(error: ValidationError, path: Path, tree: yaml.Node | None) -> str:
    """The first problem in one line, and how many more there are."""
    # A misspelt required key is both unknown and missing: the unknown one is what was written, so it goes first.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    # pydantic puts the chosen kind of source among the keys: problems.train.reasoning-gym.size
    tags = set(SOURCES)
    keys = [str(part) for place, part in enumerate(first["loc"]) if part not in tags or place == 0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"unknown key {keys[-1]!r}"
        known = _fields_at([str(part) for part in first["loc"][:-1]])
        if near := difflib.get_close_matches(keys[-1], known, n=1):
            message += f", did you mean {near[0]!r}?"
        elif known:
            message += f"; known here: {', '.join(known)}"
    elif first["type"] == "missing":
        message = f"key {keys[-1]!r} is missing"
    line = _line_of(tree, keys)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    name = ".".join(keys)
    return f"{path}:{line}: {name + ': ' if name else ''}{message}{more}"


def _line_of(node: yaml.Node | None, keys: list[str]) -> int:
    """Line (from 1) of the deepest node on the way to a key."""
    line = 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == key), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and key.isdecimal() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _fields_at(keys: list[str]) -> list[str]:
    """Names that a key at this place of the recipe can have; [] where the place takes free names.

    `keys` as pydantic gives them: the chosen kind of source stands among them.
    """
    places: list[Any] = [Recipe]
    for key in keys:
        if kinds := [place for place in places if _kind_of_source(place) == key]:
            places = kinds
            continue
        found: list[Any] = []
        for place in places:
            if isinstance(place, type) and issubclass(place, BaseModel):
                field = place.model_fields.get(key)
                found += _alternatives(field.annotation) if field else []
            elif get_origin(place) in (list, dict):
                found += _alternatives(get_args(place)[-1])
        places = found
    models = [place for place in places if isinstance(place, type) and issubclass(place, BaseModel)]
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _kind_of_source(place: Any) -> str | None:
    """file of FileSource, and so on."""
    field = (
        place.model_fields.get("source") if isinstance(place, type) and issubclass(place, BaseModel) else None
    )
    return get_args(field.annotation)[0] if field else None


def _alternatives(annotation: Any) -> list[Any]:
    """X | None, Annotated[X | Y, …] -> [X, Y]."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [part for argument in get_args(annotation) for part in _alternatives(argument)]
    return [annotation]
