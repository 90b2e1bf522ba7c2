"""What all compressors share: the class that a recipe's `compressors` entries are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from hubkit.section import ModelRef, Name, Section

__all__ = ["Compressor"]

_LATER: Final = {"kind": "rewrite", "ratio": None}
"""Keys that came after the first compressors, with the values that these have."""


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

    def scorer(self) -> ModelRef | None:
        """The model that its steps load themselves, to score texts. None: there is none."""
        return None

    def model_ref(self) -> ModelRef | None:
        """The one model that its steps use, if any."""
        return self.generator() or self.scorer()

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
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A compressor that does without later keys is written, and so identified, as it was before there were any."""
        written: dict[str, Any] = dump(self)
        return {key: value for key, value in written.items() if key not in _LATER or value != _LATER[key]}
