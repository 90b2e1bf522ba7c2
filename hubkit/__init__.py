"""hubkit: reasoning traces, compressed and distilled, released on the Hugging Face Hub.

    hubkit.verify("So it is \\boxed{\\frac12}.", answer="0.5").correct            True
    hubkit.split("<think>47 + 38 = 85</think>85.")                                reasoning, solution
    hubkit.compress(traces, model="org/name")   hubkit.truncate(traces, tokens=100, tokenizer="org/name")
    hubkit.run("recipes/nano/recipe.yaml")      hubkit.results("recipes/nano/recipe.yaml")

Each name is loaded when it is first used, so that importing hubkit costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from hubkit.api import compress, count_tokens, results, run, truncate
    from hubkit.engines import open_engine
    from hubkit.recipe.file import load_recipe
    from hubkit.traces.thinking import split
    from hubkit.verifiers import verify

__all__ = [
    "compress",
    "count_tokens",
    "load_recipe",
    "open_engine",
    "results",
    "run",
    "split",
    "truncate",
    "verify",
]

_HOMES = {
    "compress": "hubkit.api",
    "count_tokens": "hubkit.api",
    "load_recipe": "hubkit.recipe.file",
    "open_engine": "hubkit.engines",
    "results": "hubkit.api",
    "run": "hubkit.api",
    "split": "hubkit.traces.thinking",
    "truncate": "hubkit.api",
    "verify": "hubkit.verifiers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hubkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
