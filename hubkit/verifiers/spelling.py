r"""Normalises the spelling of answers: what looks alike in print becomes the same text.

    spell("$ \\dfrac12 $.") -> "\\frac{1}{2}"        spell("29\\,322\\,216") -> "29322216"
    spell("3 1/4") -> "(3+\\frac{1}{4})"              spell("0.\\overline{27}") -> "\\frac{27}{99}"
    spell("\\mathrm{cm}") -> "\\text{cm}"             spell("x \\leqslant 5") -> "x\\le 5"

Nothing that changes the answer is dropped: units, words, signs and brackets stay. Decided here:
- Groups of three digits between commas, {,}, \,, \ , apostrophes or spaces are one number; "1,5" and "1.234,5" are
  none, and in brackets "(1,200)" is a pair, unless other elements there are set apart by a comma and a space.
- "3 1/4" and 3\frac{1}{4} are three and a quarter; 3\frac{5}{4} may be a product and stays as it is.
- A bar or dots over decimals, and digits in parentheses after them, repeat: 0.2\overline{7} is 5/18. So do those before
  three dots that are written three times, or twice from the point on (0.333…, 0.1212…); 3.14… is no number.
"""

from __future__ import annotations

import functools
import re
from typing import Final

__all__ = ["spell", "ungrouped_indian"]

