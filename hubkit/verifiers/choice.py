"""The choice verifier: the answer is a letter, or with `options` the text of one of them.

"B", "(B)", "B) Paris", "\\text{B}" and "**B**" are all B; lower case letters are not choices, since "a" is a word.
Without a box the last "answer is B" counts, else a text that is a choice by itself. The full text of an option
stands for its letter. Two letters, as in "A or B", are no answer: unparseable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from hubkit.verifiers.base import RowSettings, Task, Verdict, Verifier, list_of, verdict
from hubkit.verifiers.boxes import boxed, key_of

__all__ = ["Choice"]


class Choice(Verifier):
    name = "choice"

    def columns(self, source: RowSettings) -> list[str]:
        return [source.options] if source.options else []

    def metadata(self, source: RowSettings, row: Mapping[str, Any], where: str) -> str:
        return self.checked({"options": row[source.options]}, where) if source.options else ""

    def checked(self, metadata: Mapping[str, Any], where: str) -> str:
        if "options" not in metadata:
            return ""
        return json.dumps({"options": list_of(metadata["options"], "options", where)}, ensure_ascii=False)

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        box, answer = boxed(text), key_of(problem["answer"])
        if box is not None and box.strip() == answer:
            return verdict("correct", answer, "equal to the answer")
        return _choice(answer, text if box is None else box, box is not None, problem["metadata"])


_LETTER: Final = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf)\{)?[\s(*]*([A-Z])(?=\s*(?:[).:*},/&]|\Z|(?:or|and)\b))"
)
_SECOND: Final = re.compile(r"[\s).*}]*(?:,|/|&|or\b|and\b)[\s(*]*[A-Z](?![A-Za-z])")
_ANSWER_IS: Final = re.compile(
    r"(?i:answer|choice|option)(?i:\s+is)?\W{0,6}(?:\\text\{)?\(?([A-Z])(?![A-Za-z'])"
)


def _choice(answer: str, answered: str, in_box: bool, metadata: str) -> Verdict:
    options = [" ".join(str(o).split()).lower() for o in json.loads(metadata or "{}").get("options", [])]

    def letter(text: str) -> str:
        text = text.strip().strip("$").strip()
        if (folded := " ".join(text.split()).lower()) in options:
            return chr(ord("A") + options.index(folded))
        match = _LETTER.match(text)
        return match[1] if match and not _SECOND.match(text, match.end()) else ""

    key = letter(answer)
    if not key:
        return verdict("unparseable", "", f"the answer key {answer[:40]!r} is no choice")
    said = [] if in_box else _ANSWER_IS.findall(answered)
    found = said[-1] if said else letter(answered)
    if not found:
        return verdict("unparseable", answered if in_box else "", "no single choice found")
    return verdict("correct" if found == key else "wrong", found, f"choice {found}")
