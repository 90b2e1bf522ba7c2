"""Compressors: what shortens traces.

One table, from the name after `kind:` to the class that has its keys. A new kind is a module here, with `VERSION` and
`run(context)`, and a row in the table. What any of them makes is the variant compressed-<name>.
"""

from __future__ import annotations

from typing import Final

from hubkit.traces.compressors.base import Compressor
from hubkit.traces.compressors.prune import Prune
from hubkit.traces.compressors.prune_steps import PruneSteps
from hubkit.traces.compressors.prune_tokens import PruneTokens
from hubkit.traces.compressors.rewrite import Rewrite

__all__ = ["COMPRESSORS", "Compressor"]

COMPRESSORS: Final[dict[str, type[Compressor]]] = {
    "rewrite": Rewrite,
    "prune": Prune,
    "prune-steps": PruneSteps,
    "prune-tokens": PruneTokens,
}
