"""What all compressors share: the class that a recipe's `compressors` entries are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from hubkit.section import ModelRef, Name, Section

__all__ = ["Compressor"]


class Compressor(Section, ABC):
    """What shortens traces. Its fields are the identity of its steps, but for name, model and shards."""

    step: ClassVar[str]
    """module:function of the step that writes one shard's data.parquet and rejected.parquet, in raw's order."""

    kind: str = "rewrite"
    """Name in the table; a subclass narrows it to a Literal."""
    name: Name
    shards: int = Field(default=1, gt=0)
    """Parts that can be compressed at the same time."""

    def identity(self) -> dict[str, Any]:
        """What is part of its steps' keys, besides the content of its model."""
        return self.model_dump(mode="json", exclude={"name", "model", "revision", "shards"})

    def generator(self) -> ModelRef | None:
        """The model that its steps ask, which then have an engine. None: nothing is generated."""
        return None

    @abstractmethod
    def longest(self) -> int | None:
        """Returns the number of tokens that are generated for a trace at most; None if nothing is."""

    @abstractmethod
    def describe(self) -> str:
        """Returns the sentence that cards say of what it did."""

    def texts(self) -> dict[str, str]:
        """Long texts that cards show, by title: a prompt."""
        return {}

    @model_serializer(mode="wrap")
    def _without_first_kind(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A rewriting compressor is written, and so identified, as it was before there were other kinds."""
        written: dict[str, Any] = dump(self)
        if self.kind == "rewrite":
            written.pop("kind", None)
        return written
