r"""Units beside numbers: "5 \\text{ cm}", "\\$18", "12 apples", "50\\%".

    split_unit("5 \\text{cm}^{2}") -> ("5", "cm^2")      split_unit("\\text{usd}18") -> ("18", "dollar")
    split_unit("50%") -> ("\\frac{50}{100}", "")         split_unit("5 \\text{million}") -> ("5\\cdot10^{6}", "")

A unit that only one of two answers has is ignored, since keys often lack it. Two different units make answers differ
("5 cm" is not "5 m", and not "0.05 m" either: nothing is converted), and so do two nouns ("4 boys", "4 girls").
"""

from __future__ import annotations

import re
from typing import Final

from hubkit.verifiers.words import number_in

__all__ = ["is_unit", "split_letter", "split_unit", "units_differ"]

_UNITS: Final = {
    "mm": "millimeter millimeters millimetre millimetres",
    "cm": "centimeter centimeters centimetre centimetres",
    "m": "meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres",
    "inch": "in inches",
    "foot": "ft feet",
    "yard": "yd yards",
    "mile": "mi miles",
    "mg": "milligram milligrams",
    "g": "gram grams",
    "kg": "kilogram kilograms",
    "ton": "tons tonne tonnes",
    "pound": "lb lbs pounds",
    "ounce": "oz ounces",
    "ml": "mL milliliter milliliters millilitre millilitres",
    "l": "L liter liters litre litres",
    "gallon": "gal gallons",
    "quart": "quarts",
    "pint": "pints",
    "cup": "cups",
    "second": "s sec secs seconds",
    "minute": "min mins minutes",
    "hour": "h hr hrs hours",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "yr yrs years",
    "dollar": "dollars usd USD",
    "cent": "cents",
    "euro": "euros eur EUR",
    "pound sterling": "gbp GBP",
    "rupee": "rupees rs INR",
    "yen": "JPY",
    "degree": "degrees",
    "radian": "rad radians",
    "°c": "°C celsius",
    "°f": "°F fahrenheit",
    "mph": "mi/h",
    "km/h": "kmh kph",
    "m/s": "",
    "m/s^2": "m/s²",
    "hz": "Hz hertz",
    "w": "W watt watts",
    "kw": "kW",
    "j": "J joule joules",
    "kj": "kJ",
    "n": "N newton newtons",
    "v": "V volt volts",
    "a": "A ampere amperes amp amps",
    "ohm": "ohms Omega",
    "kohm": "kilohm kilohms",
    "Mohm": "megohm megohms",
    "mol": "mole moles",
    "kelvin": "K kelvins",
    "molar": "M",
    "pa": "Pa",
}
_NAMES: Final = {other: name for name, others in _UNITS.items() for other in [name, *others.split()]}
_POWERS: Final = {
    name: value
    for names, value in {
        "hundred hundreds": "10^{2}",
        "thousand thousands k": "10^{3}",
        "lakh lakhs lac lacs": "10^{5}",
        "million millions mn mln": "10^{6}",
        "crore crores": "10^{7}",
        "billion billions bn bln": "10^{9}",
        "trillion trillions tn": "10^{12}",
        "dozen dozens": "12",
    }.items()
    for name in names.split()
}
"""Words that are part of the number. Only a small k is a thousand: K is kelvin."""
_PARTS: Final = re.compile(
    r"(?:hal(?:f|ves)|(?:third|fourth|quarter|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth|millionth)s?)"
    r"(?: of\b.*)?",
    re.IGNORECASE,
)
"""5 tenths are not 5, and "5 fifth graders" are."""
_MONEY: Final = re.compile(
    r"(?P<number>[-+]?[\d.]+) ?(?:\\text\{\s*)?(?P<power>[kKmMbB]|[mb]n|kelvin|molar)\s*\}?"
)
"""Behind a currency: \\$5k, \\$5M, and \\$5 \\text{ M}, whose letter spelling.py takes for a unit."""
_MONEY_POWERS: Final = {"k": "10^{3}", "m": "10^{6}", "b": "10^{9}"}
_MONEY_UNITS: Final = frozenset({"dollar", "cent", "euro", "pound sterling", "rupee", "yen"})
_UNSPACED: Final = re.compile(r".*\d\\text\{[KMB]\}", re.DOTALL)
"""5K may be five kelvin or five thousand, 5M five molar or five million, 5B five bytes or five billion. With a space
before it, as units have one, or in \\mathrm, the font of units, K and M are units (spelling.py)."""
_MANNER: Final = re.compile(
    r" (?:long|tall|wide|high|deep|thick|old|away|apart|each|altogether|total|in total)\Z"
)
"""12 inches long are 12 inches."""
_NO_UNITS: Final = re.compile(
    r"\b(?:or|and|not|no|more|less|fewer|than|at|least|most|about|approximately|to|from|over|minus|plus|times|negative|"
    r"remainder|base|pairs?|if|when|where|for|is|are|mod|half|quarters?|thirds?|squared|cubed|both|but|only|am|pm|"
    r"north|south|east|west|left|right|up|down|below|under|bce?|ad|hundreds?|thousands?|millions?|billions?|trillions?|"
    r"dozens?|score|gross|mil|lakhs?|lacs?|crores?|mn|mln|bn|bln|tn|(?-i:k)|factorial|pi|root|sqrt)\b",
    re.IGNORECASE,
)
_TRAILING: Final = re.compile(
    r"(?P<number>.*?[\d)}a-zA-Z])\s?(?P<unit>(?:\\text\{[^{}]*\}(?:\^\{-?\d\})?\s?[/\\cdot ]*)+)", re.DOTALL
)
_PLAIN_TRAILING: Final = re.compile(
    r"(?P<number>[-+]?(?:\d[\d.]*|\\frac\{\d+\}\{\d+\}|\(\d+\+\\frac\{\d+\}\{\d+\}\)|\d+/\d+)) ?"
    r"(?P<unit>(?:[A-Za-z]{2,}(?:/[A-Za-z]+)?|(?<= )[mgJNWVL]/(?:[a-z]{2,}|[shLK]))(?:\^\{\d\})?"
    r"(?: [A-Za-z]{2,}(?:\^\{\d\})?){0,4})"
)
_KNOWN_TRAILING: Final = re.compile(
    r"(?P<number>.*\S) (?P<unit>[A-Za-z]{2,}(?:/[A-Za-z]+)?(?:\^\{\d\})?)", re.DOTALL
)
_OHM: Final = re.compile(
    r"(?P<number>[-+]?\d[\d.]*(?:\\cdot10\^\{-?\d+\})?) ?(?:\\text\{\s*(?P<scale>[kM]?)\s*\})?\\Omega"
)
_LEADING: Final = re.compile(
    r"(?P<sign>[-+]?)\\text\{\s*(?P<unit>(?i:usd|eur|gbp|yen|rupee|rs\.?|us))\s*\}\s?(?P<number>[-+]?.*)"
)
_DEGREE: Final = re.compile(
    r"(?P<number>[^\\]*|\\frac\{.*\}|.*)\^\\circ ?(?P<scale>[CF]|\\text\{\s*[CF]\s*\})?"
)
_TRIGONOMETRY: Final = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_PER: Final = re.compile(r"\A([A-Za-z]+) ([A-Za-z]+)\^-(\d)\Z")
"""m s^-1 is m/s."""
_LETTER: Final = re.compile(r"(?P<number>.*[\d)}])(?: ?(?P<unit>[mgsJNWVL])| (?P<kelvin>K))")
_CASED: Final = re.compile(r"M[mgs]|[a-z]+[A-Z][A-Za-z]*|[A-Z]{1,2}[a-z]?[A-Z][a-z]")
"""Units whose capital letters tell milli from mega: mM, MHz. Words are compared in lower case."""
_IN_BRACKETS: Final = re.compile(
    r"(?P<number>[-+]?(?:\d[\d.]*|\\frac\{\d+\}\{\d+\}))\((?:\\text\{)?\s*(?P<unit>[A-Za-z]{2,})\s*\}?\)"
)
_ORDINAL: Final = re.compile(
    r"(?P<number>\d*(?:(?<!1)1(?=\D*st)|(?<!1)2(?=\D*nd)|(?<!1)3(?=\D*rd)|\d(?=\D*th)))"
    r"(?:\^\{)?(?:\\text\{)?\s*(?:st|nd|rd|th)\s*\}{0,2}"
)
_PERCENT: Final = re.compile(r"(?P<number>[^%]*)(?:%|\\text\{\s*(?:percent|per cent)\s*\}| percent)")


