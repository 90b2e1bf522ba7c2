# /// script
# requires-python = ">=3.11"
# dependencies = ["hubkit[vllm,kernels,ray]"]
# [tool.uv.sources]
# hubkit = { path = "../..", editable = true }
# ///
"""Run this recipe: `uv run recipes/compress-distill/run.py`, or with hubkit installed by `python`.

Only uv reads where hubkit is; on PyPI that name is another project's, so no other runner should install it.
All options of `hubkit recipe run` can follow, such as --until raw or --set hub.namespace=NAME.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hubkit.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["recipe", "run", str(Path(__file__).with_name("recipe.yaml"))]
    main()
