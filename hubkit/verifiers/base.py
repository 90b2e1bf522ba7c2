"""The verifiers: what is right is decided here, or handed to a worker process as a Task.

    settle({"answer": "\\\\frac{1}{2}", "verifier": "math", …}, "So it is \\\\boxed{\\\\dfrac12}.")
    -> Task("math", …): sympy has to look at it, in a process that can be killed
    settle({"answer": "85", "verifier": "math", …}, "… \\\\boxed{84}")  -> Verdict("wrong", "84", …), at once

Common to all but `code`: the last \\\\boxed{…} counts where there is one, even if another answer stands in
the text; a box that says the same as the answer is correct, whatever the verifier. Each verifier's
function says how it settles its own doubtful cases. To add one: a function here that returns a Verdict
(or a Task, and a case in `decide`), and its name in `config.py`.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from hubkit.errors import InputError

__all__ = ["Status", "Task", "Verdict", "boxed", "decide", "settle"]

Status = Literal["correct", "wrong", "unparseable", "timeout", "unjudged"]
SHOWN: Final = 200
"""Characters of an extracted answer that a verdict keeps."""


class Verdict(NamedTuple):
    """A verifier's judgement: what it saw as the answer, and why it judged so."""

    status: Status
    extracted: str
    reason: str


class Task(NamedTuple):
    """What a worker process has to judge: only the text that matters, so that little travels."""

    verifier: str
    answer: str
    text: str
    source: str = ""
    metadata: str = ""


class Box(NamedTuple):
    """The last \\boxed{…} of a text."""

    content: str
    alone: bool
    """Nothing stands beside it that is part of the answer: a sign, a unit, a percent sign, another box."""


def settle(problem: Mapping[str, Any], text: str) -> Verdict | Task:
    """Judge by the verifier that a problem names, as far as this process can do it safely.

    Raises InputError for an unknown verifier.
    """
    answer, verifier = str(problem["answer"]).strip(), problem["verifier"]
    if (key := boxed(answer)) is not None:
        answer = key.strip()
    if verifier == "code":
        return Task(verifier, "", text, metadata=problem["metadata"])
    box = _last_box(text)
    if verifier == "math":
        from hubkit.verifiers.math import settle_math

        return settle_math(answer, text, box)
    if box and box.content.strip() == answer:
        return _verdict("correct", answer, "equal to the answer")
    answered = text if box is None else box.content
    match verifier:
        case "exact":
            return _exact(answer, answered)
        case "choice":
            return _choice(answer, answered, box is not None, problem["metadata"])
        case "numeric":
            return _numeric(answer, answered, box is not None, problem["metadata"])
        case "reasoning-gym":
            return Task(verifier, answer, answered, problem["source"], problem["metadata"])
        case "judge":
            raise InputError("a judge decides in a recipe's own steps only", "see docs/verifiers.md")
        case other:
            raise InputError(
                f"no verifier is called {other!r}", "use math, exact, choice, numeric, code or judge"
            )


def decide(task: Task) -> Verdict:
    """Do what `settle` left over. Called on the main thread of a worker process."""
    match task.verifier:
        case "math":
            from hubkit.verifiers.math import judge_math

            return judge_math(task.answer, task.text)
        case "code":
            from hubkit.verifiers.code import judge_code

            return judge_code(task.text, task.metadata)
        case _:
            return _reasoning_gym(task)


def boxed(text: str) -> str | None:
    """Content of the last \\boxed{…} with balanced braces, or None."""
    box = _last_box(text)
    return None if box is None else box.content


_BRACE: Final = re.compile(r"[{}]")
_AFTER: Final = re.compile(r"\s*(?:[.,;:!?*)\]$]|\\[\])]|\Z)|\s+[A-Za-z(]|\n")
_BEFORE: Final = re.compile(r"(?:\A|[\n=:$*.,(]|[A-Za-z] |\\[\[(])\s*\Z")
_JOINED: Final = re.compile(r"\}[\s$]*(?:and|or|,)[\s$]*\Z")


def _last_box(text: str) -> Box | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for brace in _BRACE.finditer(text, begin):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            before = text[max(0, start - 20) : start]
            alone = _AFTER.match(text, brace.end()) and _BEFORE.search(before) and not _JOINED.search(before)
            return Box(text[begin : brace.start()], bool(alone))
    return None


def _verdict(status: Status, extracted: str, reason: str) -> Verdict:
    return Verdict(status, extracted.strip()[:SHOWN], reason)


def _exact(answer: str, answered: str) -> Verdict:
    """Letter for letter, apart from white space around it and dollar signs; case counts.

    Without a box the whole text is the answer. "1,000" equals "1000", and "1000.0" does not.
    """

    def plain(text: str) -> str:
        text = text.strip().strip("$").strip()
        return text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text) else text

    same = plain(answered) == plain(answer)
    return _verdict("correct" if same else "wrong", answered, "compared as text")


_LETTER: Final = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf)\{)?[\s(*]*([A-Z])(?=\s*(?:[).:*},/&]|\Z|(?:or|and)\b))"
)
_SECOND: Final = re.compile(r"[\s).*}]*(?:,|/|&|or\b|and\b)[\s(*]*[A-Z](?![A-Za-z])")
_ANSWER_IS: Final = re.compile(
    r"(?i:answer|choice|option)(?i:\s+is)?\W{0,6}(?:\\text\{)?\(?([A-Z])(?![A-Za-z'])"
)


