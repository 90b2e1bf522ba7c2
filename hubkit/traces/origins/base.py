"""What all origins of traces share: the class that a recipe's `teachers` entries are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import Field

from hubkit.section import ModelRef, Name

__all__ = ["Origin"]


class Origin(ModelRef, ABC):
    """Where the traces of one name come from."""

    step: ClassVar[str]
    """module:function of the step that writes traces.parquet, shard by shard."""
    generates: ClassVar[bool] = True
    """Whether a model answers, so that its steps have an engine and the model is pinned."""

    name: Name
    shards: int = Field(default=1, gt=0)
    """Parts that can be made at the same time."""

    def identity(self) -> dict[str, Any]:
        """What is part of its steps' keys, besides the content of its model."""
        return self.model_dump(mode="json", exclude={"name", "model", "revision", "shards"})

    @abstractmethod
    def count(self, problems: int) -> int:
        """Returns the number of traces at most, for this many problems."""

    @abstractmethod
    def longest(self) -> int:
        """Returns the number of tokens of a trace at most."""
