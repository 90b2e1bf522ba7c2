r"""The choice verifier: the answer is a letter, or with `options` the text of one of them.

    "B", options ["the nucleus", "the mitochondrion"]: "\\boxed{\\text{the mitochondrion}}"  -> correct
    "C", four options: "Answer: I am sure it is C"                                        -> correct

- "B", "(B)", "B) Paris", "\\text{B}", "**B**" and "Option B" are all B; lower case letters are not choices, since "a"
  is a word. With options, a letter after the last option's is not a choice.
- The full text of an option stands for its letter. A letter with the text of another option is unparseable.
- With options that are formulas a formula equal to one of them stands for its letter.
- Without a box or an <answer> tag the last "answer is B" counts, else the letter at the end ("so it is B"), else a text
  that is a choice by itself. "A" and "I" before another word are words; "A is wrong" does not say A.
- Two letters, as in "A or B", are no answer: unparseable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from hubkit.verifiers.base import (
    SHOWN,
    Asked,
    RowCell,
    RowSettings,
    Task,
    Verdict,
    Verifier,
    list_of,
    verdict,
)
from hubkit.verifiers.compare import equal
from hubkit.verifiers.extract import answer_in, key_of
from hubkit.verifiers.forms import Words
from hubkit.verifiers.options import choice_letter, choices, listed, shown
from hubkit.verifiers.parse import read
from hubkit.verifiers.plain import Inline
from hubkit.verifiers.spelling import spell

__all__ = ["Choice"]

_WRAPPER: Final = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathsf|boldsymbol|bm|emph|underline|mbox|fbox|boxed)\s*\{([^{}]*)\}"
)
_LETTER: Final = re.compile(
    r"(?:(?i:option|choice|answer)\s*:?\s*)?[\s(\[*_]*([A-Z])[\s*_]*(?:\Z|[).:\],/&*_}-]|(?:or|and)\b|(?=\s))(.*)",
    re.DOTALL,
)
_SECOND: Final = re.compile(
    r"[\s).*}\],$]*(?:,|/|&|or\b|and\b|\+)?(?:\s+(?:or|maybe|perhaps|possibly|probably|likely|also|even|else"
    r"|option|choice|answer|the)\b)*[\s(*\[$]*[A-Z](?![A-Za-z'])"
)
_DENIED: Final = re.compile(
    r"[\s).:\]*_}$-]*(?:(?:is|was|are)\s+)?(?:not\b|n't|wrong|incorrect|false|ruled out|out\b)|[\s).:\]*_}$]*isn't",
    re.IGNORECASE,
)
"""Text after a letter that rejects it: "A is wrong", "B. Incorrect"."""
_OTHER_LINE: Final = re.compile(r"\n[\s>*(\[-]*[A-Z][).:\]]")
_WORD_AFTER: Final = re.compile(r"[ \t]+(?!(?:because|since|as|due|for|which|with|is|and|or|by)\b)[A-Za-z]")
_ANSWER_IS: Final = re.compile(
    r"(?:(?i:answer|choice|option)|(?:答案|选项?)(?:是|为|选)?：?)(?i:\s+is)?(?i:\s+(?:option|choice|letter))?[\s:*_\"'$(\[]{0,8}(?:\\text(?:bf)?\{)?\(?([A-Z])(?![A-Za-z'])"
)
_STATED: Final = re.compile(r"(?i:answer)(?i:\s+is)?[\s:*_]+([^\n]+?)[.\s*_]*$", re.MULTILINE)
_AT_THE_END: Final = re.compile(
    r"(?:\b(?:is|be|think|say|guess|with|choose|pick|select|chose|picked|selected|option|choice)\b|[:=→])[\s*_(\[$]*([A-Z])[)\]*_$]*[.!\s*]*\Z"
)


class Choice(Verifier):
    name = "choice"

    def columns(self, source: RowSettings) -> list[str]:
        return [source.options] if source.options else []

    def asked(
        self, source: RowSettings, problem: str, answer: RowCell, cells: Mapping[str, RowCell]
    ) -> Asked:
        """Options are put after problems that do not show them; the key becomes a letter if it is clear which."""
        if not source.options:
            return Asked(problem, choice_letter(answer, [], []), {})
        texts, labels = choices(cells[source.options])
        whole = problem if shown(problem, texts) else problem + listed(texts)
        letter = choice_letter(answer, texts, labels)
        if letter.strip() and not _choice(key_of(letter), texts):
            answer.refuse(
                f"{letter[:40]!r} is not the letter, the label or the text of one of {len(texts)} options",
                f"give the letter of the right option, A to {chr(ord('A') + len(texts) - 1)}",
            )
        return Asked(whole, letter, {source.options: texts})

    def as_written(self, problem: str, metadata: str) -> str:
        return problem.removesuffix(listed(_options(metadata)))

    def metadata(self, source: RowSettings, row: Mapping[str, Any], where: str) -> str:
        return self.checked({"options": row[source.options]}, where) if source.options else ""

    def checked(self, metadata: Mapping[str, Any], where: str) -> str:
        if "options" not in metadata:
            return ""
        options = [str(option) for option in list_of(metadata["options"], "options", where)]
        return json.dumps({"options": options}, ensure_ascii=False)

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        options = _options(problem["metadata"])
        key = _choice(key_of(problem["answer"]), options)
        if not key:
            return verdict("unparseable", "", f"the answer key {str(problem['answer'])[:40]!r} is no choice")
        found = _said(text, options)
        if not found:
            return verdict("unparseable", "", "no single choice found")
        return verdict("correct" if found == key else "wrong", found, f"choice {found}")


def _options(metadata: str) -> list[str]:
    return [str(option) for option in json.loads(metadata or "{}").get("options", [])]


def _said(text: str, options: list[str]) -> str:
    marked = answer_in(text) if re.search(r"boxed|fbox|<answer>|begin_of_box|####", text) else None
    if marked is not None:
        return _choice(marked.text, options)
    said = [
        match
        for match in _ANSWER_IS.finditer(text)
        if not _is_word(match[1], text[match.end(1) :]) and not _DENIED.match(text, match.end(1))
    ]
    if said:
        last = said[-1]
        return "" if _names_another(last[1], text[last.end(1) :]) else _in_range(last[1], options)
    if match := _AT_THE_END.search(text):
        return _in_range(match[1], options)
    stated = _STATED.findall(text)
    return _choice(stated[-1] if stated else text, options)


def _choice(text: str, options: list[str]) -> str:
    """Returns the letter that a short text stands for; "" if it is no single letter."""
    bare, folded = _bare(text), [_folded(option) for option in options]
    # The letter of an option comes before the text of another: B of ["C", "B", "A"] is the second.
    letter_alone = re.fullmatch("[A-Z]", bare) and _in_range(bare, options)
    if not letter_alone and (said := _folded(bare)) in folded:
        # If two options have the same text, it names neither.
        return chr(ord("A") + folded.index(said)) if folded.count(said) == 1 else ""
    match = _LETTER.match(bare)
    if match is None or _is_word(match[1], bare[match.end(1) :]):
        return _by_value(text, options)
    letter, rest = match[1], bare[match.end(1) :]
    if _names_another(letter, rest) or _DENIED.match(rest) or _OTHER_LINE.search(rest):
        return ""
    said = _folded(match[2].strip(" ).:]-*_"))
    if said in folded and folded.index(said) != ord(letter) - ord("A") and folded.count(said) == 1:
        return ""
    return _in_range(letter, options)


def _by_value(text: str, options: list[str]) -> str:
    """Returns the letter of the only option that is the same formula."""
    if not options or len(text) > SHOWN:
        return ""
    try:
        answer = read(spell(text))
        equal_ones = [
            index
            for index, option in enumerate(options)
            if not isinstance(answer, Words) and equal(answer, read(spell(option[:SHOWN])), Inline())
        ]
    except RecursionError:
        return ""
    return chr(ord("A") + equal_ones[0]) if len(equal_ones) == 1 else ""


def _names_another(letter: str, rest: str) -> bool:
    second = _SECOND.match(rest)
    if second is None:
        return False
    return second[0].strip(" ).*}],/&+or([and") != letter and not _is_word(
        second[0][-1], rest[second.end() :]
    )


def _in_range(letter: str, options: list[str]) -> str:
    return letter if not options or ord(letter) - ord("A") < len(options) else ""


def _is_word(letter: str, after: str) -> bool:
    return letter in "AI" and bool(_WORD_AFTER.match(after))


def _bare(text: str) -> str:
    """Returns the text without LaTeX and Markdown around the words."""
    text = re.sub(r"\\[,;:! ]|~|\\q?quad|\\\(|\\\)|\\\[|\\\]", " ", text)
    while (plain := _WRAPPER.sub(r"\1", text)) != text:
        text = plain
    return text.strip(" \t\n$*_`\"'{}").strip()


def _folded(text: str) -> str:
    return " ".join(_bare(text).split()).lower().rstrip(".")
