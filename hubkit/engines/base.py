"""What every engine takes and gives: a stream of requests in, responses out as they finish."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self

from hubkit.section import Sampling

__all__ = ["Engine", "Request", "Response", "hidden_tokens", "token_bound"]

_HARMONY: Final = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")


@dataclass(frozen=True)
class Request:
    key: str
    """Comes back with the response; unique within a stream."""
    messages: list[dict[str, str]]
    sampling: Sampling
    seed: int
    """Of this request alone, so that an answer does not depend on what was generated beside it."""


@dataclass(frozen=True)
class Response:
    key: str
    text: str
    """Generated text without special tokens; thinking tags stay."""
    finish_reason: Literal["stop", "length", "error"]
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
    """The most that tries may have cost whose answer never came, prompt and answer: some servers bill them."""


def token_bound(request: Request) -> int:
    """The most tokens a request can take, prompt and answer: no token is shorter than a byte.

    Sixty-four more per message are for what chat templates put around them.
    """
    prompt = sum(
        len(message["content"].encode("utf-8", "surrogatepass")) + 64 for message in request.messages
    )
    return prompt + request.sampling.max_tokens


def hidden_tokens(tokenizer: Any) -> set[int]:
    """Ids that are left out of an answer's text: special tokens, but for the marks of thinking spans."""
    known = tokenizer.get_vocab()
    kept = {"<think>", "</think>", *(_HARMONY if "<|channel|>" in known else ())}
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {number for number, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    return special - {known[name] for name in kept if name in known}


class Engine(Protocol):
    """A source of generated text, open inside `with`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def stream(self, requests: Iterable[Request]) -> AsyncGenerator[Response]:
        """Answer each request once, in any order; `requests` is drawn from as room appears.

        Raises EngineError when no request can succeed any more.
        """
        ...
