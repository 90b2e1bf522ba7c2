"""Thinking spans in the forms that models write them, split from what follows.

    "<think>\\n47 + 38 …\\n</think>\\n\\nThe answer is 85."  ->  Thought("47 + 38 …", "The answer is 85.", "closed")

- `<think>` may be missing at the start: many templates open the span in the prompt.
- gpt-oss writes harmony channels: `<|channel|>analysis<|message|>…<|end|>…<|channel|>final<|message|>…`,
  or, with special tokens stripped, `analysis…assistantfinal…`.
- Servers with a reasoning parser give the span in a field of its own.
- A span that the length limit cut off has no solution: form "unclosed".
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

__all__ = ["Thought", "split"]

OPEN: Final = "<think>"
CLOSE: Final = "</think>"
_CHANNEL: Final = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>")
_CONTROL: Final = re.compile(r"<\|(?:end|start|return|call|message|channel|constrain)\|>")
_BARE_FINAL: Final = re.compile(r"assistant\s*final")


class Thought(NamedTuple):
    reasoning: str
    solution: str
    form: Literal["closed", "unclosed", "none", "field"]


def split(text: str, reasoning: str | None = None) -> Thought:
    """Split a response; `reasoning` is the server's separate field, where there is one."""
    if reasoning is not None and reasoning.strip():
        return Thought(reasoning.strip(), text.strip(), "field")
    if "<|channel|>" in text:
        return _harmony(text)
    before, closed, after = text.partition(CLOSE)
    head = before.lstrip()
    if closed:
        return Thought(head.removeprefix(OPEN).strip(), after.strip(), "closed")
    if head.startswith(OPEN):
        return Thought(head.removeprefix(OPEN).strip(), "", "unclosed")
    if head.startswith("analysis") and (final := _BARE_FINAL.search(head)):
        thought = head[len("analysis") : final.start()]
        return Thought(thought.strip(), head[final.end() :].strip(), "closed")
    return Thought("", text.strip(), "none")


def _harmony(text: str) -> Thought:
    """Messages by channel: all analysis is reasoning, all final is the solution, commentary is neither."""
    marks = list(_CHANNEL.finditer(text))
    parts: dict[str, list[str]] = {"analysis": [], "final": []}
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        body = text[mark.end() : following.start() if following else len(text)]
        # The message ends at its control token; "<|start|>assistant" of the next one is not content.
        body = _CONTROL.split(body)[0]
        if mark[1] in parts:
            parts[mark[1]].append(body.strip())
    analysis, final = "\n".join(parts["analysis"]), "\n".join(parts["final"])
    if not analysis:
        return Thought("", final or _CONTROL.sub("", text).strip(), "none")
    return Thought(analysis, final, "closed" if final else "unclosed")
