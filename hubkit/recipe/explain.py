"""Errors of a recipe in one line: file, line, key, the given value, what was probably meant.

recipe.yaml:17: teachers.0.sampling.max_tokns: unknown key 'max_tokns', did you mean 'max_tokens'? (and 1 more)
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Tag, ValidationError

from hubkit.recipe.config import Recipe
from hubkit.section import NAME_PATTERN, NAME_RULE, AtKey

__all__ = ["explain", "line_of"]

_SECRET: Final = {"endpoint", "api_key_env", "secrets", "token"}
"""Keys whose values are not shown, because they may hold a password."""


def explain(error: ValidationError, raw: Any, path: Path, tree: yaml.Node | None) -> str:
    """Returns the first problem, and how many more there are. `raw` holds the values that were validated, `tree` the
    nodes that know their lines."""
    # A misspelt required key is both unknown and missing: the unknown one is what was written, so it goes first.
    first: Any = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    keys, value = _walk(first, raw)
    message = _message(first, keys, value)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, AtKey):
        keys += cause.keys
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    name = ".".join(keys)
    return f"{path}:{line_of(tree, keys)}: {name + ': ' if name else ''}{message}{more}"


def line_of(node: yaml.Node | None, keys: Sequence[str]) -> int:
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


def _walk(found: Any, raw: Any) -> tuple[list[str], Any]:
    """Returns the keys as in the recipe, and the value there. pydantic inserts names of the chosen alternatives
    (problems.train.reasoning-gym.size), which the recipe does not have."""
    keys: list[str] = []
    for index, part in enumerate(found["loc"]):
        inside = isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        if inside or (isinstance(raw, dict) and part in raw):
            raw = raw[part]
            keys.append(str(part))
        elif found["type"] == "missing" and index == len(found["loc"]) - 1:
            keys.append(str(part))
    return keys, raw


def _message(found: Any, keys: list[str], value: Any) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key {keys[-1]!r}" + _meant(keys[-1], _fields_at(found["loc"][:-1]))
    if kind == "missing":
        # Sections that take a library's arguments accept any key at first, also misspelt ones.
        near = difflib.get_close_matches(keys[-1], map(str, value), n=1) if isinstance(value, dict) else []
        return (
            f"unknown key {near[0]!r}, did you mean {keys[-1]!r}?" if near else f"key {keys[-1]!r} is missing"
        )
    if kind in ("union_tag_invalid", "union_tag_not_found") and isinstance(value, dict):
        return _kind_message(found["loc"], value)
    message = str(found["msg"]).removeprefix("Value error, ")
    # hubkit's own errors are complete; pydantic's do not show the value.
    if kind == "value_error" or kind.endswith("too_short") or _SECRET & set(keys):
        return message
    if found["loc"][-1] == "[key]":
        value = keys[-1]
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        message = f"should be {NAME_RULE}" if pattern == NAME_PATTERN else f"should match {pattern}"
    if kind.startswith("union_tag"):
        message = "should be a mapping"
    message = message.replace("valid dictionary or instance of", "mapping, as in")
    message = message.replace("valid dictionary", "mapping").replace("Input should be", "should be")
    plain = value is None or isinstance(value, str | int | float)
    names = {"list": "a list", "dict": "a mapping"}
    shown = _short(value) if plain else names.get(type(value).__name__, f"a {type(value).__name__}")
    return f"{message}, not {shown}"


def _kind_message(loc: Sequence[int | str], value: dict[str, Any]) -> str:
    """For a section whose kind is not known, such as problems.train with `source: fil`."""
    places = _places_at(loc)
    tags = sorted({tag for _, tag in places if tag})
    key = next((field for place, _ in places if (field := _literal_field(place)[0])), "kind")
    if key in value:
        return f"{key} {_short(value[key])} is unknown" + _meant(str(value[key]), tags)
    if near := difflib.get_close_matches(key, map(str, value), n=1):
        return f"unknown key {near[0]!r}, did you mean {key!r}?"
    return f"key {key!r} is missing: one of {', '.join(tags)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…{text[0]}"


def _meant(name: str, known: list[str]) -> str:
    if near := difflib.get_close_matches(name, known, n=1):
        return f", did you mean {near[0]!r}?"
    return f"; known here: {', '.join(known)}" if known else ""


def _fields_at(loc: Sequence[int | str]) -> list[str]:
    """Returns the names that a key can have at this place of the recipe; [] if any name is allowed."""
    models = [place for place, _ in _places_at(loc) if _is_model(place)]
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _places_at(loc: Sequence[int | str]) -> list[tuple[Any, str]]:
    """Returns the types that a place of the recipe can have, each with the name of its kind or "".

    `loc` is pydantic's: it contains names of chosen kinds between the keys.
    """
    places: list[tuple[Any, str]] = [(Recipe, "")]
    for key in map(str, loc):
        if kinds := [(place, tag) for place, tag in places if tag == key]:
            places = kinds
            continue
        found: list[tuple[Any, str]] = []
        for place, _ in places:
            if _is_model(place):
                field = place.model_fields.get(key)
                found += _alternatives(field.annotation) if field else []
            elif get_origin(place) in (list, dict):
                found += _alternatives(get_args(place)[-1])
        places = found
    return places


def _is_model(place: Any) -> bool:
    return isinstance(place, type) and issubclass(place, BaseModel)


def _literal_field(place: Any) -> tuple[str, str]:
    """("source", "file") of FileSource, and so on; empty if the class has no such field."""
    for name, field in place.model_fields.items() if _is_model(place) else ():
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
            return name, str(get_args(field.annotation)[0])
    return "", ""


def _alternatives(annotation: Any, tag: str = "") -> list[tuple[Any, str]]:
    """X | None, Annotated[X | Y, …] -> X, Y, each with the name that a union gives it or that its own field has."""
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return _alternatives(inner, next((str(m.tag) for m in metadata if isinstance(m, Tag)), tag))
    if get_origin(annotation) in (Union, UnionType):
        return [found for argument in get_args(annotation) for found in _alternatives(argument, tag)]
    return [(annotation, tag or _literal_field(annotation)[1])]
