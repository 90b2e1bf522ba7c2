"""Problems: prompts with known answers, from a source named in the recipe.

One table, from the name after `source:` to the class that has its keys and its behaviour. A new source is a module
here and a row in the table.
"""

from __future__ import annotations

from typing import Final

from hubkit.problems.base import Source, split_of
from hubkit.problems.file import FileSource
from hubkit.problems.hub import HubSource
from hubkit.problems.reasoning_gym import ReasoningGymSource

__all__ = ["SOURCES", "Source", "split_of"]

SOURCES: Final[dict[str, type[Source]]] = {
    "reasoning-gym": ReasoningGymSource,
    "file": FileSource,
    "hub": HubSource,
}
