r"""What stands beside a box and belongs to the answer.

    "It costs $\\boxed{5}\\%$ more."  -> "5\\%"        "$\\boxed{5}x$"           -> "5 x"
    "\\boxed{5} million people"       -> "5 million"    "$7 + \\boxed{5} = 12$"   -> "5": the box fills a blank

In a formula these are a sign, a percent sign, a unit, terms and factors, an exponent; in plain text the same where
nothing stands between, a currency or a sign before the box, and percent, "million", "or more" and units after it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from hubkit.verifiers.units import is_unit

__all__ = ["Box", "with_surroundings"]


class Box(NamedTuple):
    start: int
    end: int
    content: str


REACH: Final = 160
"""Characters before and after a box that are looked at."""

_FUNCTION: Final = r"\\(?:log|ln|exp|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan)(?![A-Za-z])"
_SYMBOL: Final = (
    r"\\(?:pi|d?frac|tfrac|sqrt|alpha|beta|gamma|delta|theta|lambda|mu|phi|varphi|omega|sigma|tau|rho|infty|binom"
    r"|vec|hat|bar|mathbf|boldsymbol|ell)(?![A-Za-z])"
)
_LETTER: Final = r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])"
_DELIMITER: Final = re.compile(r"\\[\[\]()]|(?<!\\)\$\$?|\n|&|\\begin\{\w+\*?\}")
_CLOSING: Final = ("$", "$$", "\\)", "\\]")
_RELATION: Final = re.compile(
    r"=|:|\\approx|≈|\\(?:R|r|Longr)ightarrow|\\implies|\\to(?![a-z])|\\(?:text(?:bf|rm|it)?\{[^{}]*|mathbf\{[^{}]{3,})\}|\\in(?![a-z])|,|;"
    r"|\\q?quad"
)
_SIGN: Final = re.compile(r"[-+−]|\\pm|±")
_SIGN_IN_PROSE: Final = re.compile(r"(?:^|[\s=(:])((?:[-−±]|\\pm ?)?(?:\\\$|[€£¥₹])?)\Z")
"""Only right at the box: "- " may begin an item of a list."""
_OPEN_RUN: Final = re.compile(
    rf"(?:[-+*/^_\d){{}}−×·]|\\(?:cdot|times|pm)|{_SYMBOL}|{_FUNCTION}|{_LETTER})\s*\Z"
)
"""Ends of a text that goes on with the box; other texts are words, or a label."""
_TERM: Final = re.compile(
    r"(?:[\d)}A-Za-z]|\\[a-z]+)?\s*(?:[-+*/^_−×·]|\\cdot|\\times|\\pm)|\d|\\(?:pi|sqrt|frac)"
)
_FACTOR: Final = re.compile(
    rf"{_SYMBOL}|{_FUNCTION}|\\left\(|{_LETTER}|[eE][-+]?\d|!(?!=)|:\s*\d|\([^()]*\)|\\[pb]?mod(?![A-Za-z])"
    r"|(?:,|\{,\})\d{3}(?!\d)|\.\d"
)
_NO_FACTOR: Final = re.compile(r"\([^()]*(?:[A-Za-z]{3}|=|<|>|\\[lg]e|\\text|\\mod|,)[^()]*\)")
"""A remark in brackets."""
_GAPS: Final = re.compile(r"\A(?:\\[,;:! ]|~|\s)+")
_UNIT: Final = re.compile(r"[A-Za-z]{2,}(?![\w^])")
_STOP: Final = re.compile(
    r"=|;|,(?!\d{3})|\\text|\\q?quad|\\approx|\\(?:tag|label|newline|end|implies|iff|le|ge|ne|in|to)(?![a-z])"
    r"|\\\\|\\(?:R|r|Longr)ightarrow|<|>"
)
_SUFFIX: Final = re.compile(
    r"(?:\s|\\[,;! ])*(?:\\?%|\^\{?\\circ\}?(?:\s*\\?(?:text|mathrm)?\{?[CF]\b\}?)?|°[CF]?"
    r"|\\(?:text|mathrm|textrm|mbox)\s*\{[^{}]*\}(?:\^\{?\d\}?)?)"
)
_REMARK: Final = re.compile(
    r"\\(?:text|mathrm|textrm|mbox)\s*\{\s*[(,.;]*\s*(?:where|since|as|for|because|if|when|with|by|in|is|which|that|approx\w*|rounded|"
    r"i\.e|can|will|are|has|have)\b",
    re.IGNORECASE,
)
_GLUED: Final = re.compile(
    rf"\^(?:\{{[^{{}}]*\}}|-?\w+)|_(?:\{{[^{{}}]*\}}|\w)|[:/]\d+(?:\.\d+)?|\.\d+|(?:,|\{{,\}}|\\,)\d{{3}}(?!\d)|[eE][-+]?\d+"
    rf"|(?:{_SYMBOL}|{_FUNCTION})(?:\{{[^{{}}]*\}})*|\([^()\s]*\)|[\u2070-\u209f²³¹]+"
)
"""In plain text right after a box."""
_POWER_OF_TEN: Final = re.compile(
    r" ?(?:\\times|\\cdot|×|·|\*|x) ?10 ?(?:\^ ?(?:\{-?\d+\}|-?\d+)|[⁰-⁹⁻¹²³]+)"
)
_LETTER_AFTER: Final = re.compile(r"[A-Za-z](?![A-Za-z'’])")
_UNIT_LETTERS: Final = "mgshLJNWVkKMB"
"""Letters that are units, or thousands; all others are variables."""
_AFTER_FORMULA: Final = re.compile(r"(?:\$\$?|\\\)|\\\])?\*{0,2}")
_WORDS_AFTER: Final = re.compile(
    r"[ \t~-]*\(?(?:(?P<percent>\\?%|(?:percent|per cent|pct)\b)"
    r"|(?P<power>(?:(?:hundred|thousand|million|billion|trillion|dozen|lakh|crore)s?|(?:ten|hundred|thousand|million)ths?"
    r"|or (?:(?:more|less)(?! [a-z]+ly,? \$*\\boxed)|fewer|greater|higher|lower|above|below))\b)"
    r"|(?P<also>,? ?(?:or|and)(?:\s+(?:maybe|perhaps|possibly|also|even))?|,\s+(?:maybe|perhaps|possibly)"
    r"|,(?=\s+[A-Z]\b))"
    r"\s+\$?(?P<other>[-−]?\d[\d,./]*|[A-Z])\$?(?=\s*(?:[.;!?\n]|\Z))"
    r"|(?P<unit>[A-Za-z]{2,})(?=\s*(?:[.,;:!?)*$\n]|\Z)))"
)
"""A unit counts only where its sentence or part of it ends: 5 square meters, 5 m/s and 5 years old have other ones."""
_RESTATED: Final = re.compile(
    r",? or (?:more|less) [a-z]+ly,? (?:\$(?P<formula>[^$\n]+)\$|(?P<number>[-−]?\d[\d,./]*))(?=\s*(?:[.;!?\n]|\Z))"
)
"""Not "or more": 3 or more precisely 3.14 are two values, and 3 or more precisely 3 is one."""
_NO_UNIT_WORDS: Final = frozenset({"in", "second"})
"""Units that are other words, too."""


def with_surroundings(text: str, box: Box) -> str:
    """Returns the answer of one box: its content, and what belongs to it before and after it."""
    before = text[max(0, box.start - REACH) : box.start]
    after = text[box.end : box.end + REACH]
    if _in_formula(text, box, before):
        return _in_its_formula(before, box.content, after)
    sign = _SIGN_IN_PROSE.search(before)
    return f"{sign[1] if sign else ''}{box.content}{_in_prose(box.content, after)}"


def _in_formula(text: str, box: Box, before: str) -> bool:
    inside = _last(_DELIMITER, before)
    if inside is None or inside[0] not in ("$", "$$", "\n"):
        return inside is not None and (inside[0] in ("\\[", "\\(", "&") or inside[0].startswith("\\begin"))
    paragraph = text[text.rfind("\n\n", 0, box.start) + 1 : box.start]
    dollars = len(re.findall(r"(?<!\\)\$\$?", paragraph))
    return dollars % 2 == 1 or paragraph.rfind("\\[") > paragraph.rfind("\\]")


def _in_its_formula(before: str, content: str, after: str) -> str:
    inside = _last(_DELIMITER, before)
    run = before[inside.end() if inside else 0 :]
    relation = _last(_RELATION, run)
    run = run[relation.end() if relation else 0 :].strip()
    closing = _DELIMITER.search(after)
    rest = after[: closing.start() if closing else len(after)].strip()
    if suffix := _SUFFIX.match(after):
        kept = _kept(suffix)
        content += kept
        rest = rest[len(suffix[0].strip()) :].strip() if kept else ""
    else:
        rest = _GAPS.sub("", rest)
    if suffix is None and not rest and closing and closing[0] in _CLOSING:
        content += _words_after(content, after, closing.end())
    if run and not _SIGN.fullmatch(run) and re.match(r"=|\\text\{\s*=", rest):
        return content  # a blank in an equation
    if run and not _OPEN_RUN.search(run):
        run = ""
    if rest and _TERM.match(rest) and not rest.startswith((".", ",")):
        content += " " + _until_stop(rest)
    elif (unit := _UNIT.match(rest)) and is_unit(unit[0]):
        content += f" \\text{{ {unit[0]}}}"
    elif rest and suffix is None and "=" not in rest and _FACTOR.match(rest) and not _NO_FACTOR.match(rest):
        content += ("" if rest[0] in "!:.,e" else " ") + _until_stop(rest)
    elif re.match(r"\\text\{\s*(?:or|and)\s*\}", rest):
        content += " " + rest
    return f"{run}{content}"


def _in_prose(content: str, after: str) -> str:
    """What belongs to a box in plain text, after it."""
    if suffix := _SUFFIX.match(after):
        return _kept(suffix)
    if found := _POWER_OF_TEN.match(after) or _GLUED.match(after):
        return "" if _NO_FACTOR.match(found[0]) else found[0]
    if found := _LETTER_AFTER.match(after):
        return f"\\text{{{found[0]}}}" if found[0] in _UNIT_LETTERS else found[0]
    ended = _AFTER_FORMULA.match(after)
    return _words_after(content, after, ended.end() if ended else 0)


def _words_after(content: str, after: str, start: int) -> str:
    if restated := _RESTATED.match(after, start):
        return f" \\text{{ or }} {restated['formula'] or restated['number'].rstrip('.,')}"
    found = _WORDS_AFTER.match(after, start)
    if found is None:
        return ""
    if found["also"]:
        word = "and" if "and" in found["also"] else "or"
        return f" \\text{{ {word} }} {found['other'].rstrip('.,')}"
    if not re.search(r"\d", content):
        return ""
    if found["percent"]:
        return "\\%"
    word = found["power"] or found["unit"]
    known = found["power"] or (is_unit(word) and word not in _NO_UNIT_WORDS)
    return f" \\text{{ {word}}}" if known else ""


def _kept(suffix: re.Match[str]) -> str:
    remark = _REMARK.match(suffix[0].strip().lstrip("\\,;! ")) or _REMARK.search(suffix[0])
    nothing = not re.search(r"[\w%°^]", re.sub(r"\\[a-z]+", "", suffix[0]))
    return "" if remark or nothing else suffix[0]


def _until_stop(rest: str) -> str:
    stop = _STOP.search(rest)
    return rest[: stop.start() if stop else len(rest)].rstrip(" .")


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(list(pattern.finditer(text))[-1:]), None)
