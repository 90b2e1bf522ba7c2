"""Problems drawn from reasoning-gym's generators.

    {"question": "State the final answer … 47 + 38 =", "answer": "85", …}
becomes
    {"id": "chain_sum-2f6c81d0a1b2", "source": "reasoning-gym/chain_sum", "problem": "State … 47 + 38 =",
     "answer": "85", "verifier": "reasoning-gym", "metadata": "{…the entry, for its scorer…}"}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from hubkit.errors import InputError
from hubkit.problems.base import Description, Pin, Source, problem_id, split_of
from hubkit.records import Problem

__all__ = ["ReasoningGymSource"]


class ReasoningGymSource(Source):
    source: Literal["reasoning-gym"]
    task: str
    """A dataset of reasoning-gym, such as chain_sum."""
    options: dict[str, Any] = Field(default={})
    """Options of that dataset, passed unchanged."""
    size: int = Field(gt=0)
    """Number of problems."""
    seed: int = 0
    split: Literal["train", "dev", "test"]
    """Part of hubkit's hash split (`split_of`) to draw from; the parts never share a problem."""

    def rows(self, pin: Pin) -> Iterator[Problem]:
        import reasoning_gym

        # The hash split keeps 1 of 10 for test and dev, and small tasks repeat: draw more than is needed.
        try:
            drawn = reasoning_gym.create_dataset(
                self.task, seed=self.seed, size=self.size * 40 + 1000, **self.options
            )
        except (ValueError, TypeError, AssertionError) as error:
            raise InputError(
                f"reasoning-gym cannot make {self.task!r}: {error}",
                "check `task` and `options` in its gallery",
            ) from error
        for index in range(len(drawn)):
            entry: dict[str, Any] = drawn[index]
            question = str(entry["question"])
            if split_of(question) == self.split:
                yield {
                    "id": problem_id(self.task, question),
                    "source": f"reasoning-gym/{self.task}",
                    "problem": question,
                    "answer": str(entry["answer"]),
                    "verifier": "reasoning-gym",
                    "metadata": json.dumps(entry, default=str, ensure_ascii=False),
                }

    def judged_by(self) -> str:
        return "reasoning-gym"

    def describe(self) -> Description:
        return Description(f"reasoning-gym's {self.task}, seed {self.seed}")

    def count(self, pin: Pin) -> int:
        return self.size

    def most(self) -> int:
        return self.size

    def check_kept(self, kept: int) -> None:
        if kept < self.size:
            raise InputError(
                f"{self.task} gives only {kept} different problems of {self.size}",
                "ask for fewer, or widen the task's options",
            )
