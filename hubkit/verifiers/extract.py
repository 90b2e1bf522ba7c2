r"""Finds the final answer in a text.

    answer_in("First \\boxed{84}, no: \\boxed{85}")              -> Answer("85", …)
    answer_in("So x = \\boxed{2} or x = \\boxed{3}")             -> Answer("2 \\text{ or } 3", …)
    answer_in("It costs $\\boxed{5}\\%$ more.")                  -> Answer("5\\%", …)
    answer_in("<answer>48480</answer>")                          -> Answer("48480", …)

Decided here:
- The last box counts, even if another answer stands after it. Boxes with nothing but "and", "or", commas, labels or
  "x =" between them are one answer. Other boxes in the same sentence make the answer several, too, unless a word
  between them takes the first one back or goes on from it ("no", "so", "hence", "=").
- Text beside a box may belong to the answer (beside.py).
- Spellings of the box: \\boxed {7}, \\boxed7, \\fbox{7}, a box in a box, and boxed with a lost backslash (\x08oxed).
- Without a box: the last <answer>…</answer>, then "#### 5", then what follows the last "answer is" or "Answer:", then a
  text of one line, then in the last sentence the only formula, the only bold part, what follows the only "is", or the
  only number. Otherwise there is none.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from hubkit.verifiers.beside import Box, with_surroundings

__all__ = ["Answer", "answer_in", "boxed", "key_of", "marked_in"]


class Answer(NamedTuple):
    text: str
    marked: bool
    """Whether it was in a box or a tag, and so has no other text around it."""


_OPEN: Final = re.compile(r"(?:\\|\x08)?(?:(?<=\\)boxed|(?<=\x08)oxed|(?<=\\)fbox|(?<=\\)framebox)\s*(\{?)")
_MARKS: Final = ("\\boxed", "\x08oxed", "\\fbox", "\\framebox")
_BRACE: Final = re.compile(r"\\.|[{}]", re.DOTALL)
_UNBRACED: Final = re.compile(r"\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}|-?[^\s$,;{}]+")
_TAG: Final = re.compile(
    r"(?:<answer>\s*(?:<\|begin_of_box\|>)?|<\|begin_of_box\|>)(.*?)(?:</answer>|<\|end_of_box\|>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
"""The second is GLM's."""
_HASHES: Final = re.compile(r"####[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_SAID: Final = re.compile(
    r"(?:(?:final answer|answer)(?:\s+is|\*{0,2}\s*:|\s*=)+|答案(?:\*{0,2}(?:是|为|：|:)){1,2})"
    r"[\s*:：}]*(?:(?:therefore|thus|then|hence|simply|just|exactly|indeed)\b[\s,:]*)?(?P<said>\S)",
    re.IGNORECASE,
)
_TAKEN_BACK: Final = re.compile(
    r"\b(?:not?|but|wait|actually|correct(?:ed|ion)?|instead|wrong|rather|mistake|hmm|i\.?e|that is|so|thus|hence"
    r"|therefore|gives?|giving|which|equals?|simplif\w+|(?:or )?equivalently|namely|final(?:ly)?|becomes|then|yields?"
    r"|approximately|about)\b|\\approx|≈|\\(?:R|r|Longr)ightarrow|\\implies|→",
    re.IGNORECASE,
)
_GOES_ON: Final = re.compile(r"=[$\s]*\Z")
_OF_ITS_OWN: Final = re.compile(
    r"(?:\$|\\\(|\\\[|[,;&]|\b[A-Za-z]{2,}\s)\s*\\?[A-Za-z]+(?:\([a-z]\))?(?:_\{?\w+\}?)?\s*=[$\s]*\Z"
)
"""An "=" before a box goes on from the box before it, but not in "as well as $x = "."""
_NO: Final = re.compile(r"\b(?:no|not|but|wait|so|then|final\w*|answer|correct\w*)\b", re.IGNORECASE)
_ONLY_JOINED: Final = re.compile(
    r"(?:[\s$,;.&*_~|]|-\s|\\[\[\](),;:! ]|\\q?quad|\\\\|\\text(?:bf)?\{\s*,?\s*(?:and|or)?,?\s*\}|\b(?:and|or)\b"
    r"|\(?\b[a-h1-9ivx]{1,3}[.)]\s|(?:\\?[A-Za-z]+(?:\([a-z]\))?(?:_\{?\w+\}?)?\s*(?:=|:|\\in|\\approx)\s*))*",
    re.IGNORECASE,
)
_SENTENCE_END: Final = re.compile(r"[.!?][\s$)\]*]*\s|\n|。")
_COMMANDS: Final = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+")
_WORDS: Final = re.compile(r"[A-Za-z]{2,}")
_PROSE: Final = re.compile(r"[A-Za-z]{2,}|[\u0400-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Words, and letters of scripts that formulas have none of."""
_REASON: Final = re.compile(r",?\s+(?:because|since)\b", re.IGNORECASE)
_FORMULA: Final = re.compile(
    r"(?<!\\)\$\$(.+?)(?<!\\)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
_DISPLAYED: Final = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]", re.DOTALL)
_NUMBERS: Final = re.compile(r"[-−]?\$?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?(?:/\d+)?\s?%?")


def boxed(text: str) -> str | None:
    """Content of the last \\boxed{…} with balanced braces. Returns None if there is none."""
    box = _last_box(text, len(text))
    return None if box is None else box.content


def marked_in(text: str) -> str | None:
    """Returns the content of the last box, else of the last tag, else the text after "####". Returns None if there is
    none of these."""
    if any(mark in text for mark in _MARKS):
        return boxed(text)
    found = _TAG.findall(text) or _HASHES.findall(text)
    return str(found[-1]).strip() if found else None


def key_of(answer: object) -> str:
    """Returns the known answer of a problem, without its boxes, tags or "####"."""
    text = str(answer).strip()
    if not any(mark in text for mark in (*_MARKS, "####", "<answer>", "<|begin_of_box|>")):
        return text
    found = answer_in(text)
    return text if found is None else found.text


def answer_in(text: str) -> Answer | None:
    """Returns the final answer in a text. Returns None if there is none, or if it is not clear which one."""
    end = len(text)
    if any(mark in text for mark in _MARKS):
        last = _last_box(text, end)
        return None if last is None else Answer(_boxes(text, last), True)
    if tags := _TAG.findall(text):
        content = tags[-1].strip()
        return (_said(content) if _SAID.search(content) else Answer(content, True)) if content else None
    hashes = _HASHES.findall(text)
    if hashes:
        return Answer(hashes[-1], True)
    return _said(text)


def _last_box(text: str, end: int) -> Box | None:
    """The last box that begins before `end`."""
    start = max(text.rfind(mark, 0, end) for mark in _MARKS)
    if start < 0:
        return None
    opened = _OPEN.match(text, start)
    if opened is None:
        return None
    if not opened[1]:
        bare = _UNBRACED.match(text, opened.end())
        content = bare[0].rstrip(".:") if bare else ""
        return Box(start, opened.end() + len(content), content) if content else None
    depth = 1
    for brace in _BRACE.finditer(text, opened.end()):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            # A box in a box: the outer one.
            outer = _last_box(text, start)
            if outer is not None and outer.end > start:
                return outer
            return Box(start, brace.end(), text[opened.end() : brace.start()])
    return None


def _boxes(text: str, last: Box) -> str:
    """The last box, and those before it that are one answer with it."""
    parts, box = [with_surroundings(text, last)], last
    while (before := _last_box(text, box.start)) is not None:
        between = text[before.end : box.start]
        if len(between) > 200:
            break
        joined = bool(_ONLY_JOINED.fullmatch(between)) and not _NO.search(between)
        goes_on = _GOES_ON.search(between) and not _OF_ITS_OWN.search(between)
        if not joined and (goes_on or _SENTENCE_END.search(between) or _TAKEN_BACK.search(between)):
            break
        part = with_surroundings(text, before)
        if joined and not re.search(r"\w|[,;&]", between) and part.strip() == parts[0].strip():
            break  # said twice
        parts.insert(0, part)
        box = before
    distinct = list(dict.fromkeys(part.strip() for part in parts))
    return " \\text{ or } ".join(distinct)


def _said(text: str) -> Answer | None:
    said, place = -1, 0
    while match := _SAID.search(text, place):  # "the answer is 4. Wait, the answer is 5": the last one
        said = place = match.start("said")
    if said >= 0:
        first = _first_sentence(text[said:])
        if len(_WORDS.findall(_COMMANDS.sub("", first))) < 4:
            return Answer(first, True)
        return _stated(first)
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return None
    if len(lines) == 1 and not _PROSE.search(_COMMANDS.sub("", lines[0])):
        return Answer(lines[0], False)
    closing = text.strip()[-600:]
    formulas = list(_FORMULA.finditer(closing))
    parts = [part for part in _SENTENCE_END.split(lines[-1] + " ") if part.strip()]
    sentence = parts[-1] if parts else lines[-1]  # a line of punctuation alone
    if formulas and formulas[-1].end() > len(closing) - len(sentence) - 3:
        in_last = [match for match in formulas if match.end() > len(closing) - len(sentence) - 3]
        if len(in_last) == 1:
            return Answer(next(filter(None, in_last[0].groups())), False)
        return None
    if (stated := _stated(sentence)) is not None:
        return stated
    if len(lines) == 1 and len(lines[0]) <= 60 and not _NUMBERS.search(lines[0]):
        return Answer(lines[0], False)
    return None


def _stated(sentence: str) -> Answer | None:
    """The answer that a sentence states: its only bold part, what follows its only "is", or its only number."""
    bold = re.findall(r"\*\*([^*]+)\*\*", sentence)
    if len(bold) == 1 and len(_WORDS.findall(bold[0])) < 3:
        return Answer(bold[0].strip(), False)
    verbs = re.split(r"\s(?:is|are|equals)\s", sentence)
    if len(verbs) == 2 and len(_WORDS.findall(_COMMANDS.sub("", verbs[1]))) < 3:
        return Answer(re.sub(r"^(?:an?|the)\s", "", verbs[1].strip().strip("*.").strip()), False)
    last = sentence.rpartition("=")[2]
    numbers = _NUMBERS.findall(last)
    if len(numbers) == 1 and "$" not in last.replace("\\$", "").replace(numbers[0], ""):
        return Answer(numbers[0].strip(), False)
    return None


def _first_sentence(said: str) -> str:
    """Of a text that begins with an answer: the formula, or words as far as a reason or the end of the sentence."""
    line = said.partition("\n")[0]
    formula = _FORMULA.match(line) or _DISPLAYED.match(said)
    if formula and not re.match(r"\s*(?:\\?%|,?\s*(?:and|or)\b|[,^])", said[formula.end() :]):
        return str(next(filter(None, formula.groups())))
    said = _REASON.split(line)[0]
    end = re.search(r"(?<!\bi\.e)[.!?](?=\s|\*|\Z)(?!\d)|。", said)
    return said[: end.start() if end else len(said)].strip().strip("*").strip()
