"""What all origins of traces share: the class that a recipe's `teachers` entries are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import Field

from hubkit.section import ModelRef, Name, Section

__all__ = ["Origin"]


class Origin(Section, ABC):
    """Where the traces of one name come from."""

    step: ClassVar[str]
    """module:function of the step that writes traces.parquet, shard by shard."""

    name: Name
    shards: int = Field(default=1, gt=0)
    """Parts that can be made at the same time."""

    def identity(self) -> dict[str, Any]:
        """What is part of its steps' keys, besides the content of its model."""
        return self.model_dump(mode="json", exclude={"name", "model", "revision", "shards"})

    def generator(self) -> ModelRef | None:
        """The model that writes the traces in its steps, which then have an engine. None: nothing is generated."""
        return None

    @abstractmethod
    def count(self, problems: int) -> int:
        """Returns the number of traces at most, for this many problems."""

    @abstractmethod
    def longest(self) -> int:
        """Returns the number of tokens of a trace at most."""

    @abstractmethod
    def describe(self) -> str:
        """Returns the sentence that cards say of where the traces come from."""

    def texts(self) -> dict[str, str]:
        """Long texts that cards show, by title: a system message."""
        return {}