def _choice(answer: str, answered: str, in_box: bool, metadata: str) -> Verdict:
    """Multiple choice: the answer is a letter, or with `options` the text of one of them.

    "B", "(B)", "B) Paris", "\\text{B}" and "**B**" are all B; lower case letters are not choices, since "a"
    is a word. Without a box the last "answer is B" counts, else a text that is a choice by itself. The
    full text of an option stands for its letter. Two letters, as in "A or B", are no answer: unparseable.
    """
    options = [" ".join(str(o).split()).lower() for o in json.loads(metadata or "{}").get("options", [])]

    def letter(text: str) -> str:
        text = text.strip().strip("$").strip()
        if (folded := " ".join(text.split()).lower()) in options:
            return chr(ord("A") + options.index(folded))
        match = _LETTER.match(text)
        return match[1] if match and not _SECOND.match(text, match.end()) else ""

    key = letter(answer)
    if not key:
        return _verdict("unparseable", "", f"the answer key {answer[:40]!r} is no choice")
    said = [] if in_box else _ANSWER_IS.findall(answered)
    found = said[-1] if said else letter(answered)
    if not found:
        return _verdict("unparseable", answered if in_box else "", "no single choice found")
    return _verdict("correct" if found == key else "wrong", found, f"choice {found}")


_NUMBER: Final = re.compile(
    r"(?P<sign>[-+−]?)\s*(?:\\[dt]?frac\{\s*(?P<top>\d+(?:\.\d+)?)\s*\}\{\s*(?P<below>\d+(?:\.\d+)?)\s*\}"
    r"|(?P<whole>\d{1,3}(?:(?:,|\{,\})\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)(?:\s*/\s*(?P<under>\d+(?:\.\d+)?))?)"
    r"(?:[eE](?P<e>[-+]?\d{1,4})|\s*(?:\\times|\\cdot|×|\*)\s*10\^\{?(?P<ten>[-+]?\d{1,4})\}?)?"
)


def _numeric(answer: str, answered: str, in_box: bool, metadata: str) -> Verdict:
    """A number within a tolerance of the answer: relative to it, absolute where the answer is 0.

    The first number of a box counts, or the last of a text without one; so units after it, a currency
    before it and "x =" do not matter, and "5 km" equals "5 m": use math where units decide. A percent
    sign is dropped on both sides: "50%" equals "50", not "0.5". 1,234.5, 1.2e-3, 1.2 \\times 10^{-3}, 3/4
    and \\frac{3}{4} are read; "1,5" is 1.
    """
    tolerance = float(json.loads(metadata or "{}").get("tolerance", 1e-6))
    key = _read_number(_NUMBER.search(answer))
    if key is None:
        return _verdict("unparseable", "", f"the answer key {answer[:40]!r} is no number")
    matches = list(_NUMBER.finditer(answered))
    match = matches[0 if in_box else -1] if matches else None
    value = _read_number(match)
    if match is None or value is None:
        return _verdict("unparseable", "", "no number found")
    near = math.isclose(value, key, rel_tol=0.0, abs_tol=tolerance * (abs(key) or 1.0))
    return _verdict(
        "correct" if near else "wrong", match[0], f"{value:g} against {key:g}, tolerance {tolerance:g}"
    )


def _read_number(match: re.Match[str] | None) -> float | None:
    """The value of a match of _NUMBER; None where it is too large, or divides by zero."""
    if match is None:
        return None
    try:
        top = float((match["top"] or match["whole"]).replace("{,}", "").replace(",", ""))
        value = top / float(match["below"] or match["under"] or 1)
        value *= 10.0 ** int(match["e"] or match["ten"] or 0)
    except (OverflowError, ZeroDivisionError):
        return None
    return None if math.isinf(value) else -value if match["sign"] in ("-", "−") else value


def _reasoning_gym(task: Task) -> Verdict:
    """reasoning-gym's own scorer for the problem's task; only a full score is correct.

    A partial score (some scorers give 0.01 for any answer, 0.5 for a right one in the wrong form) is
    wrong, and named in the reason.
    """
    scorer, entry = _scorer(task.source), json.loads(task.metadata)
    extracted = task.text.strip()
    if not extracted:
        return _verdict("unparseable", "", "no answer found in the text")
    try:
        score = float(scorer(extracted, entry))
    except Exception as error:  # scorers parse free text each in their own way
        return _verdict("unparseable", extracted, f"scorer: {type(error).__name__}")
    if score == 1.0:
        return _verdict("correct", extracted, "full score by reasoning-gym")
    return _verdict("wrong", extracted, f"reasoning-gym score {score:g}")


@functools.lru_cache(maxsize=64)
def _scorer(source: str) -> Any:
    import reasoning_gym

    try:
        return reasoning_gym.get_score_answer_fn(source.split("/")[-1])
    except ValueError as error:
        raise InputError(
            f"reasoning-gym has no scorer for {source!r}", "check the problems' source"
        ) from error
