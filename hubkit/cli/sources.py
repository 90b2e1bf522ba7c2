"""Options that say where traces are and what is read of them: the same for every command that takes a SOURCE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hubkit.stages.source import SourceOptions

__all__ = [
    "ColumnOption",
    "ConfigOption",
    "RevisionOption",
    "RowsOption",
    "SourceArgument",
    "SplitOption",
    "VerifierOption",
    "WhereOption",
    "options_of",
    "plain",
]

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Traces: org/name on the Hub, a file, or for a stage the folder of an earlier one.",
        show_default=False,
    ),
]
ConfigOption = Annotated[str | None, typer.Option("--config", help="Config of a dataset on the Hub.")]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="Split of a dataset on the Hub; train if left out.")
]
RevisionOption = Annotated[str, typer.Option("--revision", help="Branch, tag or commit on the Hub.")]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="WHAT=NAME",
        help="What a column is, where it is not recognised, e.g. --column answer=gold. Repeatable.",
    ),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="COLUMN=VALUE",
        help="Only rows with this value, written as YAML, e.g. --where domain=math. Repeatable.",
    ),
]
VerifierOption = Annotated[str, typer.Option("--verifier", help="How answers are compared.")]
RowsOption = Annotated[int, typer.Option("--rows", help="Rows read, from the beginning; 0: all.", min=0)]


def options_of(
    *,
    columns: list[str] | None,
    where: list[str] | None,
    rows: int,
    **more: Any,
) -> SourceOptions:
    """The options as a stage takes them. Raises InputError for one that is not a=b."""
    from hubkit.stages.source import SourceOptions

    return SourceOptions(
        columns=dict(_pair("--column", text) for text in columns or []),
        where={name: _value(name, value) for name, value in (_pair("--where", text) for text in where or [])},
        limit=rows or None,
        **more,
    )


def _pair(option: str, text: str) -> tuple[str, str]:
    from hubkit.errors import InputError

    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InputError(f"{option} {text!r} is not a=b", f"write for example {option} answer=gold")
    return name, value


def _value(name: str, text: str) -> Any:
    import yaml

    from hubkit.errors import InputError

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InputError(f"--where {name}: {text!r} is not YAML", "quote it: --where 'name=\"…\"'") from None


def plain(text: object, limit: int = 0) -> str:
    """Text from data as a terminal may show it: characters that control it are left out, and the middle of what is
    longer than `limit` characters."""
    whole = "".join(c for c in str(text).replace("\t", "    ") if c == "\n" or c.isprintable())
    if not limit or len(whole) <= limit:
        return whole
    head, tail = whole[: limit * 2 // 3], whole[-(limit // 3) :]
    return f"{head} […{len(whole) - len(head) - len(tail):,} characters…] {tail}"
