"""Write docs/cli.md from the CLI itself. A test fails when the two differ: `make docs` mends it."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.core import TyperGroup

from hubkit.cli import app

TARGET = Path(__file__).with_name("cli.md")


def reference() -> str:
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


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
