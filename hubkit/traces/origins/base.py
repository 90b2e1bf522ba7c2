"""The base class of all origins of traces, which are the entries of a recipe's `teachers` and `traces`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from hubkit.problems.base import Description, Pin
from hubkit.section import ModelRef, Name, Section

__all__ = ["Origin"]


class Origin(Section, ABC):
    """Where the traces of one name come from."""

    step: ClassVar[str]
    """module:function of the step that writes traces.parquet, shard by shard."""

    brings_problems: ClassVar[bool] = False
    """Whether its step writes problems.parquet beside traces.parquet, because its traces come with their problems. Such
    an origin has one shard."""

    name: Name
    shards: int = Field(default=1, gt=0)
    """Parts that can be made at the same time."""

    def identity(self) -> dict[str, Any]:
        """Returns the part of its steps' keys besides the content of its model."""
        return self.model_dump(mode="json", exclude={"name", "model", "revision", "shards"})

    def pin(self, folder: Path, key: str, commit: Callable[[str, str], str]) -> Pin:
        """Returns what pins existing traces, as `problems.base.Source.pin`. Empty for generated traces."""
        return Pin()

    @property
    def is_verified(self) -> bool:
        """Whether answers are verified, and only traces with a right one kept."""
        return True

    def came_from(self) -> Description | None:
        """Returns what cards say about the source of traces and their problems. Returns None for generated traces."""
        return None

    def hub_id(self) -> str:
        """Returns the Hub dataset that the traces come from, for `source_datasets`; "" if there is none."""
        return ""

    def judged_by(self) -> str | None:
        """Returns the verifier of its own problems. Returns None if it answers the recipe's problems."""
        return None

    def generator(self) -> ModelRef | None:
        """Returns the model that writes the traces in its steps, through an engine. Returns None if nothing is
        generated."""
        return None

    def held(self, pin: Pin) -> int | None:
        """Returns the number of rows that the source of existing traces holds, cheaply; None if that is unknown."""
        return None

    def held_bytes(self, pin: Pin) -> int | None:
        """Returns the bytes of these rows' texts at most, cheaply; None if that is unknown."""
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
