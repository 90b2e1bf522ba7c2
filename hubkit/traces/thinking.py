"""Thinking spans in the forms that models write them, split from what follows.

    "<think>\\n47 + 38 …\\n</think>\\n\\nThe answer is 85."  ->  Thought("47 + 38 …", "The answer is 85.", "closed")

- The marks are those of `engines.marks`; a recipe can add a pair. The pair that opens the text, or closes first in
  it, is the one in use: marks of other models are text.
- The open mark may be missing: many templates open the span in the prompt.
- A span may be opened or closed twice, and drafts may stand between spans: the solution is what follows the
  last close, as the chat templates of Qwen and DeepSeek have it, and all before it is reasoning.
- A span that was opened, at the start of the text or of a line, and never closed has no solution: "unclosed".
- A mark in quotation marks or backticks is text.
- gpt-oss writes harmony channels: `<|channel|>analysis<|message|>…<|end|>…<|channel|>final<|message|>…`,
  or, with special tokens stripped, `analysis…assistantfinal…`. All but `final` is reasoning.
- Servers with a reasoning parser give the span in a field of its own, or there and in the text.
- An empty span, which models write with thinking turned off, is ignored.
- A model that goes on after the end of its turn writes the next one itself, often a user's: that is cut off.

Only markup and blanks at the ends are removed. A `<think>` or `</think>` that stays in the text is written with
a blank, `< /think>`, so that a Thought in the form of training data (`records.messages_of`) splits into itself, here
and in chat templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from hubkit.engines.marks import FAMILY, PAIRS, TAG, Marks, opens_span

__all__ = ["TURN", "Thought", "inert", "opened_at", "own_turn", "role_of", "split", "trimmed"]

STARTS: Final = (
    "\ufeff",
    "<s>",
    "<bos>",
    "<|begin_of_text|>",
    "<|startoftext|>",
    "<｜begin▁of▁sentence｜>",
    "<|im_start|>assistant",
    "<|assistant|>",
    "<｜Assistant｜>",
    "<start_of_turn>model",
    "<|turn>model",
    "<|start_header_id|>assistant<|end_header_id|>",
    "<|CHATBOT_TOKEN|>",
    "[/INST]",
    "<|START_RESPONSE|>",
    "<|START_TEXT|>",
    "<|begin_of_solution|>",
    "<|open|>response<|sep|>",
    "<|message_model|><|content_text|>",
)
"""Control tokens that begin a turn or a solution; at the beginning of a text they are not text."""
ENDS: Final = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<end_of_turn>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end|>",
    "<|return|>",
    "<seed:eos>",
    "</s>",
    "<eos>",
    "[EOS]",
    "<|plamo:tag|>",
    "<|message_model|>",
    "<|end_message|>",
    "<|content_model_end_sampling|>",
    "<|END_RESPONSE|>",
    "<|END_TEXT|>",
    "<|end_of_solution|>",
    "[END FINAL RESPONSE]",
    "<|close|>response<|sep|>",
    "<|close|>message<|sep|>",
    "<|end_of_msg|>",
)
"""Control tokens that end a turn or a solution."""
TURN: Final = re.compile(
    r"<\|im_start\|>(?:(user|assistant|system|tool)(?:\n|\Z)|\Z)"  # ChatML: Qwen, SmolLM, Yi and others
    r"|<\|start_header_id\|>(?:(user|assistant|system|ipython)<\|end_header_id\|>\s*|\Z)"  # Llama 3
    r"|<｜(User|Assistant)｜>"  # DeepSeek
    r"|<(?:start_of_turn|\|turn)>(?:(user|model|system)(?:\n|\Z)|\Z)"  # Gemma
    r"|<\|start\|>(user|assistant|system|developer)(?=<\|)"  # gpt-oss
    r"|<\|(user|assistant|system|observation)\|>\s*"  # GLM, Phi, Zephyr
    r"|\[(/?INST)\]"  # Mistral; [/INST] begins the answer
    r"|<\|START_OF_TURN_TOKEN\|>(?:<\|(USER|CHATBOT|SYSTEM)_TOKEN\|>|\Z)"  # Cohere
    r"|<\|start_of_role\|>(?:(user|assistant|system)<\|end_of_role\|>|\Z)"  # Granite
)
"""Beginning of a turn, of the models named beside the rows; also one that was cut off right there."""
_OWN: Final = frozenset({"assistant", "model", "/inst", "chatbot"})
"""Roles in which models write."""
_ENDS_BEFORE: Final = ("<|user|>", "<|observation|>")
"""Of GLM, whose turns end where the next one begins."""
NEAR: Final = 200
"""Characters, most of them blank, between the end of a turn and the next one."""
MOST_SPANS: Final = 50
"""Maximum spans with different marks, or empty spans, in a row; models do not write more, and each costs a pass over
the text."""
_WRAPPER: Final = re.compile(r"(<(answer|response|output)>\s*)\1*", re.IGNORECASE)
"""Tags that models put around the whole of a solution."""
_TAG: Final = re.compile(rf"<(/?)((?i:{TAG}))\s*>")
_THINK: Final = re.compile(r"<(/?think)>", re.IGNORECASE)
_HEADER_OPENED: Final = re.compile(r"(?:analysis|commentary|final)<\|message\|>")
"""Harmony after a template that ends with <|channel|>."""
_QUOTES: Final = frozenset("`'\"\u2018\u2019\u201c\u201d\u00ab\u00bb")

_TOKEN: Final = re.compile(r"<\|(start|channel|message|end|return|call|constrain)\|>")
_CHANNEL: Final = "<|channel|>"
_HEADER: Final = re.compile(r"\s*[\w.:-]*(?:\s+to=\S+)?\s*")
"""Header between control tokens, which is not text: a role, a channel's name, an addressee, `json`."""
_BARE_START: Final = re.compile(r"analysis(?=[^\s\w]*[A-Z0-9])|analysis(?=.*?assistant\s*final)", re.DOTALL)
"""`analysisWe need`: no English sentence begins so."""
_BARE_MARK: Final = re.compile(r"assistant\s*(analysis|commentary|final)")
_FENCE: Final = re.compile(r"`{3,}|~{3,}")
"""Begins or ends a block of code in Markdown."""


