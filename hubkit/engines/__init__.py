"""Text generation behind one interface: `open_engine` gives the one that a recipe names."""

from __future__ import annotations

from pathlib import Path

from hubkit.config import EngineRuntime
from hubkit.engines.base import Engine, Request, Response

__all__ = ["Engine", "Request", "Response", "open_engine"]


def open_engine(
    model: Path, runtime: EngineRuntime, device: str = "auto", threads: int = 1, adapter: Path | None = None
) -> Engine:
    """The engine for a model folder (and a PEFT adapter on it). Use it in a `with`."""
    if runtime.engine == "openai":
        from hubkit.engines.openai import OpenAIEngine

        return OpenAIEngine(runtime, runtime.served_model or model.name)
    from hubkit.engines.transformers import TransformersEngine

    return TransformersEngine(model, runtime.batch_size, device, threads, adapter)
