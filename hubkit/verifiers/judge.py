"""The prompt for a judge model about an answer, and how its reply is read. No engine is called here.

The judge sees the problem, the known answer and what follows the thinking span, each between two lines with
a mark that no text can contain: it is a hash of those very texts. Control tokens of chat templates are broken
up in them, since template and text are one string to a tokenizer. This protects the form of the prompt only;
whether a judge can be persuaded depends on the judge.

`**Verdict:** correct.` on the last line is a verdict. Contradictory or truncated replies are "unjudged", and so not
correct.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hubkit.errors import InputError
from hubkit.verifiers.base import Task, Verdict, Verifier

__all__ = ["Judged", "Question", "fill", "no_verdict", "verdict_in"]

QUOTED: Final = 160
"""Characters of the judge's reply that a verdict keeps: the last before `Verdict:`, where it sums up."""


class Judged(Verifier):
    """Problems whose answers a language model judges. Only steps of a recipe have an engine for it."""

    name = "judge"

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        raise InputError("a judge decides in a recipe's own steps only", "see docs/verifiers.md")


class Question(NamedTuple):
    """A question for the judge. Its texts come from datasets and models, and may contain anything."""

    key: Any
    """The caller's name of the trace."""
    problem: str
    answer: str
    response: str


_PLACEHOLDER: Final = re.compile(r"\{(problem|answer|response)\}")
_TOKEN: Final = re.compile(r"[<\[](?=[^\s<>\[\]]{1,64}[>\]]|/?(?:problem|answer|response)\b)")
"""Where a control token (<|im_end|>, </s>, <｜User｜>, <end_of_turn>, [INST]) or anything that looks like one may
begin, or a line like those around a text."""


def fill(prompt: str, question: Question) -> str:
    """Returns the prompt with its texts inserted, in one pass: {answer} inside a text is not replaced."""
    texts = {
        name: _TOKEN.sub(lambda match: match[0] + " ", getattr(question, name))
        for name in ("problem", "answer", "response")
    }
    mark = _mark(texts)

    def fenced(match: re.Match[str]) -> str:
        return f"<{match[1]} {mark}>\n{texts[match[1]]}\n</{match[1]} {mark}>"

    return _PLACEHOLDER.sub(fenced, prompt)


def _mark(texts: dict[str, str]) -> str:
    """Returns 16 hex digits that occur in none of the texts, always the same for the same texts."""
    mark = json.dumps(texts)
    while True:
        mark = hashlib.sha256(mark.encode()).hexdigest()[:16]
        if not any(mark in text for text in texts.values()):
            return mark


_VERDICT: Final = re.compile(
    r"[\s*_`#>]*verdict[*_`]*\s*:[\s*_`]*(correct|incorrect)[\s*_`.]*", re.IGNORECASE
)


def verdict_in(reply: str) -> Verdict:
    """Returns the verdict on the last line of a judge's reply, without its thinking."""
    *before, last = reply.strip().split("\n")
    found = _VERDICT.fullmatch(last)
    others = filter(None, map(_VERDICT.fullmatch, before))
    if found is None or any(other[1].lower() != found[1].lower() for other in others):
        return no_verdict(_quote([*before, last]))
    correct = found[1].lower() == "correct"
    return Verdict("correct" if correct else "wrong", "", f"the judge: {_quote(before)}")


def no_verdict(why: str) -> Verdict:
    return Verdict("unjudged", "", f"the judge gave no verdict: {why}")


def _quote(lines: list[str]) -> str:
    """Returns the end of a reply, in one line."""
    text = "".join(c if c.isprintable() else " " for c in " ".join(" ".join(lines).split()))
    return f'"{text}"' if len(text) <= QUOTED else f'"…{text[-QUOTED:]}"'
