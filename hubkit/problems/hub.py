"""Problems from a dataset on the Hub, at a commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from hubkit.problems.base import Description, Pin
from hubkit.problems.rows import RowSource
from hubkit.records import Problem

__all__ = ["HubSource"]


class HubSource(RowSource):
    source: Literal["hub"]
    dataset: str
    revision: str = ""
    config: str | None = None
    split: str = "train"

    def rows(self, pin: Pin) -> Iterator[Problem]:
        return self.problems_of(self._stream(pin.revision), self.dataset)

    def describe(self) -> Description:
        return Description(f"{self.dataset}, split {self.split}", dataset=self.dataset)

    def pin(self, folder: Path, key: str, commit: Callable[[str, str], str]) -> Pin:
        sha = commit(self.dataset, self.revision)
        return Pin(self.dataset, sha, sha)

    def count(self, pin: Pin) -> int | None:
        return self.limit

    def _stream(self, revision: str) -> Iterator[dict[str, Any]]:
        import datasets

        rows = datasets.load_dataset(
            self.dataset, self.config, split=self.split, revision=revision, streaming=True
        )
        yield from rows
