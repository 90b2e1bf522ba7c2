"""Write what the documents take from the code: `make docs`. A test fails where a file is not what this makes.

cli.md              the help of every command
keys.md             the keys of a recipe, a table per section
recipe.schema.json  the same for editors
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from hubkit.cli import app
from hubkit.recipe.config import Recipe
from hubkit.recipe.file import json_schema

FOLDER = Path(__file__).parent


def cli() -> str:
    """The help of every command, as Markdown."""
    lines = ["# Command line", "", "Made from the commands' own help by `make docs`.", ""]
    root = typer.main.get_command(app)

    def walk(command: object, names: list[str]) -> None:
        assert isinstance(command, typer.core.TyperCommand | TyperGroup)
        context = typer.Context(command, info_name=" ".join(names))
        lines.extend(
            [f"{'#' * min(len(names) + 1, 4)} {' '.join(names)}", "", (command.help or "").strip(), ""]
        )
        options = [record for p in command.get_params(context) if (record := p.get_help_record(context))]
        arguments = [p for p in command.get_params(context) if p.param_type_name == "argument"]
        if arguments:
            usage = " ".join(p.metavar or (p.name or "").upper() for p in arguments)
            lines.extend([f"`{' '.join(names)} {usage}`", ""])
        if options and not isinstance(command, TyperGroup):
            lines.extend(["| option | what it does |", "|---|---|"])
            lines.extend(f"| `{_cell(flag)}` | {_cell(text)} |" for flag, text in options)
            lines.append("")
        if isinstance(command, TyperGroup):
            for name, child in command.commands.items():
                walk(child, [*names, name])

    walk(root, ["hubkit"])
    return "\n".join(lines).rstrip() + "\n"


def keys() -> str:
    """The keys of a recipe as Markdown: a table for the recipe and for each of its sections."""
    whole = Recipe.model_json_schema()
    sections = {"Recipe": whole} | {
        name: told for name, told in whole["$defs"].items() if "properties" in told
    }
    lines = [
        "# Keys of a recipe",
        "",
        "Made from the recipe's models by `make docs`. `hubkit recipe schema` prints the same for editors.",
    ]
    for name, section in sections.items():
        lines += ["", f"## {name}", ""]
        lines += [_prose(section["description"]), ""] if "description" in section else []
        lines += ["| key | value | default | |", "|---|---|---|---|"]
        required = section.get("required", [])
        for key, told in section.get("properties", {}).items():
            default = "required" if key in required else _default(told)
            lines.append(
                f"| `{key}` | {_cell(_kind(told))} | {_cell(default)} | {_cell(told.get('description', ''))} |"
            )
    return "\n".join(lines) + "\n"


def schema() -> str:
    """What `hubkit recipe schema` prints."""
    return json_schema() + "\n"


def _kind(told: dict[str, Any]) -> str:
    if "$ref" in told:
        name = told["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for choice in ("anyOf", "oneOf"):
        if choice in told:
            return " or ".join(dict.fromkeys(map(_kind, told[choice])))
    if "const" in told or "enum" in told:
        values = told.get("enum", [told.get("const")])
        return ", ".join(f"`{value if isinstance(value, str) else json.dumps(value)}`" for value in values)
    kind = told.get("type", "anything")
    if kind == "array":
        return f"list of {_kind(told['items'])}" if told.get("items") else "list"
    if kind == "object":
        named = [*told.get("patternProperties", {}).values(), told.get("additionalProperties")]
        return f"name: {_kind(named[0])}" if isinstance(named[0], dict) and named[0] else "mapping"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {told[name]}" for name, sign in bounds.items() if name in told]
    names = {"string": "text", "integer": "whole number", "boolean": "true or false", "null": "nothing"}
    return " ".join([names.get(kind, kind), ", ".join(limits)]).strip()


def _default(told: dict[str, Any]) -> str:
    value = told.get("default")
    if isinstance(value, dict) and value:
        return "its keys' defaults"
    return "" if value in ("", None) else f"`{json.dumps(value, ensure_ascii=False)}`"


def _prose(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


TARGETS: dict[str, Callable[[], str]] = {"cli.md": cli, "keys.md": keys, "recipe.schema.json": schema}

if __name__ == "__main__":
    for name, make in TARGETS.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
