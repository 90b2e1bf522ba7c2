"""What all compressors share: the class that a recipe's `compressors` entries are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from pydantic import Field

from hubkit.section import ModelRef, Name, Section

__all__ = ["Compressor"]


class Compressor(Section, ABC):
    """Shortens traces. Its fields, except name, model and shards, are the identity of its steps."""

    step: ClassVar[str]
    """module:function of the step that writes one shard's data.parquet and rejected.parquet, in raw's order."""
    task: ClassVar[str] = "text-generation"
    """The model's task, by the Hub's name."""
    LATER: ClassVar[frozenset[str]] = frozenset({"kind", "ratio", "chunk_tokens", "solution"})

    kind: str = "rewrite"
    """Name in the table; a subclass narrows it to a Literal."""
    name: Name
    solution: Literal["keep", "final-line", "shorten"] = "keep"
    """What happens to the solution, the text after the reasoning. keep: it stays; final-line: it is cut to the line
    with the answer; shorten: it is shortened like the reasoning, and its answer stays. A changed solution is verified
    again. Controls do the same."""
    shards: int = Field(default=1, gt=0)
    """Parts that can be compressed at the same time."""

    def identity(self) -> dict[str, Any]:
        """Returns the part of its steps' keys besides the content of its model."""
        return self.model_dump(mode="json", exclude={"name", "model", "revision", "shards"})

    def generator(self) -> ModelRef | None:
        """Returns the model that its steps ask through an engine. Returns None if nothing is generated."""
        return None

    def scorer(self) -> ModelRef | None:
        """Returns the model that its steps load themselves to score texts. Returns None if there is none."""
        return None

    def model_ref(self) -> ModelRef | None:
        """Returns the model that its steps use, if any."""
        return self.generator() or self.scorer()

    @property
    def what(self) -> str:
        """For cards: what was shortened."""
        return "the reasoning and the solution" if self.solution == "shorten" else "the reasoning"

    @property
    def whole(self) -> str:
        """For cards: what a ratio is a share of."""
        return "the tokens of both" if self.solution == "shorten" else "its tokens"

    def requests(self, raw_tokens: int) -> int:
        """Returns the most texts that are generated for a trace with `raw_tokens` tokens."""
        return 1

    @abstractmethod
    def longest(self) -> int | None:
        """Returns the number of tokens that are generated for each text at most; None if nothing is."""

    @abstractmethod
    def describe(self) -> str:
        """Returns the sentence that cards say of what it did."""

    def texts(self) -> dict[str, str]:
        """Long texts that cards show, by title: a prompt."""
        return {}