class Thought(NamedTuple):
    reasoning: str
    solution: str
    form: Literal["closed", "unclosed", "none", "field"]


class _Hit(NamedTuple):
    """A mark in a text."""

    start: int
    end: int
    pair: str
    """Which pair it is one of."""
    opens: bool
    words: bool = False


def split(text: str, reasoning: str | None = None, marks: tuple[str, str] | None = None) -> Thought:
    """Split a response; `reasoning` is the server's separate field, where there is one.

    `marks` are the (open, close) that a recipe adds to the table.
    """
    field, text = own_turn(reasoning or ""), own_turn(text)
    if field and not text.strip():
        whole = _split(field, marks)
        if whole.form == "closed" and whole.solution:  # a server's parser that missed the close
            return whole
    inner = _split(text, marks)
    field = _without_marks(field, marks)
    if not field:
        return inner
    if inner.form == "none":
        inner = _split(inner.solution, marks, after_span=True)
    both = field if inner.reasoning in field else f"{field}\n{inner.reasoning}"
    return Thought(both, inner.solution, "field")


def inert(text: str) -> str:
    """Returns the text with a blank in every `<think>` and `</think>`, since it would otherwise be split there."""
    return _THINK.sub(r"< \1>", text)


def role_of(turn: re.Match[str]) -> str:
    """The role in a match of TURN; that of a turn that was cut off before its role is "user"."""
    return next(filter(None, turn.groups()), "user").lower()


