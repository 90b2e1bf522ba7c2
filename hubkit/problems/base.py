"""What all problem sources share: the class that a recipe's `problems` entries are, splits and ids.

A source is a module with a subclass of `Source` and a row in the table of hubkit/problems/__init__.py. Plan, estimate,
preflight and cards ask these methods and know no source by name.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from hubkit.errors import RecipeError
from hubkit.records import Problem
from hubkit.section import Section

__all__ = ["Description", "Pin", "Source", "beside", "normalise", "problem_id", "split_of"]


@dataclass(frozen=True)
class Pin:
    """Where a source's data is, and what fixes it. Empty for a source that reads nothing from outside."""

    where: str = ""
    """As the recipe names it: a Hub id, or a path relative to the recipe."""
    revision: str = ""
    """Commit on the Hub."""
    digest: str = ""
    """What identifies the data in the step's key: a commit, or the sha256 of the content."""
    path: Path | None = None
    """The file on this machine; never part of a record."""


@dataclass(frozen=True)
class Description:
    """What a card says of a source."""

    text: str
    """Ends the sentence "250 problems, from …"."""
    dataset: str | None = None
    """Hub id, for the card's `source_datasets` and its list of what came from outside."""
    link: str = ""
    """Where the problems come from, if the recipe says so."""
    license: str = ""


class Source(Section, ABC):
    """An entry of a recipe's `problems`. Its fields are the identity of the step that reads it."""

    VERSION: ClassVar[int] = 1
    """Raised when it reads the same data differently than before, so that old outputs are not taken for new ones."""

    source: str
    """Name in the table; a subclass narrows it to a Literal."""

    @abstractmethod
    def rows(self, pin: Pin) -> Iterator[Problem]:
        """Yield the problems in a fixed order. Raises InputError that names the row for data it cannot read."""

    @abstractmethod
    def judged_by(self) -> str:
        """Returns the name of the verifier of these problems."""

    @abstractmethod
    def describe(self) -> Description:
        """Returns what cards say of these problems."""

    def pin(self, folder: Path, key: str, commit: Callable[[str, str], str]) -> Pin:
        """Returns what fixes the data. `folder` is the recipe's, `key` names the entry in errors, and
        `commit(dataset, revision)` resolves a Hub dataset. Raises RecipeError if the data is not there."""
        return Pin()

    def count(self, pin: Pin) -> int | None:
        """Returns the number of problems that it has at most, cheaply; None if that is unknown."""
        return None

    def most(self) -> int | None:
        """Returns the number of problems after which reading stops; None for all."""
        return None

    def check_kept(self, kept: int) -> None:
        """Raise InputError if too few different problems were found."""


def beside(folder: Path, name: str, key: str, kind: Literal["file", "folder"] = "folder") -> Path:
    """Returns the path of a file or folder that a recipe names. Raises RecipeError if it is not there."""
    remedy = f"give the path of a {kind}, relative to the recipe's folder"
    try:
        path = (folder / name).resolve()
        if not path.exists():
            raise RecipeError(f"{key}: {name!r} is not there", remedy)
        if path.is_dir() == (kind == "file"):
            raise RecipeError(f"{key}: {name!r} is not a {kind}", remedy)
        next(path.iterdir(), None) if kind == "folder" else path.open("rb").close()
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{key}: cannot read {name!r}: {getattr(error, 'strerror', None) or error}", remedy
        ) from None
    return path


def normalise(problem: str) -> str:
    """Returns a problem's text without differences of case and white space; equal texts are the same problem."""
    return " ".join(problem.split()).lower()


def split_of(problem: str) -> Literal["train", "dev", "test"]:
    """Returns the split of a problem, which depends on its text alone: 10 % test, 10 % dev, the rest train.

    The same problem is in the same split in every recipe and every run, so a model trained on one split has not seen
    the others, however many problems were drawn.
    """
    number = int.from_bytes(hashlib.sha256(" ".join(problem.split()).encode()).digest()[:8], "big") % 10
    return "test" if number == 0 else "dev" if number == 1 else "train"


def problem_id(prefix: str, problem: str) -> str:
    """Returns a stable id: the source's name and 12 hex digits of the text's sha256."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", prefix).strip("-.")[:40]
    return f"{safe}-{hashlib.sha256(problem.encode()).hexdigest()[:12]}"
