"""Options of choice problems in rows, and which answers stand for the letter of an option.

{"text": ["mouse", "crab"], "label": ["1", "2"]} -> ["mouse", "crab"], ["1", "2"]
answer "2" -> "B";  answer 1, which counts from 0 -> "B";  answer "crab" -> "crab"
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from hubkit.verifiers.base import RowCell

__all__ = ["choice_letter", "choices", "listed", "shown"]


_NAMED: Final = ("ABCDEFGHIJ", "abcdefghij", "0123456789", "123456789")


def choices(cell: RowCell) -> tuple[list[str], list[str]]:
    """Returns the texts and labels of the choices: a list of texts, {"text": […], "label": […]}, [{"text", "label"}, …]
    or {"A": …, "B": …}, also by small letters or numbers; labels are letters from A on where the data has none."""
    value = cell.value
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)  # lists of mixed kinds are often stored so in Parquet
        except ValueError as error:
            cell.refuse(f"options are not JSON: {error}", "see docs/verifiers.md")
    texts, labels = value, None
    if isinstance(value, Mapping) and value.keys() >= {"text", "label"}:
        texts, labels = value["text"], value["label"]
    elif isinstance(value, Mapping) and any(
        len(value) > 1 and name.startswith("".join(map(str, value))) for name in _NAMED
    ):
        texts, labels = list(value.values()), list(value)
    elif isinstance(value, list) and all(isinstance(v, Mapping) and "text" in v for v in value):
        texts = [v["text"] for v in value]
        labels = [v["label"] for v in value] if all("label" in v for v in value) else None
    if isinstance(texts, str) and texts:
        texts = [texts]
    if not isinstance(texts, list) or not 2 <= len(texts) <= 26:
        cell.refuse("the options are not a list of 2 to 26", "see docs/verifiers.md")
    if labels is not None and (not isinstance(labels, list) or len(labels) != len(texts)):
        cell.refuse(f"{len(texts)} options have other labels", "give each option one label")
    said = [cell.holding(text).answer() for text in texts]
    return said, [str(label) for label in labels or _letters(len(said))]


def choice_letter(cell: RowCell, texts: Sequence[str], labels: Sequence[str]) -> str:
    """Returns the answer as the verifier `choice` reads it: the letter of a label or of a whole number, which counts
    from 0; any other text as it is. Raises InputError for a number that names no option, or may name two."""
    value, letters = cell.only, _letters(26)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # whole numbers beside missing ones are floats in many files
    if isinstance(value, int) and not isinstance(value, bool):
        if str(value) in labels:
            return letters[labels.index(str(value))]
        known = len(texts) or 26
        if not 0 <= value < known:
            cell.refuse(
                f"{value} is not an option: {known} options count from 0",
                "give the letter of the right option",
            )
        if str(value) in texts and texts[value] != str(value):
            cell.refuse(
                f"{value} may be the option {letters[value]} or the text of another",
                "give the letter of the right option",
            )
        return letters[value]
    answer = cell.answer()
    if answer in labels:
        return letters[labels.index(answer)]
    if answer.strip().isdecimal() and answer.strip() not in texts:
        cell.refuse(
            f"{answer!r} is neither a label nor the text of an option", "give the letter of the right option"
        )
    return answer


def listed(texts: Sequence[str]) -> str:
    """Returns the options as they follow a problem that does not show them itself."""
    return "".join(f"\n{letter}. {text}" for letter, text in zip(_letters(26), texts, strict=False))


def shown(problem: str, texts: Sequence[str]) -> bool:
    """Whether a problem has its options in it: all of them in their order, as whole words."""
    end = len(problem)
    for text in reversed(texts):
        text = text.strip()
        while (end := problem.rfind(text, 0, end)) >= 0 and not _stands_alone(problem, end, end + len(text)):
            end += len(text) - 1
        if end < 0:
            return False
    return True


def _stands_alone(problem: str, start: int, end: int) -> bool:
    return not (problem[start - 1 : start].isalnum() or problem[end : end + 1].isalnum())


def _letters(number: int) -> list[str]:
    return [chr(ord("A") + index) for index in range(number)]