def own_turn(text: str) -> str:
    """Returns the text up to the end of the model's own turn, if another one begins right after that.

    Turns before it are the prompt, and stay. Marks in quotation marks and in code are text.
    """
    own, code = True, None
    for turn in TURN.finditer(text):
        role, start = role_of(turn), turn.start()
        before = text[max(0, start - NEAR) : start].rstrip()
        end = next((mark for mark in ENDS if before.endswith(mark)), "")
        # Between gpt-oss's channels, too, one message ends and another one begins.
        same = turn[0].startswith("<|start|>") and role in _OWN and end != "<|return|>"
        if own and not same and (end or (before and turn[0].strip() in _ENDS_BEFORE)):
            whole = text[:start].rstrip()
            code = list(_code_blocks(text, 0)) if code is None else code
            if not _is_text(text, len(whole) - len(end) if end else start, turn.end(), code):
                return whole
        own = role in _OWN
    return text


def _is_text(text: str, start: int, end: int, code: list[tuple[int, int]]) -> bool:
    """Whether marks from `start` to `end` stand in quotation marks or in code."""
    quoted = text[max(0, start - 1) : start] in _QUOTES and text[end : end + 1] in _QUOTES
    return quoted or any(a <= start < b for a, b in code)


def opened_at(text: str) -> int | None:
    """Place of the first mark of a text, not counting quoted ones. Returns None if there is none, or it closes."""
    first = next(iter(_hits(text, None)), None)
    return first.start if first is not None and first.opens else None


def _split(text: str, marks: tuple[str, str] | None, after_span: bool = False) -> Thought:
    """`after_span`: the text follows a span, so that only one right at its start is another."""
    reasonings: list[str] = []
    for _ in range(MOST_SPANS):
        text = trimmed(text, unwrap=after_span)
        if not after_span and _HEADER_OPENED.match(text):
            text = _CHANNEL + text
        hits = _hits(text, marks)
        first = _first(text, hits, after_span)
        channel = -1 if after_span else text.find(_CHANNEL)
        if first is not None and not 0 <= channel < first.start:
            reasoning, rest, closed = _span(text, hits, first)
        elif parts := _harmony(text) if channel >= 0 else None if after_span else _bare(text):
            first, (reasoning, rest) = None, (trimmed(part) for part in parts)
            closed = bool(rest)
        else:
            break
        if reasoning:
            reasonings.append(inert(reasoning))
        if not closed and (reasoning or first):
            return Thought("\n".join(reasonings), "", "unclosed")
        text, after_span = rest, after_span or bool(reasonings)
    form: Literal["closed", "none"] = "closed" if reasonings else "none"
    return Thought("\n".join(reasonings), inert(text) if after_span else text, form)


def trimmed(text: str, unwrap: bool = False) -> str:
    """Returns the text without blanks and control tokens at its ends and, if asked, without tags around the whole."""
    before = None
    while text != before:
        before = text
        text = text.strip()
        for mark in STARTS:
            text = text.removeprefix(mark)
        for mark in ENDS:
            if mark != "</s>" or "<s>" not in text:  # strikethrough in HTML
                text = text.removesuffix(mark)
        if unwrap and (tag := _WRAPPER.match(text)):
            close = text.lower().find(f"</{tag[2].lower()}>")
            if close < 0 or close + len(tag[2]) + 3 == len(text):
                text = text[tag.end() :] if close < 0 else text[tag.end() : close]
    return text


