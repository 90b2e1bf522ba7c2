"""The kinds of steps. A step's name begins with its kind, and `run.resources` is given by kind."""

from __future__ import annotations

from typing import Final

from hubkit.traces.variants import VARIANTS

__all__ = ["STEPS"]

STEPS: Final[dict[str, str]] = {
    "problems": "hubkit.problems.problems:run",
    "contamination": "hubkit.problems.contamination:run",
    "traces": "",
    "judge": "hubkit.traces.judge:run",
    "verify": "hubkit.traces.variants.raw:run",
    "selected": "hubkit.traces.select:run",
    "compress": "",
    "control": "",
    **{kind: row.step for kind, row in VARIANTS.items() if not row.mixture},
    "matched": "hubkit.traces.matched:run",
    "tokenise": "hubkit.students.tokens:run",
    "tokens": "hubkit.students.tokens:run",
    "rows": "hubkit.students.tokens:agree",
    "student": "hubkit.students.student:run",
    "evaluation": "hubkit.evaluation.evaluation:run",
    "report": "hubkit.release.report:run",
    "publish": "hubkit.release.publish:run",
}
"""Kind -> module:function. Empty if another table has the function: ORIGINS for `traces`, COMPRESSORS for `compress`,
VARIANTS for `control`. `verify`, `control` and `tokenise` are shards of `raw`, of the controls and of `tokens`, for
teachers with many shards (plan.MANY)."""
