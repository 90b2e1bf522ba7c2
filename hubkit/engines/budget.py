"""Limits on what one step may spend, checked before a request is sent and not afterwards."""

from __future__ import annotations

from typing import NamedTuple

from hubkit.engines.base import Request, Response, token_bound
from hubkit.engines.settings import EngineRuntime
from hubkit.errors import EngineError

__all__ = ["Budget", "Spent"]


class Spent(NamedTuple):
    """Tokens. `uncounted`: upper bound of the cost of tries without an answer."""

    prompt: int = 0
    completion: int = 0
    uncounted: int = 0


class Budget:
    """`max_spent_tokens` and `max_cost` of an engine, of which each of a step's `shards` gets an equal part."""

    def __init__(self, runtime: EngineRuntime, shards: int = 1) -> None:
        self._runtime = runtime
        self._shards = shards
        self._spent = Spent()
        self._reserved: dict[str, int] = {}
        """Request key -> the most tokens that it can take, all tries included."""
        self._outstanding = 0

    def add(self, spent: Spent) -> None:
        self._spent = Spent(*(a + b for a, b in zip(self._spent, spent, strict=True)))

    def reserve(self, request: Request) -> bool:
        """Returns whether the request fits even in the worst case of it and all requests under way. If so, it counts as
        under way."""
        most = token_bound(request) * self._runtime.tries
        if not self._fits(self._outstanding + most):
            return False
        self._reserved[request.key] = most
        self._outstanding += most
        return True

    def settle(self, response: Response) -> None:
        """The request has ended: replace its reserved tokens by those that it used."""
        self._outstanding -= self._reserved.pop(response.key, 0)
        self.add(Spent(response.prompt_tokens, response.completion_tokens, response.uncounted_tokens))

    def reached(self) -> EngineError:
        """The error of a step whose next request does not fit."""
        tokens = sum(self._spent)
        return EngineError(
            f"the budget is spent: {tokens} tokens and {self._cost(0):.2f} of costs so far, "
            "and the next request could pass it",
            "raise max_spent_tokens or max_cost under run.engines, and run again to go on",
        )

    def _fits(self, more: int) -> bool:
        tokens, cost = self._runtime.max_spent_tokens, self._runtime.max_cost
        return (tokens is None or sum(self._spent) + more <= tokens / self._shards) and (
            cost is None or self._cost(more) <= cost / self._shards
        )

    def _cost(self, more: int) -> float:
        """Returns the cost of what is spent and of `more` tokens at the higher of both prices."""
        prompt, completion = self._runtime.prompt_price, self._runtime.completion_price
        dearer = (self._spent.uncounted + more) * max(prompt, completion)
        return (self._spent.prompt * prompt + self._spent.completion * completion + dearer) / 1e6
