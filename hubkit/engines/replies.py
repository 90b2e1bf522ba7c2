"""Chat completions as JSON: a request's body, and the response in a reply's body."""

from __future__ import annotations

import json
from typing import Any, Final

from hubkit.engines.base import Request, Response

__all__ = ["Unfinished", "body_of", "response_of"]

REFUSED: Final = {"content_filter"}
GIVEN_UP: Final = {"abort", "error"}


class Unfinished(ValueError):
    """The server itself gave the answer up; asked again, it may finish."""


def body_of(request: Request, model: str, extra: dict[str, Any]) -> bytes:
    """The JSON to post. `extra` are fields of this kind of server alone."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": request.messages,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.seed & 0x7FFFFFFF,  # servers differ in the width they take
    }
    if sampling.top_k:
        body["top_k"] = sampling.top_k  # vLLM's and SGLang's extension
    return json.dumps(body | extra).encode()


def response_of(request: Request, body: bytes, latency_s: float) -> Response:
    """Read a reply. Raises ValueError, KeyError, TypeError or IndexError when it has another shape."""
    answer = json.loads(body)
    choice = answer["choices"][0]
    message, usage, reason = choice["message"], answer.get("usage") or {}, choice.get("finish_reason")
    content = message.get("content")
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    if reason in GIVEN_UP:
        raise Unfinished(f"the server ended the answer: {reason}")
    if not isinstance(content, str | None) or not isinstance(reasoning, str | None):
        raise TypeError("content is not text")
    ids = choice.get("token_ids") or []
    return Response(
        request.key,
        _whole(content or ""),
        "error" if reason in REFUSED else "length" if reason == "length" else "stop",
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=len(ids) or int(usage.get("completion_tokens") or 0),
        latency_s=latency_s,
        reasoning=_whole(reasoning) if reasoning else None,
        error=f"the server withheld the answer: {reason}" if reason in REFUSED else "",
        token_ids=[int(number) for number in ids],
    )


def _whole(text: str) -> str:
    """Half a surrogate pair, which a server cuts when a limit falls inside a character, cannot be stored."""
    return text.encode("utf-8", "replace").decode()
