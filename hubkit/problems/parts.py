"""Problems that stand in several columns of a row.

    {"instruction": "Add them.", "input": "1, 1"}, of which the problem is in `instruction`  ->  "Add them.\\n\\n1, 1"
    {"context": "We have 1 and 1.", "question": "How many?"}, in `question`  ->  "We have 1 and 1.\\n\\nHow many?"

Alpaca's `input` comes after its instruction, a context or an instruction of its own before the question, options after
it, each unless the problem has it already.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from hubkit.errors import InputError
from hubkit.problems.cells import Cell, look_up
from hubkit.verifiers.options import choices, listed, shown

__all__ = ["PARTS", "last_name", "parts_beside", "put_together", "text_of"]

PARTS: Final[dict[str, tuple[str, ...]]] = {
    "instruction": ("instruction",),
    "context": ("input", "context", "passage", "paragraph", "article", "background", "body"),
    "options": ("options", "choices"),
    "system": ("system", "system_prompt", "system_message"),
}
"""Part of a problem -> names of columns by which it is recognised, in any letter case, the most likely first."""
ENOUGH: Final = 20
"""Characters from which on a text in another one is no chance."""


def parts_beside(row: Mapping[str, Any], problem: str, taken: Collection[str]) -> dict[str, str]:
    """Returns part -> column of those that stand in the same struct as the column of the problem, if they are texts or
    options and not in `taken`. Rows of JSON leave out what they do not have, so another row may have others."""
    struct = problem[: -len(last_name(problem))] if problem else ""
    try:
        values = look_up(row, struct[:-1]) if struct else row
    except KeyError:
        values = None
    if not isinstance(values, Mapping):
        return {}
    found: dict[str, str] = {}
    after = last_name(problem) == "instruction"
    for part, names in PARTS.items():
        named = sorted(
            (name for name in values if name.lower() in names), key=lambda n: names.index(n.lower())
        )
        free = (name for name in named if f"{struct}{name}" not in taken)
        column = next((f"{struct}{name}" for name in free if _is_part(part, name, values[name], after)), "")
        if column:
            found[part] = column
    return found


def _is_part(part: str, name: str, value: Any, instructed: bool) -> bool:
    """Whether a value is a part of the problem. A context in a shape that is no text is one, too, so that it is refused
    and not left out; an `input` without an instruction may be anything."""
    if part == "options":
        try:
            return bool(choices(Cell("", name, value)))
        except InputError:
            return False
    if part == "context" and (instructed or name.lower() != "input"):
        return True
    texts = value if isinstance(value, list) else [value]
    return all(text is None or isinstance(text, str) for text in texts)


def last_name(column: str) -> str:
    """Returns the last part of a column's name, as names are compared."""
    return column.rsplit(".", 1)[-1].lower()


def text_of(cell: Cell | None) -> str:
    """Returns the text of a part, or several texts with blank lines between; "" for none."""
    if cell is None or cell.value is None:
        return ""
    values = cell.value if isinstance(cell.value, list) else [cell.value]
    # An empty cell of a table may be a number that is none.
    texts = (cell.holding(value).answer().strip() for value in values if value == value)
    return "\n\n".join(text for text in texts if text not in ("", "<noinput>"))


def put_together(problem: str, column: str, parts: Mapping[str, Cell]) -> str:
    """Returns the problem of a column with those of its parts that it does not have, with blank lines between."""
    instruction, given = text_of(parts.get("instruction")), text_of(parts.get("context"))
    # A passage precedes the question about it.
    follows = last_name(column) == "instruction" or (given and last_name(parts["context"].column) == "input")
    texts = [instruction, problem, given] if follows else [instruction, given, problem]
    said = "\n\n".join(text for text in texts if text == problem or (text and not _same_text(text, problem)))
    options = parts.get("options")
    known = choices(options)[0] if options is not None and options.value else []
    return said if shown(said, known) else said + listed(known)


def _same_text(one: str, other: str) -> bool:
    """Whether one of two texts has the other in it, as a prompt has its question; short ones may do so by chance."""
    short, long = sorted((one, other), key=len)
    return short == long or (len(short) >= ENOUGH and short in long)
