r"""Reads the kind of an answer: a number, a list, an interval, an equation, a time, a word (forms.py).

    read("x=5")                  -> Named("x", Number("5"))
    read("3,8,\\text{and}11")    -> Several("list", (Number("3"), Number("8"), Number("11")))
    read("\\pm6")                -> Several("list", (Number("6"), Number("-6")))
    read("x>3")                  -> Named("x", Several("()", (Number("3"), Number("\\infty"))))
    read("8:00")                 -> Clock(28800)
    read("211_{3}")              -> Based("211", 3)

Texts must have been normalised by `spelling.spell`. Reading drops nothing; `compare.py` compares all of it.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from hubkit.verifiers import plain
from hubkit.verifiers.forms import (
    Approximate,
    Based,
    Chain,
    Clock,
    Form,
    Matrix,
    Modular,
    Named,
    Number,
    Ratio,
    Relation,
    Several,
    Union,
    Words,
)
from hubkit.verifiers.units import split_unit
from hubkit.verifiers.words import number_in, said_twice

__all__ = ["read", "split_top"]

DEEPEST: Final = 12

_OPENING: Final = re.compile(r"\\lbrace(?![A-Za-z])|[({\[]")
_CLOSING: Final = re.compile(r"\\rbrace(?![A-Za-z])|[)}\]]")
_PIECE: Final = re.compile(
    r"\\text\{[^{}]*\}(?:\^\{[^{}]*\})?|\\begin\{[a-z]*\*?\}(?:\{[^{}]*\})?|\\end\{[a-z]*\*?\}|\\[A-Za-z]+|\\.|[a-z]{2,}|.",
    re.DOTALL,
)
_JOINER: Final = re.compile(r"(?:\\text\{[\s,;]*(?:and|or)[\s,;]*\}|and|or|\\lor|\\land|[,;])", re.IGNORECASE)
_NAME: Final = re.compile(
    r"""(?:\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|phi|omega|sigma|tau|rho|varphi|psi)|[A-Za-z]{1,3}
        |\\text\{[^{}\d]*\}|\\(?:overline|angle|triangle|widehat|hat|vec|bar)\s?\{?[A-Za-z]{1,4}\}?|m\\angle\s?[A-Z]{1,3}
        |[A-Za-z]+(?:\ [A-Za-z]+){0,4})
        (?:_\{[^{}]*\})?'{0,2}(?:\^\{-1\})?(?:\([^()=]{0,20}\))?(?:_\{[^{}]*\})?""",
    re.VERBOSE,
)
_NOT_NAMES: Final = re.compile(r"(?:not|at|less|more|least|most|about|no|than)\b", re.IGNORECASE)
_TUPLE_NAME: Final = re.compile(r"\(([A-Za-z](?:_\{\w+\})?(?:,[A-Za-z](?:_\{\w+\})?)+)\)")
_SIGNS: Final = ("=", "<", ">", "\\le", "\\ge", "\\ne", "\\in", "\\approx", "\\equiv")
_CLOCK: Final = re.compile(
    r"(\d{1,2}):(\d{2})(?::(\d{2}))? ?(?:\\text\{)? ?(?:([ap])\.? ?m\.?)? ?\}?", re.IGNORECASE
)
_HOUR: Final = re.compile(r"(\d{1,2}) ?(?:\\text\{)? ?([ap])\.? ?m\.? ?\}?", re.IGNORECASE)
_BASED: Final = re.compile(
    r"\(?((?:[0-9][0-9A-Fa-f]*)|[A-F][0-9A-F]+)\)?_\{?(?:\\text\{)?\(?([0-9]{1,2}|[a-z]{3,12})\)?\}?\}?"
)
_MODULAR: Final = re.compile(r"(.*?)\(?\\pmod ?\{?(\d+)\}?\)?")
_DEGREES: Final = re.compile(r"(-?)(\d+)\^\\circ ?(\d+)'(?: ?(\d+(?:\.\d+)?)'')?")
_DATE: Final = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}([/-])\d{1,2}\1\d{2,4}|\d{1,2}\.\d{1,2}\.\d{2,4}")
_MONTH: Final = re.compile(
    r"(?:\\text\{)?\s*(?:jan|febr)uary|march|april|may\b|june|july|august|(?:sept|nov|dec)ember|october",
    re.IGNORECASE,
)
_ENVIRONMENT: Final = re.compile(
    r"\\begin\{([pbvBV]?matrix|smallmatrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL
)
_WORDS: Final = re.compile(r"(?:[A-Za-z][A-Za-z'-]*+[ .?!-]*+)+")
"""Possessive: otherwise a sentence that ends with another sign would take the age of the universe."""
_PLAIN_LETTERS: Final = re.compile(r"[A-Za-z]|[a-z]{1,3}|[A-Z][a-z]{1,2}")
"""A product of letters. BAC may be an order, a segment or a word, so its letters keep their places."""
_LETTERS_APART: Final = re.compile(r"[a-z]!*(?:[ -][a-z]!*)+|[A-Za-z]!+")
"""x y, x-y and n! are no words."""


