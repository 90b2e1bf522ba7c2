"""The interface of all engines: a stream of requests in, responses out as they finish."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from hubkit.engines.marks import HARMONY, is_mark
from hubkit.section import Sampling

__all__ = ["Engine", "Request", "Response", "hidden_tokens", "token_bound", "why_unfinished"]


@dataclass(frozen=True)
class Request:
    key: str
    """Comes back with the response; unique within a stream."""
    messages: list[dict[str, str]]
    sampling: Sampling
    seed: int
    """Of this request alone, so that an answer does not depend on what was generated beside it."""
    template: dict[str, str] = field(default_factory=dict)
    """Variables that the chat template is given, such as {"reasoning_effort": "low"}."""


@dataclass(frozen=True)
class Response:
    key: str
    text: str
    """Generated text without special tokens; thinking tags stay."""
    finish_reason: str
    """`stop`, `length` (cut at max_tokens), `error`, or any other reason that a server gave, unchanged."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Generated tokens, the end token included."""
    latency_s: float = 0.0
    reasoning: str | None = None
    """Where a server gives the thinking span in a field of its own."""
    error: str = ""
    token_ids: list[int] = field(default_factory=list)
    """Generated ids, where the engine knows them."""
    uncounted_tokens: int = 0
    """Upper bound of the tokens of tries whose answer never came, prompt and answer: some servers bill them."""

    @property
    def unfinished(self) -> str:
        """Why the answer is incomplete; "" if the model itself ended it."""
        return why_unfinished(self.finish_reason, self.error)


def why_unfinished(finish_reason: str, error: str = "") -> str:
    """Returns in words why an answer with this finish reason is incomplete; "" for `stop`, the only clean end."""
    match finish_reason:
        case "stop":
            return ""
        case "error":
            return error or "no answer came"
        case "length":
            return "cut at max_tokens"
        case _:
            return f"the server ended it: {finish_reason}"


def token_bound(request: Request) -> int:
    """Returns the most tokens that a request can take, prompt and answer: no token is shorter than a byte.

    Sixty-four more per message are for what chat templates put around them.
    """
    prompt = sum(
        len(message["content"].encode("utf-8", "surrogatepass")) + 64 for message in request.messages
    )
    return prompt + request.sampling.max_tokens


def hidden_tokens(tokenizer: Any, marks: Sequence[str] = ()) -> set[int]:
    """Returns the ids that are left out of an answer's text: special tokens, except marks of thinking spans.

    `marks` are those that a recipe adds; special tokens that they consist of stay, too.
    """
    known = tokenizer.get_vocab()
    harmony = HARMONY if "<|message|>" in known else ()
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {number for number, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    ids = sorted(special)
    names = tokenizer.convert_ids_to_tokens(ids)
    return {
        number
        for number, name in zip(ids, names, strict=True)
        if name not in harmony and not is_mark(name) and not any(name in mark for mark in marks)
    }


class Engine(Protocol):
    """A source of generated text, open inside `with`."""

    @property
    def notes(self) -> Sequence[str]:
        """Deviations of what was sent from the recipe, one line each, for the record."""
        ...

    @property
    def precision(self) -> str:
        """Type of the weights once the engine is open, such as bfloat16; "" if only a server knows."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def stream(self, requests: Iterable[Request]) -> AsyncGenerator[Response]:
        """Answer each request once, in any order; `requests` is drawn from as room appears.

        Raises EngineError when no request can succeed any more.
        """
        ...
