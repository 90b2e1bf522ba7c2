"""hubkit: reasoning traces, compressed and distilled, released on the Hugging Face Hub.

    hubkit.verify("So it is \\boxed{\\frac12}.", answer="0.5").correct            True
    hubkit.split("<think>47 + 38 = 85</think>85.")                                reasoning, solution
    hubkit.compress(traces, model="org/name")   hubkit.truncate(traces, tokens=100, tokenizer="org/name")
    hubkit.run("recipes/nano/recipe.yaml")      hubkit.results("recipes/nano/recipe.yaml")
    hubkit.verify_traces("org/name", Path("verified"))          one stage alone: on a dataset, a file, or a folder
    hubkit.evaluate("org/model", ["gsm8k|0"], Path("scores"))

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
    from hubkit.stages.evaluating import evaluate
    from hubkit.stages.source import SourceOptions
    from hubkit.stages.stages import compress as compress_traces
    from hubkit.stages.stages import lengths_of as traces_stats
    from hubkit.stages.stages import push as push_traces
    from hubkit.stages.stages import truncate as truncate_traces
    from hubkit.stages.stages import verify as verify_traces
    from hubkit.traces.compressors.prune import Prune
    from hubkit.traces.compressors.prune_steps import PruneSteps
    from hubkit.traces.compressors.prune_tokens import PruneTokens
    from hubkit.traces.compressors.rewrite import Rewrite
    from hubkit.traces.thinking import split
    from hubkit.verifiers import verify

__all__ = [
    "Prune",
    "PruneSteps",
    "PruneTokens",
    "Rewrite",
    "SourceOptions",
    "compress",
    "compress_traces",
    "count_tokens",
    "evaluate",
    "load_recipe",
    "open_engine",
    "push_traces",
    "results",
    "run",
    "split",
    "traces_stats",
    "truncate",
    "truncate_traces",
    "verify",
    "verify_traces",
]

_HOMES = {
    "Prune": "hubkit.traces.compressors.prune:Prune",
    "PruneSteps": "hubkit.traces.compressors.prune_steps:PruneSteps",
    "PruneTokens": "hubkit.traces.compressors.prune_tokens:PruneTokens",
    "Rewrite": "hubkit.traces.compressors.rewrite:Rewrite",
    "SourceOptions": "hubkit.stages.source:SourceOptions",
    "compress": "hubkit.api:compress",
    "compress_traces": "hubkit.stages.stages:compress",
    "count_tokens": "hubkit.api:count_tokens",
    "evaluate": "hubkit.stages.evaluating:evaluate",
    "load_recipe": "hubkit.recipe.file:load_recipe",
    "open_engine": "hubkit.engines:open_engine",
    "push_traces": "hubkit.stages.stages:push",
    "results": "hubkit.api:results",
    "run": "hubkit.api:run",
    "split": "hubkit.traces.thinking:split",
    "traces_stats": "hubkit.stages.stages:lengths_of",
    "truncate": "hubkit.api:truncate",
    "truncate_traces": "hubkit.stages.stages:truncate",
    "verify": "hubkit.verifiers:verify",
    "verify_traces": "hubkit.stages.stages:verify",
}
"""Name -> module:name in it."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hubkit' has no attribute {name!r}")
    module, _, of = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module), of)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
