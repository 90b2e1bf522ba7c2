"""Thinking spans in the forms that models write them, split from what follows.

    "<think>\\n47 + 38 …\\n</think>\\n\\nThe answer is 85."  ->  Thought("47 + 38 …", "The answer is 85.", "closed")

- `<think>` may be missing at the start: many templates open the span in the prompt.
- gpt-oss writes harmony channels: `<|channel|>analysis<|message|>…<|end|>…<|channel|>final<|message|>…`,
  or, with special tokens stripped, `analysis…assistantfinal…`. All but `final` is reasoning.
- Servers with a reasoning parser give the span in a field of its own, or there and in the text.
- A span that the length limit cut off has no solution: form "unclosed".
- A span with nothing in it, as models write with thinking turned off, is none.

Nothing but markup and blanks at the ends is lost, and a Thought written as a student is trained on it
(`records.messages_of`) splits into itself.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

__all__ = ["Thought", "split"]

OPEN: Final = "<think>"
CLOSE: Final = "</think>"
_TOKEN: Final = re.compile(r"<\|(start|channel|message|end|return|call|constrain)\|>")
_HEADER: Final = re.compile(r"\s*[\w.:-]*(?:\s+to=\S+)?\s*")
"""What stands between control tokens and is no text: a role, a channel's name, an addressee, `json`."""
_BARE_START: Final = re.compile(r"analysis(?=[^\s\w]*[A-Z0-9])|analysis(?=.*?assistant\s*final)", re.DOTALL)
"""`analysisWe need`: no English sentence begins so."""
_BARE_MARK: Final = re.compile(r"assistant\s*(analysis|commentary|final)")


class Thought(NamedTuple):
    reasoning: str
    solution: str
    form: Literal["closed", "unclosed", "none", "field"]


def split(text: str, reasoning: str | None = None) -> Thought:
    """Split a response; `reasoning` is the server's separate field, where there is one."""
    inner = _split(text)
    field = _without_tags(reasoning or "").strip()
    if not field:
        return inner
    both = field if inner.reasoning in field else f"{field}\n{inner.reasoning}"
    return Thought(both, inner.solution, "field")


def _split(text: str) -> Thought:
    text = text.strip()
    while True:
        if text.startswith(OPEN) or CLOSE in text[: _place(text, "<|channel|>")]:
            reasoning, closed, rest = text.removeprefix(OPEN).partition(CLOSE)
            reasoning, rest = reasoning.strip(), rest.strip()
            if closed and not reasoning:
                text = rest
                continue
            return Thought(reasoning, rest, "closed" if closed else "unclosed")
        parts = _harmony(text) if "<|channel|>" in text else _bare(text)
        if parts is None:
            return Thought("", text, "none")
        reasoning, rest = parts
        if reasoning:
            return Thought(reasoning, rest, "closed" if rest else "unclosed")
        text = rest


def _place(text: str, mark: str) -> int:
    place = text.find(mark)
    return len(text) if place < 0 else place


def _harmony(text: str) -> tuple[str, str]:
    """(reasoning, solution): the messages of all other channels, and those of `final`."""
    pieces: dict[bool, list[str]] = {True: [], False: []}
    final = False  # before the first channel: the template opened one
    kind = "message"
    position = 0
    while True:
        following = _TOKEN.search(text, position)
        body = text[position : following.start() if following else len(text)]
        if kind == "channel":
            final = body.split()[:1] == ["final"]
        header = kind in ("start", "channel", "constrain") and _HEADER.fullmatch(body)
        if not header and body.strip():
            pieces[final].append(body.strip())
        if following is None:
            break
        kind, position = following[1], following.end()
    return _without_tags("\n".join(pieces[False])).strip(), "\n".join(pieces[True])


def _bare(text: str) -> tuple[str, str] | None:
    """Harmony whose control tokens were stripped; None where it is none."""
    start = _BARE_START.match(text)
    if start is None:
        return None
    pieces: dict[bool, list[str]] = {True: [], False: []}
    final, position = False, start.end()
    for mark in [*_BARE_MARK.finditer(text, position), None]:
        body = text[position : mark.start() if mark else len(text)].strip()
        if body:
            pieces[final].append(body)
        if mark is not None:
            final, position = mark[1] == "final", mark.end()
            if final:  # the answer itself may well say "assistant final"
                pieces[True].append(text[position:].strip())
                break
    return "\n".join(pieces[False]), "\n".join(pieces[True]).strip()


def _without_tags(text: str) -> str:
    """Reasoning from elsewhere than between tags may hold some; written between tags it would split there."""
    return text.replace(OPEN, " ").replace(CLOSE, " ")
