"""The body that is posted for a request, and the fields that a host has refused.

    Request(sampling=Sampling(max_tokens=9, top_k=3), seed=7, …)  ->  {"model": …, "messages": […],
        "max_tokens": 9, "temperature": 0.0, "top_p": 1.0, "top_k": 3, "seed": 7}

Hosts differ in the fields that they take. When a host refuses a field by name, the field is left out from then on;
`max_tokens` is sent as `max_completion_tokens`. Each change is tried once per server, and noted in the record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from hubkit.engines.base import Request

__all__ = ["Dialect"]

OPTIONAL: Final = ("seed", "top_k", "top_p", "temperature")
"""Fields without which a request still makes sense."""
LONGEST: Final = 4000
"""Characters of an error that are looked at."""
_REFUSED: Final = re.compile(
    r"unsupported|not supported|does(?: not|n't) support|unrecognized|unknown|unexpected|extra (?:inputs|fields)|"
    r"extra_forbidden|not permitted|not allowed|no longer|renamed|use .?max_completion_tokens",
    re.IGNORECASE,
)
_NAMED: Final = (
    r"(?:^|['\"`]|->\s*|(?:parameters?|fields?|arguments?|propert(?:y|ies)|keys?|supplied)\b[:\s]*['\"`]?)"
    r"{}\b(?!\s*=)"
)
"""How errors name a field. A bare word may come from a prompt that the error quotes."""


class Dialect:
    """The fields that one server does not take."""

    def __init__(self) -> None:
        self.left_out: set[str] = set()
        self.renamed = False
        """Whether `max_tokens` is called `max_completion_tokens` there."""

    def body(self, request: Request, model: str, extra: dict[str, Any]) -> bytes:
        """Returns the JSON to post. `extra` are further fields that only this kind of server takes."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": model,
            "messages": request.messages,
            "max_completion_tokens" if self.renamed else "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed & 0x7FFFFFFF,  # servers differ in the width they take
        }
        if sampling.top_k:
            body["top_k"] = sampling.top_k  # vLLM's and SGLang's extension
        if request.template:
            body["chat_template_kwargs"] = request.template  # likewise
        for name in self.left_out:
            body.pop(name, None)
        return json.dumps(body | extra).encode()

    def learn(self, error: bytes, sent: bytes) -> bool:
        """Whether another try makes sense: the error refuses a field of `sent` that can be left out."""
        fields, names = json.loads(sent), _refused(error)
        if "max_tokens" in names and "max_tokens" in fields:
            self.renamed = True
            return True
        dropped = {name for name in OPTIONAL if name in names and name in fields}
        self.left_out |= dropped
        return bool(dropped)

    @property
    def notes(self) -> list[str]:
        """One line for each field that is left out or renamed."""
        renamed = ["max_tokens is sent as max_completion_tokens"] if self.renamed else []
        return renamed + [f"{name} is not sent" for name in sorted(self.left_out)]


def _refused(error: bytes) -> set[str]:
    """Returns the fields that hubkit sends and that an error refuses."""
    text = error[:LONGEST].decode(errors="replace")
    try:
        told = list(_walk(json.loads(error)))
    except (ValueError, RecursionError):
        told = [("", text)]
    if not any(_REFUSED.search(value) for _, value in told):
        return set()
    candidates = ("max_tokens", *OPTIONAL)
    named = {
        value for key, value in told if key in ("param", "parameter", "loc", "field") and value in candidates
    }
    if named:
        return named
    messages = [
        value for key, value in told if key in ("message", "msg", "detail", "error", "error_message", "")
    ]
    return {name for name in candidates if any(re.search(_NAMED.format(name), text) for text in messages)}


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, text) of all texts in an error, except those that it repeats from the request."""
    if isinstance(value, str):
        yield key, value[:LONGEST]
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item, key)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name != "input":
                yield from _walk(item, name)
