# /// script
# requires-python = ">=3.11"
# dependencies = ["hubkit"]
# [tool.uv.sources]
# hubkit = { path = "../..", editable = true }
# ///
"""Run this recipe: `uv run recipes/nano/run.py`, or with hubkit installed `python recipes/nano/run.py`.

Only uv reads where hubkit is; on PyPI that name is another project's, so no other runner should install it.
All options of `hubkit recipe run` can follow, such as --until compressed or --set students.seeds=[0,1].
"""

from __future__ import annotations

import sys
from pathlib import Path

from hubkit.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["recipe", "run", str(Path(__file__).with_name("recipe.yaml"))]
    main()