def split_unit(text: str) -> tuple[str, str]:
    """Returns (expression, unit) of a spelled answer; percent and "million" become part of the expression."""
    if text.isdecimal():
        return text, ""
    if (match := _LEADING.fullmatch(text)) and match["number"].strip():
        amount = match["number"].strip()
        if money := _MONEY.fullmatch(amount):
            amount = f"{money['number']}\\cdot{_MONEY_POWERS[money['power'][0].lower()]}"
        inner, other = split_unit(amount)
        unit = _unit(match["unit"])
        return (match["sign"] + inner, unit) if not other or other == unit else (text, "")
    if (match := _PERCENT.fullmatch(text)) and re.fullmatch(
        r"[-+]?(?:[\d./]+|\\frac\{\d+\}\{\d+\}|\(\d+\+\\frac\{\d+\}\{\d+\}\)) ?", match["number"]
    ):
        number = match["number"].strip()
        return (
            f"\\frac{{{number.lstrip('+')}}}{{100}}"
            if "/" not in number
            else f"\\frac{{1}}{{100}}({number})",
            "",
        )
    if match := _OHM.fullmatch(text):
        return match["number"], f"{match['scale'] or ''}ohm"
    if (match := _DEGREE.fullmatch(text)) and match["number"].strip() and not _TRIGONOMETRY.search(text):
        scale = re.sub(r"[^CF]", "", (match["scale"] or "").replace("\\text", ""))
        return match["number"].strip(), f"°{scale.lower()}" if scale else "degree"
    if (match := _IN_BRACKETS.fullmatch(text)) and match["unit"] in _NAMES:
        return match["number"], _unit(match["unit"])
    if match := _ORDINAL.fullmatch(text):
        return match["number"], ""
    for pattern in (_TRAILING, _PLAIN_TRAILING, _KNOWN_TRAILING):
        if match := pattern.fullmatch(text):
            number, words = match["number"].strip(), _words(match["unit"])
            first, _, rest = words.partition(" ")
            power = _POWERS.get(first if len(first) == 1 else first.lower())
            if first in ("K", "M", "B") and _counted(rest):
                power = _MONEY_POWERS[first.lower()]
            if power and re.fullmatch(r"[-+]?[\d.]+", number):
                if _NO_UNITS.search(rest):
                    return text, ""
                return f"{number}\\cdot{power}", _unit(rest)
            if not words or _NO_UNITS.search(words) or re.search(r"\d", re.sub(r"\^-?\d", "", words)):
                return text, ""
            if _PARTS.fullmatch(words) or number_in(words) is not None:
                return text, ""
            if pattern is _TRAILING and _UNSPACED.fullmatch(text):
                return number, f"~{_unit(words)}"
            if pattern is _KNOWN_TRAILING and not (_known(words) and re.search(r"\d|\\pi", number)):
                return text, ""
            if pattern is _PLAIN_TRAILING and not _known(words) and not re.search(r"[A-Za-z]{4,}", words):
                return text, ""  # "2 ab" is a product
            return number, _unit(words)
    return text, ""


