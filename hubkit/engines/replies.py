"""Reads the response in a reply's body, in the forms in which servers write chat completions.

    {"choices": [{"message": {"content": "5", "reasoning": "2 + 3"}, "finish_reason": "stop"}], "usage": {…}}
    ->  Response(text="5", reasoning="2 + 3", finish_reason="stop", …)

Content may be text, one typed chunk or a list of them, nested (Mistral's `thinking` chunks). Reasoning may stand in
`reasoning`, `reasoning_content`, `thinking` or lists of details. Event streams that nobody asked for are put
together. A finish reason that is not known is kept as it is, and is never a clean stop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from hubkit.engines.base import Request, Response, token_bound

__all__ = ["Refused", "Unfinished", "response_of"]

CLEAN: Final = {"stop", "eos", "eos_token", "end_turn"}
"""The model ended its answer. hubkit sends no stop sequences, so `stop_sequence` is none of these."""
CUT: Final = {"length", "max_tokens", "max_output_tokens", "model_length"}
GIVEN_UP: Final = {"abort", "error", "insufficient_system_resource"}
_FIELDS: Final = ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks")
_TEXTS: Final = (
    "thinking",
    "reasoning",
    "reasoning_content",
    "text",
    "content",
    "summary",
    "refusal",
    "value",
    "parts",
)
_OTHER: Final = re.compile(r"[^\w.:/-]+")


class Unfinished(ValueError):
    """The server stopped in the middle of the answer; asked again, it may finish."""


class Refused(ValueError):
    """An error in the body of a reply with status 200. `status` is the one that the body names, or 0."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status, self.body = status, body


def response_of(request: Request, body: bytes, latency_s: float) -> Response:
    """Read a reply.

    Raises Refused if it is an error, and ValueError, KeyError, TypeError or IndexError if it has another shape.
    """
    answer = (
        _of_events(body) if body.lstrip()[:6].startswith((b"data:", b"event:", b":")) else json.loads(body)
    )
    if isinstance(answer, dict) and answer.get("error") and not answer.get("choices"):
        raise Refused(_status(answer["error"]), json.dumps(answer).encode())
    choice = answer["choices"][0]
    message, usage = choice["message"], answer.get("usage") or {}
    reason = _reason(choice.get("finish_reason"))
    if reason in GIVEN_UP:
        raise Unfinished(f"the server ended the answer: {reason}")
    text, reasoning = _parts(message.get("content"))
    given = _field(message)
    if given and given not in reasoning:
        reasoning = given if reasoning in given else f"{given}\n{reasoning}"
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal and not text:
        text, reason = refusal, "refusal"
    ids = choice.get("token_ids") or []
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    completion = len(ids) or _count(usage, "completion_tokens", "output_tokens")
    return Response(
        request.key,
        _whole(text),
        reason,
        prompt_tokens=prompt,
        completion_tokens=completion,
        latency_s=latency_s,
        reasoning=_whole(reasoning) if reasoning else None,
        token_ids=[int(number) for number in ids],
        # A budget must also hold if a server does not say what it bills.
        uncounted_tokens=0 if prompt or completion else token_bound(request),
    )


def _reason(given: Any) -> str:
    """Returns the finish reason: other names of `stop` and `length` become these; others stay, as one short word."""
    if given is None:
        return "unknown"
    word = str(given).lower()
    if word in CLEAN:
        return "stop"
    return (
        "length"
        if word in CUT
        else word
        if word in GIVEN_UP
        else _OTHER.sub("_", str(given))[:40] or "unknown"
    )


def _parts(content: Any) -> tuple[str, str]:
    """(text, reasoning) of a message's content."""
    found = list(_chunks(content, False))
    text = "".join(text for thinks, text in found if not thinks)
    return text, "".join(text for thinks, text in found if thinks)


def _chunks(value: Any, thinks: bool) -> Iterator[tuple[bool, str]]:
    """Yield (whether it is reasoning, text) of all chunks, also nested; images, tools and signatures have no text."""
    match value:
        case None:
            return
        case str():
            yield thinks, value
        case list():
            for item in value:
                yield from _chunks(item, thinks)
        case dict():
            kind = str(value.get("type", ""))
            thinks = thinks or "think" in kind or "reason" in kind
            if thinks or kind in ("", "text", "output_text", "refusal", "message"):
                yield from _chunks(next((value[name] for name in _TEXTS if value.get(name)), None), thinks)
        case _:
            raise TypeError("content is not text")


def _field(message: dict[str, Any]) -> str:
    """The reasoning that a message or a delta gives beside its content."""
    texts = ("".join(text for _, text in _chunks(message.get(name), True)) for name in _FIELDS)
    return next(filter(None, texts), "")


def _of_events(body: bytes) -> Any:
    """The completion in a stream of server-sent events. Raises ValueError when its end is missing."""
    message: dict[str, str] = {}
    choice: dict[str, Any] = {"message": message}
    answer: dict[str, Any] = {"choices": [choice]}
    ended = False
    for line in re.split(r"\r\n|\n|\r", body.decode()):
        name, _, data = line.partition(":")
        if name != "data":
            continue
        if data.strip() == "[DONE]":
            ended = True
            break
        event = json.loads(data)
        if event.get("error"):
            return event
        answer["usage"] = event.get("usage") or answer.get("usage")
        for piece in (event.get("choices") or [])[:1]:
            delta = piece.get("delta") or piece.get("message") or {}
            text, reasoning = _parts(delta.get("content"))
            message["content"] = message.get("content", "") + text
            message["reasoning"] = message.get("reasoning", "") + reasoning + _field(delta)
            if piece.get("finish_reason") is not None:
                choice["finish_reason"] = piece["finish_reason"]
    if not ended and "finish_reason" not in choice:
        raise ValueError("an event stream without an end")
    return answer


def _status(error: Any) -> int:
    code = error.get("code", error.get("status")) if isinstance(error, dict) else None
    text = str(code)
    return int(text) if re.fullmatch(r"[45]\d\d", text) else 0


def _count(usage: Any, *names: str) -> int:
    found = next((usage[name] for name in names if usage.get(name)), 0) if isinstance(usage, dict) else 0
    return max(0, int(found))


def _whole(text: str) -> str:
    """Replace half surrogate pairs, which cannot be stored; they come from a limit that falls inside a character."""
    return text.encode("utf-8", "replace").decode()