@functools.lru_cache(maxsize=8192)
def read(text: str) -> Form:
    """Returns the form of a spelled answer. Anything of no other form is an expression, which may be unreadable."""
    return _read(text, 0)


def _read(text: str, depth: int) -> Form:
    if depth > DEEPEST:
        raise RecursionError("an answer within an answer within …")
    text = text.strip()
    if text.isdecimal():
        return Number(text)
    for reader in (_special, _several, _related, _bracketed):
        if (form := reader(text, depth)) is not None:
            return form
    return _single(text)


def split_top(text: str) -> list[str]:
    """Pieces of a text: commands, words, letters, and all between brackets as one."""
    pieces: list[str] = []
    depth, held = 0, ""
    for match in _PIECE.finditer(text):
        piece = match[0]
        if _OPENING.fullmatch(piece) or piece.startswith("\\begin"):
            depth += 1
        elif _CLOSING.fullmatch(piece) or piece.startswith("\\end"):
            depth -= 1
            if depth <= 0:
                pieces.append(held + piece)
                depth, held = 0, ""
                continue
        if depth:
            held += piece
        else:
            pieces.append(piece)
    if held:
        pieces.append(held)
    return pieces


def _special(text: str, depth: int) -> Form | None:
    if match := _CLOCK.fullmatch(text):
        hours, minutes, seconds = int(match[1]), int(match[2]), int(match[3] or 0)
        half = (match[4] or "").lower()
        if hours < 24 and minutes < 60 and seconds < 60 and not (half and not 1 <= hours <= 12):
            hours = hours % 12 + (12 if half == "p" else 0) if half else hours
            return Clock(hours * 3600 + minutes * 60 + seconds)
    if (match := _HOUR.fullmatch(text)) and 1 <= int(match[1]) <= 12:
        return Clock((int(match[1]) % 12 + (12 if match[2] in "pP" else 0)) * 3600)
    if match := _BASED.fullmatch(text):
        base = int(match[2] if match[2].isdecimal() else number_in(match[2]) or 0)
        if 2 <= base <= 36 and all(int(digit, 36) < base for digit in match[1]):
            return Based(match[1].lstrip("0").upper() or "0", base)
        return Words(text) if match[1][0].isdigit() else None
    if match := _DEGREES.fullmatch(text):
        return Number(
            f"{match[1]}(\\frac{{{match[2]}}}{{1}}+\\frac{{{match[3]}}}{{60}}+\\frac{{{match[4] or 0}}}{{3600}})",
            "degree",
        )
    if _DATE.fullmatch(text):
        return Words(text)
    if _MONTH.match(text):
        return Words(" ".join(re.sub(r"\\text\{([^{}]*)\}", r"\1", text).replace(",", " ").lower().split()))
    if "\\pmod" in text and (match := _MODULAR.fullmatch(text)):
        inner = _read(match[1], depth + 1)
        if isinstance(inner, Named):
            return Named(inner.name, Modular(inner.form, match[2]))
        return Modular(inner, match[2])
    if match := _ENVIRONMENT.fullmatch(text):
        rows = [row for row in re.split(r"\\newline", match[2]) if row.strip()]
        cells = tuple(tuple(_read(cell, depth + 1) for cell in row.split("&")) for row in rows)
        kind = "v" if match[1][0] in "vV" else "p"
        return Matrix(kind, cells)
    if text in ("\\emptyset", "\\lbrace\\rbrace", "\\text{empty set}"):
        return Several("{}", ())
    if text == "\\R":
        return Several("()", (Number("-\\infty"), Number("\\infty")))
    return None