_LOOKALIKES: Final = str.maketrans(
    {
        **dict.fromkeys("−–‐‑－﹣", "-"),
        **dict.fromkeys("×⋅·∙", "\\cdot "),
        **dict.fromkeys("\u00a0\u2002\u2003\u2005\u2009\u200a\u202f", " "),
        **dict.fromkeys("\u200b\u2060\ufeff", ""),
        # Full-width, Arabic, Persian, Devanagari and Bengali digits.
        **{
            chr(zero + digit): str(digit)
            for zero in (0xFF10, 0x660, 0x6F0, 0x966, 0x9E6)
            for digit in range(10)
        },
        **dict(zip("＋＝／．％＜＞", "+=/.%<>", strict=True)),
        **{
            fraction: f"\\frac{{{top}}}{{{below}}}"
            for fraction, top, below in zip(
                "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒",
                map(int, "112131234151135711"),
                (2, 3, 3, 4, 4, 5, 5, 5, 5, 6, 6, 7, 8, 8, 8, 8, 9, 10),
                strict=True,
            )
        },
        "⁄": "/",
        "÷": "/",
        **{
            letter: f"\\{name} "
            for letter, name in zip(
                "αβγδεθλπρστφωΔΩ",
                "alpha beta gamma delta epsilon theta lambda pi rho sigma tau phi omega Delta Omega".split(),  # noqa: SIM905
                strict=True,
            )
        },
        "∞": "\\infty ",
        "≤": "\\le ",
        "≥": "\\ge ",
        "≠": "\\ne ",
        "≈": "\\approx ",
        "±": "\\pm ",
        "∓": "\\mp ",
        "∪": "\\cup ",
        "∩": "\\cap ",
        "∈": "\\in ",
        "∅": "\\emptyset ",
        "ℝ": "\\R ",
        "°": "^\\circ ",
        "…": "\\dots ",
        "，": ",",
        "：": ":",
        "（": "(",
        "）": ")",
        "′": "'",
        "’": "'",
        "″": "''",
    }
)
_DIGITS: Final = {
    sign: dict(zip(map(ord, letters), "0123456789+-", strict=True))
    for sign, letters in (("^", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"), ("_", "₀₁₂₃₄₅₆₇₈₉₊₋"))
}
"""Raised and lowered digits -> plain ones."""
_SMALL: Final = re.compile("(?P<top>[⁰¹²³⁴-⁹]+)⁄(?P<below>[₀-₉]+)|(?P<raised>[⁺⁻]?[⁰¹²³⁴-⁹]+)|[₊₋]?[₀-₉]+")
"""10¹² is ten to the power of twelve, and not of one and two."""
_SAME: Final = {
    "frac": "dfrac tfrac cfrac nicefrac sfrac",
    "binom": "dbinom tbinom",
    "cdot": "times ast",
    "le": "leq leqslant",
    "ge": "geq geqslant",
    "ne": "neq",
    "approx": "simeq sim",
    "emptyset": "varnothing O",
    "infty": "infin",
    "dots": "ldots cdots dotsc dotsb",
    "in": "isin",
    "setminus": "backslash",
    "to": "rightarrow",
    "land": "wedge",
    "lor": "vee",
    "text": "mathrm textrm textnormal mbox hbox textit textsf texttt mathsf mathtt mathit operatorname textup",
    "pmod": "mod bmod",
    "implies": "Rightarrow Longrightarrow",
}
_NAMES: Final = {other: name for name, others in _SAME.items() for other in others.split()}
_DROPPED: Final = frozenset(
    """left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr displaystyle textstyle limits nolimits rm bf it
    boxed fbox framebox mathbf textbf boldsymbol bm emph underline mathop tiny scriptsize footnotesize small normalsize
    large Large LARGE huge Huge""".split()  # noqa: SIM905
)
"""Commands that only change the appearance. Their argument stays, in braces if it had braces."""
_SPACES: Final = frozenset("quad qquad thinspace enspace medspace thickspace space nobreakspace".split())  # noqa: SIM905
_LOOKS: Final = re.compile(r"\\(?:color|textcolor|colorbox|[hv]space\*?|[hv]?phantom)\s*\{[^{}]*\}\s*")
"""Commands that only change the appearance and are dropped together with their first argument."""
_ASCII: Final = re.compile(
    r"(?<![A-Za-z\\{])(sqrt|pi|sin|cos|tan|cot|sec|csc|ln|log|exp|arcsin|arccos|arctan|theta|infinity)"
    r"(?![A-Za-z])(?=\s*(?:[-+*/^()=<>,;|\d]|\Z))"
)
"""Names as they are typed without LaTeX, beside an operator or a bracket: 2*pi*r, sin(x)."""
_ROOTS: Final = {"√": "", "∛": "[3]", "∜": "[4]"}
_ROOT: Final = re.compile(r"\\sqrt\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
_COMMAND: Final = re.compile(r"\\([A-Za-z]+)\s*")
_GAP: Final = "\u2009"
"""A space that LaTeX was asked for: in a number it parts groups of digits."""
_GAP_COMMAND: Final = re.compile(r"\\[,;: ]|~")
_NOTHING: Final = re.compile(r"\\!")
_GROUPS: Final = re.compile(
    rf"(?<![\d.,{_GAP}])(?<!\d )([1-9]\d{{0,2}})((?:,\d{{3}})+|(?:{_GAP}\s*\d{{3}})+|(?: \d{{3}})+|(?:'\d{{3}})+)"
    rf"(?![\d,]?\d|[ {_GAP}]\d|/)"
)
_SPACED_LETTER: Final = re.compile(r"(?<=[\d}])(?: \\text ?\{ ?([KM]) ?\}|\\text ?\{ ([KM]) ?\})")
_LETTER_UNITS: Final = {"K": "kelvin", "M": "molar"}
"""With a space before them, as units have one. 5K and 5M may be thousands and millions (units.py)."""
_OLD_UPRIGHT: Final = re.compile(r"\{\s*\\rm(?![A-Za-z])\s*([^{}]*)\}|\\rm\s*\{([^{}]*)\}")
"""{\\rm K} is \\mathrm{K} in the LaTeX of old."""
_UPRIGHT_LETTER: Final = re.compile(r"(?<=[\d}])\\mathrm\s*\{\s*([KM])\s*\}(?!(?:\s|\\[,;: ]|~)*\\text)")
"""A unit, too: \\mathrm is the font of units, \\text that of words. Small k is a thousand in both."""
_INDIAN: Final = re.compile(
    r"((?:\\text\s*\{[^{}\d]*\}|Rs\.?|INR|\\[$(,]|[$₹\s~])*-?)([1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?)"
    r"((?:\\text\s*\{[^{}\d]*\}|\\[),]|[A-Za-z.$\s~])*)"
)
"""1,00,000 with a currency or a unit."""
_LIST_COMMA: Final = re.compile(rf",[\s{_GAP}]|;")
_BARE_FRAC: Final = re.compile(r"\\frac\s*(\{[^{}]*\}|\d|[A-Za-z])\s*(\{[^{}]*\}|\d|[A-Za-z])")
_BARE_SQRT: Final = re.compile(r"\\sqrt\s*(\d|[A-Za-z])")
_BARE_POWER: Final = re.compile(r"([\^_])\s*(\d+|[A-Za-z])(?![A-Za-z])")
"""Read 2^10 as 1024, as people mean it, and not as 2^{1}0, as LaTeX prints it."""
_LOOSE_BRACES: Final = re.compile(r"(?<![\w}\]^_])\{([^{}\\]*)\}")
_OVER: Final = re.compile(r"\{([^{}]*?)\\over(?![A-Za-z])([^{}]*)\}")
_MIXED: Final = re.compile(
    r"(?<![\d.A-Za-z}^_{)])(\d+)\s*(?:\\frac\{(\d+)\}\{(\d+)\}|(?<=\s)(\d{1,2})/(\d+))(?![\d.]|\s*/)"
)
_REPEATING: Final = re.compile(
    r"(\d*)\.(\d*)(?:\\(?:overline|bar)\s*\{(\d+)\}|\\(?:overline|bar)\s*(\d)|\((\d+)\)"
    r"|((?:\\dot\s*\{?\d\}?\d*)+))(?![\d\\])"
)
_CONTINUED: Final = re.compile(
    r"(?<![\d.])(\d*)\.(?:(\d*?)(?:(\d)\3{2,}|(\d{2,9}?)\4{2,})|(\d{2,9}?)\5+)\s*(?:\.{3}|\\dots)\s*\Z"
)
"""0.333… and 0.1212…: what is written three times, or twice from the point on, goes on so (2.718281828… does not)."""
_TEXT: Final = re.compile(r"\\text\s*\{([^{}]*)\}")
_UPRIGHT: Final = re.compile(r"\\text\s*\{(?:[^{}]|\^\{-?\d+\})*\}")
_UPRIGHT_POWER: Final = re.compile(r"\^\{(-?\d+)\}")
"""Of a unit in one piece: \\mathrm{cm^2} stays a text without braces in it."""
_UPRIGHT_FRACTION: Final = re.compile(
    r"(?:(?<=[\d)}])|(?<=[\d)}][ \u2009]))\\frac"
    r"\s*\{\\text\s*\{([^{}]*)\}(?:\^\{(\d)\})?\}"
    r"\s*\{\\text\s*\{([^{}]*)\}(?:\^\{(\d)\})?\}"
)
"""Of units behind a number."""
_RESTATED: Final = re.compile(
    r",?\s*(?:\\(?:text|mathrm|textrm|mbox)\s*\{[\s,]*)?"
    r"(?<![A-Za-z])(?:i\.\s?e\.|or,?(?: more| less)? [a-z]+ly\b)[\s,]*\}?\s*"
)
"""Words before the same value again."""
_TEXT_ALONE: Final = re.compile(r"\s*\\(?:text|textbf|mathrm|textrm|mbox)\s*\{([-+\d.,/ ]+)\}\s*")
_SPACE: Final = re.compile(r"\s+")
_LOOSE: Final = re.compile(r" ?([-+*/=<>^_(){}\[\],;|!&]) ?")
_QUOTED: Final = re.compile(r"\s*[\"“]([^\"“”]*)[\"”]\s*\.?\s*")
_NEGATIVE: Final = re.compile(
    r"\A\s*(?:\\(?:text|mathrm)\s*\{)?\s*(?:negative|minus)\s+\}?\s*(?=[\d.\\$])", re.IGNORECASE
)
_UNION: Final = re.compile(r"(,[^()\[\],]*[)\]]\s*)U(?=\s*[(\[][^()\[\],]*,)")
"""A capital letter between two intervals."""
_CURRENCY_CODE: Final = re.compile(r"(?<![A-Za-z{\\])(?:(USD|EUR|GBP)\s*(?=[-\d])|US(?=\\?\$))")
"""Before an amount: USD 5, US$5."""
_CURRENCY: Final = {"€": "eur", "£": "gbp", "¥": "yen", "₹": "rupee", "¢": "cent"}


@functools.lru_cache(maxsize=8192)
def spell(text: str) -> str:
    """Returns the answer in the spelling that `parse.read` expects. Returns "" if nothing is left."""
    if text.isdecimal() and text.isascii():
        return text
    if quoted := _QUOTED.fullmatch(text):
        text = quoted[1]
    text = _SMALL.sub(_small, text).translate(_LOOKALIKES)
    if whole := _TEXT_ALONE.fullmatch(text):
        text = whole[1]
    text = _RESTATED.sub(r" \\text{ or } ", _LOOKS.sub("", text))
    text = _UNION.sub(r"\1\\cup ", _NEGATIVE.sub("-", text))
    if any(sign in text for sign in _ROOTS):
        text = re.sub(
            r"([√∛∜])\s*(?:\{([^{}]*)\}|\(([^()]*)\)|(\d+|[A-Za-z]))",
            lambda m: f"\\sqrt{_ROOTS[m[1]]}{{{m[2] or m[3] or m[4]}}}",
            text,
        )
    text = _CURRENCY_CODE.sub(lambda m: f"\\text{{{m[1].lower()}}}" if m[1] else "", text)
    for sign, name in _CURRENCY.items():
        text = text.replace(sign, f"\\text{{{name}}}")
    text = _without_delimiters(text)
    text = re.sub(r"\\\\(?=(?:d?frac|sqrt|pi|cdot|times|text|left|right|infty)(?![A-Za-z]))", r"\\", text)
    text = _ROOT.sub(r"\\sqrt{\1}", _ASCII.sub(r"\\\1", text))
    text = re.sub(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\cdot ", text)
    text = _OLD_UPRIGHT.sub(lambda m: f"\\mathrm{{{m[1] or m[2]}}}", text)
    text = _COMMAND.sub(_command, _UPRIGHT_LETTER.sub(r"\\text{ \1}", text))
    text = re.sub(r"\\\\(?:\[[^\]]*\])?", "\\\\newline ", text)
    text = (
        text.replace("\\{", "\\lbrace ")
        .replace("\\}", "\\rbrace ")
        .replace("\\lbrack", "[")
        .replace("\\rbrack", "]")
    )
    text = (
        _NOTHING.sub("", text)
        .replace("{,}", ",")
        .replace("{:}", ":")
        .replace("\\%", "%")
        .replace("\\_", "_")
        .replace("\\&", " and ")
    )
    text = _GAP_COMMAND.sub(_GAP, text)
    text = re.sub(r"\+\s?/\s?-|\+-(?=\s*[\d\\(])", "\\\\pm ", text)
    text = text.replace("<=", "\\le ").replace(">=", "\\ge ").replace("!=", "\\ne ").replace("==", "=")
    text = _ungrouped(text)
    text = text.replace("**", "^") if re.search(r"[\w)]\*\*[\w({-]", text) else text.strip("*_` ")
    text = text.replace("*", "\\cdot ")
    text = _structured(re.sub(r"(\\[A-Za-z]+)\s+(?=[{\[(^_])", r"\1", text))
    text = _SPACE.sub(" ", text.replace(_GAP, " "))
    text = _SPACED_LETTER.sub(lambda m: f"\\text{{{_LETTER_UNITS[m[1] or m[2]]}}}", text)
    text = _LOOSE.sub(r"\1", text)
    text = text.replace(" \\", "\\")
    text = re.sub(r"(\\[A-Za-z]+) (?![A-Za-z])", r"\1", text).strip()
    text = text.replace("...", "\\dots ").removesuffix("\\newline").rstrip()
    while text[-1:] in (".", ",", ";", ":", "\\"):  # of "\\ " at the end the blank is gone
        text = text[:-1].rstrip()
    return _unwrapped(text)


def ungrouped_indian(text: str) -> str | None:
    """Returns an answer such as 12,34,567 as the number 1234567. Returns None if it has no lakhs and crores.

    It may be a list, too, so both readings are compared.
    """
    found = _INDIAN.fullmatch(text.replace("{,}", ","))
    return found[1] + found[2].replace(",", "") + found[3] if found else None


def _small(match: re.Match[str]) -> str:
    if match["top"]:
        return f"\\frac{{{match['top'].translate(_DIGITS['^'])}}}{{{match['below'].translate(_DIGITS['_'])}}}"
    sign = "^" if match["raised"] else "_"
    return f"{sign}{{{match[0].translate(_DIGITS[sign])}}}"


def _without_delimiters(text: str) -> str:
    """Without the signs that begin and end formulas; a dollar sign that is money becomes \\text{usd}."""
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text.replace("\\$", "\\text{usd}"))
    if text.count("$") % 2:
        text = re.sub(r"\$(?=\s*[-+]?[\d.])", r"\\text{usd}", text, count=1)
    return text.replace("$", " ")


def _command(match: re.Match[str]) -> str:
    name = match[1]
    if name in _DROPPED:
        return ""
    if name in _SPACES:
        return _GAP + " "
    if name == "degree":
        return "^\\circ "
    if name in ("lvert", "rvert", "vert", "mid", "lVert", "rVert"):
        return "|"
    if name in ("lbrace", "rbrace"):
        return f"\\{name} "
    if name in ("lparen", "rparen"):
        return "(" if name[0] == "l" else ")"
    if name in ("lt", "gt"):
        return "<" if name == "lt" else ">"
    if name in ("arcsin", "arccos", "arctan"):
        return f"\\{name} "
    if name == "colon":
        return ":"
    if name == "div":
        return "/"
    if name == "mathbb":
        return "\\mathbb"
    return f"\\{_NAMES.get(name, name)} "


def _ungrouped(text: str) -> str:
    """Join digits in groups of three to one number."""
    bracketed = text.lstrip().startswith(("(", "[", "\\lbrace"))
    if bracketed and not _LIST_COMMA.search(text):
        marked = text
        parts = re.split(r"(,)", marked)
        return "".join(p if p == "," else _GROUPS.sub(_joined, p) for p in parts)
    return _GROUPS.sub(_joined, text)


def _joined(match: re.Match[str]) -> str:
    return match[1] + re.sub(r"\D", "", match[2])


def _structured(text: str) -> str:
    text = _OVER.sub(r"\\frac{\1}{\2}", text)
    text = text.replace("^{\\circ }", "^\\circ ").replace("^{\\circ}", "^\\circ ").replace("{}^", "^")
    text = re.sub(r"\\mathbb\s*\{?([A-Z])\}?", r"\\\1 ", text)
    text = _BARE_FRAC.sub(
        lambda m: f"\\frac{{{m[1].strip('{}').strip()}}}{{{m[2].strip('{}').strip()}}}", text
    )
    text = _BARE_SQRT.sub(r"\\sqrt{\1}", text)
    text = _REPEATING.sub(_repeated, _CONTINUED.sub(_continued, text))
    text = _MIXED.sub(_mixed, text)
    text = _LOOSE_BRACES.sub(r"\1", _BARE_POWER.sub(r"\1{\2}", text))
    text = _UPRIGHT.sub(lambda m: _UPRIGHT_POWER.sub(r"^\1", m[0]), text)
    return _UPRIGHT_FRACTION.sub(_in_one_piece, text)


def _in_one_piece(match: re.Match[str]) -> str:
    top, power, below, below_power = match.groups()
    return f"\\text{{{top}{f'^{power}' if power else ''}/{below}{f'^{below_power}' if below_power else ''}}}"


def _mixed(match: re.Match[str]) -> str:
    top, below = match[2] or match[4], match[3] or match[5]
    if int(top[:9]) >= int(below[:9]) or len(top) > 9 or len(below) > 9:
        return match[0] if match[2] else f"{match[1]}?{top}/{below}"
    return f"({match[1]}+\\frac{{{top}}}{{{below}}})"


def _continued(match: re.Match[str]) -> str:
    return f"{match[1]}.{match[2] or ''}({match[3] or match[4] or match[5]})"


def _repeated(match: re.Match[str]) -> str:
    whole, fixed = match[1], match[2]
    period = match[3] or match[4] or match[5]
    if period is None:  # a dot over the first and the last digit, or over the only one
        period = re.sub(r"\D", "", match[6])
        dots = match[6].count("\\dot")
        if dots > 2 or not re.search(r"\\dot\s*\{?\d\}?\Z", match[6]):
            return match[0]
        if dots == 2 and len(period) < 2:
            return match[0]
    if len(whole + fixed + period) > 40:
        return match[0]
    top = int(whole + fixed + period) - int(whole + fixed or "0")
    return f"\\frac{{{top}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"


_NUMBERISH: Final = re.compile(r"[-+]?[\d.,/ ]*\d[\d.,/ ]*|\([A-Za-z]\)|[^A-Za-z]*|[eidxyzn]")
"""What is the same upright: numbers, e, i, dx. Other single letters may be units."""


def _unwrapped(text: str) -> str:
    """Without \\text{…} around a number or a single letter, and braces around the whole."""
    text = _TEXT.sub(lambda m: m[1].strip() if _NUMBERISH.fullmatch(m[1].strip()) else m[0], text)
    if (whole := _TEXT.fullmatch(text)) and re.search(r"[\d,:]|^\s*\w\s*$|\b(?:and|or)\b", whole[1]):
        text = whole[1].strip()
    while text.startswith("{") and text.endswith("}") and _closes(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _closes(text: str) -> int:
    """Returns where the bracket at the text's beginning is closed; -1 if it is not."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return place
    return -1
