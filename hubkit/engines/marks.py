"""The marks that models write around their reasoning: a table for engines and for `traces.thinking`.

    <think>2 + 3</think>5    [THINK]2 + 3[/THINK]5    <|START_THINKING|>2 + 3<|END_THINKING|>5    one row each

Gathered from the reasoning parsers of vLLM and SGLang (2026) and the chat templates of the models named beside
the rows. A recipe adds a pair with a teacher's `thinking: {open: …, close: …}`. gpt-oss's channels are no pair of
marks; `traces.thinking` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["FAMILY", "HARMONY", "PAIRS", "PIECES", "TAG", "Marks", "is_mark", "opened_by", "opens_span"]


class Marks(NamedTuple):
    """A pair of marks. Several spellings of one mark are alternatives, the longest first."""

    opens: tuple[str, ...]
    closes: tuple[str, ...]
    words: bool = False
    """Whether the marks are plain words: a closing mark then counts only if the text starts with the opening mark."""


PAIRS: Final = (
    Marks(("[THINK]",), ("[/THINK]",)),  # Magistral, Ministral, Mistral Small 4
    Marks(("◁think▷",), ("◁/think▷",)),  # Kimi 1.5, Kimi-VL
    Marks(("<|open|>think<|sep|>",), ("<|close|>think<|sep|>",)),  # Kimi K3
    Marks(("<|begin_of_thought|>",), ("<|end_of_thought|>",)),  # Sky-T1, OpenThinker
    Marks(("<|START_THINKING|>",), ("<|END_THINKING|>",)),  # Cohere Command
    Marks(("<|inner_prefix|>",), ("<|inner_suffix|>",)),  # Apertus
    Marks(("<|think:start|>",), ("<|think:end|>",)),  # Solar Open
    Marks(("<|plamo:begin_think:plamo|>",), ("<|plamo:end_think:plamo|>",)),  # PLaMo 3
    Marks(("<|think|>",), ("<|/think|>", "</|think|>")),
    Marks(("<|channel>thought", "<|channel>"), ("<channel|>",)),  # Gemma 4
    Marks(  # Inkling
        ("<|message_model|><|content_thinking|>", "<|content_thinking|>"),
        ("<|message_model|><|content_text|>", "<|content_text|>"),
    ),
    Marks(  # Muse Glimmer
        ("<|start|>assistant to=self<|message|>", "to=self<|message|>"),
        ("<|start|>assistant to=user<|message|>",),
    ),
    Marks(("<|im_start|>think",), ("<|im_start|>answer",)),  # s1
    Marks(("[unused16]",), ("[unused17]",)),  # openPangu
    Marks(("<unused94>thought", "<unused94>"), ("<unused95>",)),  # MedGemma
    Marks(("Here are my reasoning steps:",), ("[BEGIN FINAL RESPONSE]",)),  # Apriel
    Marks(  # Granite 3.2
        ("Here is my thought process:", "Here's my thought process:"),
        ("Here is my response:", "Here's my response:"),
        words=True,
    ),
)

TAG: Final = r"(?:\w+[:|_])?(?:think(?:ing)?|thoughts?|reason(?:ing)?)(?:[:_]\w+)?"
"""Names of tags `<NAME>…</NAME>`, each a pair of its own, in any letter case: think (DeepSeek, Qwen, GLM, Kimi K2,
MiniMax M2, Nemotron, OLMo, Phi 4 and most others), thinking, thought (EXAONE Deep, Marco-o1), reasoning (Reka),
seed:think (Seed-OSS), mm:think (MiniMax M3), longcat_think, ifm|think_fast (K2), think:… (Hunyuan)."""

_NAME: Final = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?)"
FAMILY: Final = re.compile(
    rf"<\|?(?:(?P<begin>begin|start)|end)_(?:of_)?(?P<of>{_NAME})\|?>"
    rf"|<\|(?P<name>{_NAME})[_:](?:(?P<start>begin|start)|end)\|>|<(?P<slash>/?)\|(?P<inner>/?)(?P<bare>{_NAME})\|>",
    re.IGNORECASE,
)
"""Control tokens of the same form as those in the table: <|end_of_reasoning|>, <|thinking_start|>, <|thinking|>."""

HARMONY: Final = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")

PIECES: Final = frozenset({"<|open|>", "<|close|>", "<|sep|>", "<|message_model|>"})
"""Control tokens that longer marks consist of."""

_WHOLE: Final = frozenset(mark for pair in PAIRS for mark in (*pair.opens, *pair.closes))
_TAG: Final = re.compile(rf"</?{TAG}\s*>", re.IGNORECASE)
_OPENING: Final = re.compile(
    r"(?:<\|channel\|>analysis<\|message\|>|{}|<(?i:{})\s*>)\s*\Z".format(
        "|".join(re.escape(mark) for pair in PAIRS for mark in pair.opens), TAG
    )
)
LONGEST: Final = 200
"""Characters at a prompt's end that are searched for its last mark."""


def is_mark(token: str) -> bool:
    """Whether a vocabulary entry is a mark of the table, or a piece of one."""
    return token in _WHOLE or token in PIECES or bool(_TAG.fullmatch(token) or FAMILY.fullmatch(token))


def opened_by(prompt: str, marks: Sequence[str] = ()) -> str:
    """Returns the mark with which a rendered prompt opens the reasoning at its end; "" if it does not.

    `marks` are the (open, close) that a recipe adds.

    Put before the answer, it distinguishes a span that was cut off from an answer without a span.
    """
    end = prompt[-LONGEST:].rstrip()
    if marks and end.endswith(marks[0]):
        return marks[0]
    found = _OPENING.search(end)
    if found:
        return found[0]
    mark = next((match for match in FAMILY.finditer(end) if match.end() == len(end)), None)
    return mark[0] if mark and opens_span(mark) else ""


def opens_span(mark: re.Match[str]) -> bool:
    """Whether a mark of FAMILY begins a span."""
    return bool(mark["begin"] or mark["start"] or (mark["bare"] and not mark["slash"] and not mark["inner"]))