def _several(text: str, depth: int) -> Form | None:
    """Lists: parts joined by commas, "and", "or"; and what \\pm and \\cup stand for."""
    pieces = split_top(text)
    parts, part = [], ""
    for place, piece in enumerate(pieces):
        if _JOINER.fullmatch(piece) and not (piece == "," and not pieces[place + 1 :]):
            parts.append(part)
            part = ""
        else:
            part += piece
    parts.append(part)
    parts = [stripped for part in parts if (stripped := part.strip())]
    if len(parts) > 1 and not _is_prose(text):
        either = bool(re.search(r"\bor\b|\\lor", text)) and not re.search(r"\band\b|\\land", text)
        return _listed([_read(part, depth + 1) for part in parts], either)
    if "\\cup" in pieces:
        return _united([_read(part, depth + 1) for part in _split_at(pieces, "\\cup")])
    signs = [piece for piece in pieces if "\\pm" in piece or "\\mp" in piece]
    if signs:
        return _both_signs(text, depth)
    return None


def _united(parts: list[Form]) -> Form:
    """Finite sets together are one."""
    sets = [part for part in parts if isinstance(part, Several) and part.kind == "{}"]
    if len(sets) == len(parts):
        return Several("{}", tuple(item for part in sets for item in part.items))
    return Union(tuple(parts))


def _is_prose(text: str) -> bool:
    bare = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    return bool(_WORDS.fullmatch(bare.replace(",", " "))) and len(re.findall(r"[A-Za-z]{4,}", bare)) > 3


def _both_signs(text: str, depth: int) -> Form | None:
    """x = 3 \\pm 2 is a list of two; several signs in one expression are all the upper, or all the lower."""
    if "(" in text and "," in text and len(re.findall(r"\\pm(?![A-Za-z])", text)) > 1:
        return None  # two points or four
    upper = re.sub(r"\\pm(?![A-Za-z]) ?", "+", re.sub(r"\\mp(?![A-Za-z]) ?", "-", text))
    lower = re.sub(r"\\pm(?![A-Za-z]) ?", "-", re.sub(r"\\mp(?![A-Za-z]) ?", "+", text))
    return _listed([_read(_signed(upper), depth + 1), _read(_signed(lower), depth + 1)])


def _signed(text: str) -> str:
    return re.sub(r"(^|[=(,<>]|\\lbrace)\+", r"\1", text)


