"""The exact verifier: the same text, case included.

White space around it and dollar signs are ignored. The answer is the last box, else the last <answer>…</answer>, else
what follows "####", else the whole text. "1,000" equals "1000", and "1000.0" does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hubkit.verifiers.base import Task, Verdict, Verifier, verdict
from hubkit.verifiers.extract import key_of, marked_in

__all__ = ["Exact"]


class Exact(Verifier):
    name = "exact"

    def verify_inline(self, problem: Mapping[str, Any], text: str) -> Verdict | Task:
        marked = marked_in(text)
        answered = text if marked is None else marked
        same = _plain(answered) == _plain(key_of(problem["answer"]))
        return verdict("correct" if same else "wrong", answered, "compared as text")


def _plain(text: str) -> str:
    text = text.strip().strip("$").strip()
    return text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text) else text
