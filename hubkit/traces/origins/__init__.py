"""Origins: where traces come from.

One table, from the name of a kind to the class that has its keys. A new origin is a module here, with `VERSION` and
`run(context)`, and a row in the table.
"""

from __future__ import annotations

from typing import Final

from hubkit.traces.origins.base import Origin
from hubkit.traces.origins.teacher import Teacher

__all__ = ["ORIGINS", "Origin"]

ORIGINS: Final[dict[str, type[Origin]]] = {"teacher": Teacher}