def _listed(items: list[Form], either: bool = False) -> Form:
    """A flat list. In "x = 2, 3" the name is that of all; "x < 1 or x > 4" is one set of numbers, and
    "1/2 or 0.5" one number."""
    if either and all(
        isinstance(i, Named) and isinstance(i.form, Several) and i.form.kind[0] in "([" for i in items
    ):
        names = {item.name for item in items if isinstance(item, Named)}
        if len(names) == 1:
            return Named(names.pop(), Union(tuple(item.form for item in items if isinstance(item, Named))))
    if either and all(_same(items[0], item) for item in items[1:]):
        return items[0]
    flat: list[Form] = []
    for item in items:
        flat += item.items if isinstance(item, Several) and item.kind == "list" else [item]
    first = flat[0]
    if isinstance(first, Named) and not isinstance(first.form, Several | Union):
        flat = [item if isinstance(item, Named | Relation) else Named(first.name, item) for item in flat]
    elif isinstance(first, Named) and all(isinstance(item, Several) for item in flat[1:]):
        flat = [item if isinstance(item, Named) else Named(first.name, item) for item in flat]
    numbers = [item for item in flat if isinstance(item, Number)]
    if len(numbers) == len(flat) and numbers[-1].unit and not any(item.unit for item in numbers[:-1]):
        # "3 and 5 cm" is centimetres in both.
        flat = [item._replace(unit=numbers[-1].unit) for item in numbers]
    return Several("list", tuple(flat)) if len(flat) > 1 else flat[0]


def _same(one: Form, other: Form) -> bool:
    if isinstance(one, Number) and isinstance(other, Number) and one.unit == other.unit:
        return plain.same(one.text, other.text) is True
    return one == other


def _split_at(pieces: list[str], *signs: str) -> list[str]:
    parts, part = [], ""
    for piece in pieces:
        if piece in signs:
            parts.append(part)
            part = ""
        else:
            part += piece
    return [*parts, part]


def _related(text: str, depth: int) -> Form | None:
    """Equations, inequalities, memberships; and ratios."""
    pieces = split_top(text)
    signs = [piece for piece in pieces if piece in _SIGNS]
    if not signs:
        if ":" in pieces:
            return Ratio(tuple(_read(part, depth + 1) for part in _split_at(pieces, ":")))
        return None
    parts = [part.strip() for part in _split_at(pieces, *_SIGNS)]
    if not all(parts[1:]):
        return None
    if not parts[0]:  # "= 5"
        return _read(parts[1], depth + 1) if signs in (["="], ["\\approx"]) else None
    if set(signs) == {"="}:
        return _equal(parts, depth)
    if signs[-1] == "\\approx" and set(signs) <= {"=", "\\approx"}:
        return _approximate(parts, signs, depth)
    if set(signs) <= {"<", "\\le"} or set(signs) <= {">", "\\ge"}:
        return _inequality(parts, signs)
    if len(signs) == 1 and signs[0] in ("\\in", "\\equiv") and _is_name(parts[0]):
        return Named(_name(parts[0]), _read(parts[1], depth + 1))
    if signs == ["\\ne"]:
        if _is_variable(parts[0]):
            edge = Number(parts[1])
            sides = (Several("()", (Number("-\\infty"), edge)), Several("()", (edge, Number("\\infty"))))
            return Named(_name(parts[0]), Union(sides))
        return Relation("\\ne", parts[0], parts[1])
    return None


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text) or _TUPLE_NAME.fullmatch(text)) and not _NOT_NAMES.match(_name(text))


def _is_variable(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z](?:_\{\w+\})?|\\(?:theta|alpha|beta|lambda)", text))


def _name(text: str) -> str:
    return re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip()


def _equal(parts: list[str], depth: int) -> Form | None:
    if _is_name(parts[0]):
        name = _name(parts[0])
        rest = tuple(_read(part, depth + 1) for part in parts[1:])
        return Named(name, rest[0] if len(rest) == 1 else Chain(rest))
    numeric = [
        not re.search(r"(?<!\\)(?<![A-Za-z])[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", part)) for part in parts
    ]
    if all(numeric):
        return Chain(tuple(_read(part, depth + 1) for part in parts))
    if len(parts) == 2:
        if _is_name(parts[1]) and numeric[0]:
            return Named(_name(parts[1]), _read(parts[0], depth + 1))
        return Relation("=", parts[0], parts[1])
    return None


