"""Origins: where traces come from.

Entries of a recipe's `teachers` answer its problems. Entries of its `traces` are existing traces with their
problems; EXISTING has their classes, by the name after `source:`. A new origin is a module here, with `VERSION` and
`run(context)`, and a row in the table.
"""

from __future__ import annotations

from typing import Final

from hubkit.traces.origins.base import Origin
from hubkit.traces.origins.existing import PLACES
from hubkit.traces.origins.teacher import Teacher

__all__ = ["EXISTING", "ORIGINS", "Origin", "Teacher"]

EXISTING: Final[dict[str, type[Origin]]] = {**PLACES}
ORIGINS: Final[dict[str, type[Origin]]] = {"teacher": Teacher, **EXISTING}