def _hits(text: str, marks: tuple[str, str] | None) -> list[_Hit]:
    """Returns all marks in order, except those in quotation marks."""
    found: list[_Hit] = []
    for match in FAMILY.finditer(text):
        name = match["of"] or match["name"] or match["bare"]
        found.append(_Hit(match.start(), match.end(), f"<|{name.lower()}|>", opens_span(match)))
    found += [
        _Hit(match.start(), match.end(), match[2].lower(), not match[1]) for match in _TAG.finditer(text)
    ]
    pairs = [*PAIRS, *([Marks((marks[0],), (marks[1],))] if marks else [])]
    beginnings = {mark[:2] for pair in pairs for mark in (*pair.opens, *pair.closes)}
    present = {beginning for beginning in beginnings if beginning in text}
    for number, pair in enumerate(pairs):
        for opens, spellings in ((True, pair.opens), (False, pair.closes)):
            for mark in spellings:
                if mark[:2] not in present:
                    continue
                start = text.find(mark)
                while start >= 0:
                    found.append(_Hit(start, start + len(mark), str(number), opens, pair.words))
                    start = text.find(mark, start + len(mark))
    found.sort(key=lambda hit: (hit.start, -hit.end))
    hits: list[_Hit] = []
    for hit in found:
        inside = hits and hit.start < hits[-1].end
        before, after = text[max(0, hit.start - 1) : hit.start], text[hit.end : hit.end + 1]
        if not inside and not (before in _QUOTES and after in _QUOTES):
            hits.append(hit)
    return hits


def _first(text: str, hits: list[_Hit], after_span: bool) -> _Hit | None:
    """Returns the mark that shows which pair the text uses. Returns None if it uses none."""
    for hit in hits:
        if hit.opens and hit.start == 0:
            return hit
        if after_span:
            return None
        if not hit.words and (not hit.opens or _begins_line(text, hit)):
            return hit
    return None


def _begins_line(text: str, hit: _Hit) -> bool:
    place = hit.start - 1
    while place >= 0 and text[place] != "\n" and text[place].isspace():
        place -= 1
    return place < 0 or text[place] == "\n"


def _span(text: str, hits: list[_Hit], first: _Hit) -> tuple[str, str, bool]:
    """Returns (reasoning, the text after the last close, whether there is a close)."""
    own = _outside_code(text, [hit for hit in hits if hit.pair == first.pair])
    last = max((place for place, hit in enumerate(own) if not hit.opens), default=-1)
    if last < 0 or any(_begins_line(text, hit) for hit in own[last + 1 :]):
        return _pieces(text, own), "", False
    return _pieces(text[: own[last].start], own[:last]), text[own[last].end :], True


def _outside_code(text: str, hits: list[_Hit]) -> list[_Hit]:
    """Returns the marks except those in code blocks after the first close: an answer may be a program that has them."""
    close = next((hit.end for hit in hits if not hit.opens), len(text))
    blocks = list(_code_blocks(text, close)) if hits and hits[-1].start > close else []
    return [hit for hit in hits if not any(start <= hit.start < end for start, end in blocks)]


def _code_blocks(text: str, position: int) -> Iterator[tuple[int, int]]:
    """Returns begin and end of Markdown's code blocks, from `position` on; an unclosed block is ignored."""
    fence, begin = "", 0
    for line in text[position:].splitlines(keepends=True):
        mark = _FENCE.match(line.strip())
        position += len(line)
        if mark and not fence:
            fence, begin = mark[0], position - len(line)
        elif mark and mark[0] == line.strip() and mark[0].startswith(fence):
            yield begin, position
            fence = ""


def _pieces(text: str, hits: list[_Hit]) -> str:
    """What stands between marks, a line each."""
    edges = [0, *(edge for hit in hits for edge in (hit.start, hit.end)), len(text)]
    pieces = (trimmed(text[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True))
    return "\n".join(filter(None, pieces))


def _without_marks(text: str, marks: tuple[str, str] | None) -> str:
    """Returns the text of a server's reasoning field, which may contain marks all the same."""
    text = trimmed(text)
    hits = _hits(text, marks)
    outer = {hit.pair for hit in hits if (hit.start == 0 if hit.opens else hit.end == len(text))}
    return inert(_pieces(text, [hit for hit in hits if hit.pair in outer | {"think"}]))


def _harmony(text: str) -> tuple[str, str]:
    """Returns (reasoning, solution): the messages of all other channels, and those of `final`."""
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
    return "\n".join(pieces[False]), "\n".join(pieces[True])


def _bare(text: str) -> tuple[str, str] | None:
    """Splits harmony text whose control tokens were stripped. Returns None if the text is not harmony."""
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