def _approximate(parts: list[str], signs: list[str], depth: int) -> Form | None:
    if _is_name(parts[0]):
        name, parts, signs = _name(parts[0]), parts[1:], signs[1:]
        if not signs:  # x ≈ 5 says no more than x = 5
            return Named(name, _read(parts[0], depth + 1))
        inner = _approximate(parts, signs, depth)
        return None if inner is None else Named(name, inner)
    first = signs.index("\\approx")
    exact = tuple(_read(part, depth + 1) for part in parts[: first + 1])
    rounded = tuple(_read(part, depth + 1) for part in parts[first + 1 :])
    return Approximate(exact[0] if len(exact) == 1 else Chain(exact), rounded)


def _inequality(parts: list[str], signs: list[str]) -> Form | None:
    if signs[0] in (">", "\\ge"):
        parts, signs = parts[::-1], [{">": "<", "\\ge": "\\le"}[sign] for sign in reversed(signs)]
    closed = {"<": False, "\\le": True}
    if len(parts) == 3 and _is_variable(parts[1]):
        kind = ("[" if closed[signs[0]] else "(") + ("]" if closed[signs[1]] else ")")
        return Named(_name(parts[1]), Several(kind, (Number(parts[0]), Number(parts[2]))))
    if len(parts) != 2:
        return None
    low, high = parts
    if _is_variable(low) and not re.search(r"(?<!\\)\b[a-z]\b", high):
        kind = "(" + ("]" if closed[signs[0]] else ")")
        return Named(_name(low), Several(kind, (Number("-\\infty"), Number(high))))
    if _is_variable(high) and not re.search(r"(?<!\\)\b[a-z]\b", low):
        kind = ("[" if closed[signs[0]] else "(") + ")"
        return Named(_name(high), Several(kind, (Number(low), Number("\\infty"))))
    return Relation(signs[0], low, high)


def _bracketed(text: str, depth: int) -> Form | None:
    """Sets, tuples and intervals."""
    if text.startswith("\\lbrace") and text.endswith("\\rbrace"):
        inside = text[len("\\lbrace") : -len("\\rbrace")].strip()
        if _encloses(text) and not any(piece in ("|", ":") for piece in split_top(inside)):
            inner = _read(inside, depth + 1) if inside else Several("list", ())
            items = inner.items if isinstance(inner, Several) and inner.kind == "list" else (inner,)
            return Several("{}", items)
        return None
    if not (text[:1] in "([" and text[-1:] in ")]" and len(text) > 2) or not _encloses(text):
        return None
    inside = text[1:-1].strip()
    parts = [part.strip() for part in _split_at(split_top(inside), ",", ";")]
    if len(parts) == 1:
        if text[0] == "(" and text[-1] == ")":
            return _read(inside, depth + 1)
        return Several("[]", (_read(inside, depth + 1),))
    if not all(parts):
        return None
    return Several(text[0] + text[-1], tuple(_read(part, depth + 1) for part in parts))


def _encloses(text: str) -> bool:
    """Whether the first bracket is closed by the last one."""
    return len(split_top(text)) == 1


def _single(text: str) -> Form:
    if (said := said_twice(text)) is not None:
        return Number(said)
    expression, unit = split_unit(text)
    if expression.startswith("+"):
        expression = expression[1:].strip()
    bare = _name(expression)
    if not unit and bare.strip(".!").lower() in ("yes", "no"):
        return Words(bare.strip(".!").lower())
    if not unit and _LETTERS_APART.fullmatch(expression):
        return Number(expression.replace(" ", ""))
    upright = "\\text" in expression and len(bare) > 1
    if not unit and _WORDS.fullmatch(bare) and (upright or not _PLAIN_LETTERS.fullmatch(bare)):
        words = " ".join(re.sub(r"[.?!-]", " ", bare).split())
        return Words(words if words.isupper() and len(words) < 4 else words.lower().removeprefix("the "))
    if not unit and "\\text" in expression:
        return Words(" ".join(bare.lower().split()))
    return Number(bare if _PLAIN_LETTERS.fullmatch(bare) else expression, unit)
