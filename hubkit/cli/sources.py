"""Options that say where traces are and what is read of them; every command that takes a SOURCE has the same ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

if TYPE_CHECKING:
    from hubkit.stages.source import SourceOptions

__all__ = ["SourceArgument", "plain", "reads"]

F = TypeVar("F", bound=Callable[..., None])

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="Traces: org/name on the Hub, a file, or for a stage the folder of an earlier one.",
        show_default=False,
    ),
]
ROWS: Final = "Rows read, from the beginning; 0: all."
OPTIONS: Final[dict[str, tuple[Any, Any]]] = {
    "config": (Annotated[str | None, typer.Option(help="Config of a dataset on the Hub.")], None),
    "split": (
        Annotated[str | None, typer.Option(help="Split of a dataset on the Hub; train if left out.")],
        None,
    ),
    "revision": (Annotated[str, typer.Option(help="Branch, tag or commit on the Hub.")], ""),
    "columns": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--column",
                metavar="WHAT=NAME",
                help="What a column is, where it is not recognised, e.g. --column answer=gold. Repeatable.",
            ),
        ],
        None,
    ),
    "where": (
        Annotated[
            list[str] | None,
            typer.Option(
                metavar="COLUMN=VALUE",
                help="Only rows with this value, written as YAML, e.g. --where domain=math. Repeatable.",
            ),
        ],
        None,
    ),
    "rows": (Annotated[int, typer.Option(help=ROWS, min=0)], 0),
    "verifier": (Annotated[str, typer.Option(help="How answers are compared.")], "math"),
    "license": (Annotated[str, typer.Option(help="Licence of the source, where its card says none.")], ""),
    "model": (
        Annotated[str, typer.Option("--written-by", help="The model that wrote them, for the card.")],
        "",
    ),
    "unverified": (
        Annotated[
            bool,
            typer.Option(
                "--unverified", help="Keep traces without a look at their answers; the card says so."
            ),
        ],
        False,
    ),
}
"""Name in SourceOptions, but for `rows`, its `limit` -> type and default."""


def reads(*names: str, rows: int = 0) -> Callable[[F], F]:
    """Add the named OPTIONS to a command. Its parameter `options` is then a SourceOptions made from their values.

    `rows` is the default of --rows. A value that is not a=b where it should be raises InputError.
    """
    reading = ("config", "split", "revision", "columns", "where", "rows", *names)

    def given_to(command: F) -> F:
        signature = inspect.signature(command, eval_str=True)
        own = [p.replace(kind=p.KEYWORD_ONLY) for p in signature.parameters.values() if p.name != "options"]
        more = []
        for name in reading:
            kind, default = OPTIONS[name]
            called = "written_by" if name == "model" else name
            default = rows if name == "rows" else default
            more.append(inspect.Parameter(called, own[0].kind, default=default, annotation=kind))

        @functools.wraps(command)
        def wrapped(**values: Any) -> None:
            told = {p.name: values.pop(p.name) for p in more}
            if "written_by" in told:
                told["model"] = told.pop("written_by")
            command(**values, options=_options(**told))

        wrapped.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in (*own, *more)} | {"return": None}
        return wrapped  # type: ignore[return-value]

    return given_to


def _options(
    *,
    columns: list[str] | None,
    where: list[str] | None,
    rows: int,
    **more: Any,
) -> SourceOptions:
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
    """Returns text from data that is safe in a terminal: without control characters, and without the middle of texts
    longer than `limit` characters."""
    whole = "".join(c for c in str(text).replace("\t", "    ") if c == "\n" or c.isprintable())
    if not limit or len(whole) <= limit:
        return whole
    head, tail = whole[: limit * 2 // 3], whole[-(limit // 3) :]
    return f"{head} […{len(whole) - len(head) - len(tail):,} characters…] {tail}"