def is_unit(word: str) -> bool:
    """Whether a word is a known unit."""
    return word in _NAMES


def split_letter(text: str) -> tuple[str, str]:
    """The same of an expression whose last letter may be a unit or a variable: 5 m. Without one the unit is ""."""
    match = _LETTER.fullmatch(text)
    return (match["number"], _NAMES[match["unit"] or match["kelvin"]]) if match else (text, "")


def _words(text: str) -> str:
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\^\{(-?\d)\}", r"^\1", text).replace("\\cdot", " ")
    text = re.sub(r"\s*([/^])\s*", r"\1", text)
    return " ".join(text.replace(".", " ").replace("(", " ").replace(")", " ").split())


def _known(words: str) -> bool:
    return all(re.split(r"[\^]", part)[0] in _NAMES for part in re.split(r"[ /]", words) if part)


def _counted(words: str) -> bool:
    """Whether words are what millions may be of: M people and M dollars are no molar, M HCl is, and K s is kelvin."""
    unit = _unit(words)
    return unit in _MONEY_UNITS or (unit.startswith("?") and words.islower() and not _known(words))


def _unit(words: str) -> str:
    """A known unit by one name: "square centimeters", "cm^2" and "sq cm" are one; others by their words after a "?"."""
    words = _PER.sub(
        lambda m: f"{m[1]}/{m[2]}" + (f"^{m[3]}" if m[3] != "1" else ""), " ".join(words.split())
    )
    words = _MANNER.sub("", words)
    if not words:
        return ""
    plain = words if words in _NAMES or _CASED.fullmatch(words) else words.lower()
    if plain in _NAMES:
        return _NAMES[plain]
    for word, power in (("square", "^2"), ("sq", "^2"), ("cubic", "^3")):
        if plain.startswith(word + " "):
            rest = _NAMES.get(plain[len(word) + 1 :])
            return rest + power if rest else f"?{plain}"
    if match := re.fullmatch(r"([A-Za-z°]+)\^(\d)", words):
        rest = _NAMES.get(match[1], _NAMES.get(match[1].lower()))
        return f"{rest}^{match[2]}" if rest else f"?{plain}"
    if match := re.fullmatch(r"([A-Za-z]+)(?:/| per | an? )([A-Za-z]+)", words):
        top, below = (_NAMES.get(part, _NAMES.get(part.lower())) for part in match.groups())
        if top and below:
            joined = f"{top}/{below}"
            return {"mile/hour": "mph", "km/hour": "km/h", "m/second": "m/s"}.get(joined, joined)
    return f"?{plain}"


def units_differ(one: str, other: str) -> bool:
    """Whether two answers are in different units; a missing one, and "units", differ from nothing.

    A unit after a "~" may be a part of the number, so that it differs from a missing one.
    """
    if "~" in (one[:1], other[:1]):
        return one.removeprefix("~") != other.removeprefix("~")
    if not one or not other or one == other:
        return False
    nouns = [set(unit.removeprefix("?").rstrip("s").split()) for unit in (one, other)]
    if any("unit" in noun for noun in nouns):
        return False
    if one[0] == other[0] == "?":
        return not (nouns[0] <= nouns[1] or nouns[1] <= nouns[0])
    return True
